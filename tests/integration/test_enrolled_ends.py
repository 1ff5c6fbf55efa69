"""Devices that come, are renewed, end and are revoked while the broker runs."""

import json
from datetime import timedelta

import pytest

from commands import fleetmark
from enrolled_centre import COLLECTOR, KINDS, Centre, kept, secrets_of
from fleetmark_collector.enrolment.authority import now_utc
from fleetmark_collector.enrolment.enrolling import Enrolment, Wish
from fleetmark_collector.enrolment.running import tell_broker
from servers import each_closed, wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def centre(tmp_path):
    centre = Centre(tmp_path).start()
    yield centre
    centre.broker.kill()


@pytest.fixture
def connect(centre):
    """Connect to the centre; the connections end with the test."""
    with each_closed(centre.connect) as client:
        yield client


def test_a_device_that_is_enrolled_while_the_broker_runs_gets_in_and_disturbs_nobody(
    connect, centre
):
    there = [connect(device) for device in KINDS]
    done = centre.cli("enroll", "new", "--fleet", "lab", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["broker_told"]
    collector = connect(COLLECTOR, topics="fleetmark/v1/lab/new/data")

    def heard():
        connect("new").say("fleetmark/v1/lab/new/data")
        return bool(collector.got)

    wait_for(heard, what="the new device")
    assert not any(one.lost.is_set() for one in there)


@pytest.mark.parametrize("device", KINDS)
def test_a_revoked_device_is_silent_at_once_although_connected_and_does_not_come_back(
    connect, centre, tmp_path, device
):
    (other,) = set(KINDS) - {device}
    base = f"fleetmark/v1/lab/{device}"
    secret = kept(centre.kit(device), tmp_path)
    collector = connect(COLLECTOR, topics="fleetmark/v1/+/+/data")
    live, stays = connect(**secret, topics=f"{base}/ack"), connect(other)
    live.say(f"{base}/data", b"before")
    wait_for(lambda: collector.got, what="what it said before")
    done = centre.cli("revoke", device)
    assert done.returncode == 0, done.stderr
    assert "has been told" in done.stderr
    if device == "by-password":
        assert live.lost.wait(10)
    wait_for(lambda: not connect(**secret).is_in, what="the broker to know")
    collector.got.clear()
    # With our settings this costs a Mosquitto 2.0 client its connection, too.
    live.client.publish(f"{base}/data", b"after", qos=1)
    collector.say(f"{base}/ack", b"after")
    stays.say(f"fleetmark/v1/lab/{other}/data", b"still here")
    wait_for(lambda: collector.got, what="the other's word")
    assert collector.got == [(f"fleetmark/v1/lab/{other}/data", b"still here")]
    assert live.got == []


def test_a_password_that_has_ended_is_out_by_the_daily_task(connect, centre, tmp_path):
    last_month = Enrolment(centre.enrolment.keep, lambda: now_utc() - timedelta(days=30))
    last_month.enroll("late", Wish(kind="password", days=29))
    tell_broker(centre.enrolment.keep)
    secret = kept(centre.kit("late"), tmp_path)
    wait_for(lambda: connect(**secret).is_in, what="the late one let in")
    live = connect(**secret)
    done = centre.cli("revoke", "--expired")
    assert done.stdout == "revoked: late\n", done.stderr
    assert live.lost.wait(10)
    assert not connect(**secret).is_in
    assert connect("by-password").is_in


def test_a_renewal_leaves_the_old_certificate_until_its_end_and_no_old_password(
    connect, centre, tmp_path
):
    old = {device: kept(centre.kit(device), tmp_path) for device in KINDS}
    for device, wish in KINDS.items():
        centre.enrolment.enroll(device, wish, renew=True)
    tell_broker(centre.enrolment.keep)
    wait_for(lambda: connect("by-password").is_in, what="the new password")
    assert connect("by-certificate").is_in
    assert connect(**old["by-certificate"]).is_in
    assert not connect(**old["by-password"]).is_in


def test_agents_by_either_kit_are_online_until_revoked_with_a_collector_without_settings(
    centre, tmp_path
):
    secrets = [text for device in KINDS for text in secrets_of(centre.kit(device))]
    collector = fleetmark(
        *("collect", "--data-dir", centre.data_dir, "--broker-port", centre.port),
        log=tmp_path / "collector.log",
    )
    agents = [centre.start_agent(device, tmp_path) for device in KINDS]

    def online():
        done = centre.cli("devices", "--json")
        found = json.loads(done.stdout) if done.returncode == 0 else []
        return {one["device"] for one in found if one["online"]}

    try:
        wait_for(lambda: online() == set(KINDS), 40, "both devices online")
        done = centre.cli("revoke", *KINDS)
        assert (done.returncode, "stays so" in done.stderr) == (0, False), done.stderr
        wait_for(lambda: online() == set(), what="both to be shown as gone")
        assert done.stdout == f"revoked: {', '.join(KINDS)}\n"
    finally:
        said = [one.output() for one in (*agents, collector)]
        for one in (*agents, collector):
            one.end()
    assert not [one for text in said for one in secrets if one in text]


def test_revoking_while_the_broker_is_away_says_what_is_left_undone(centre):
    centre.broker.kill()
    done = centre.cli("revoke", "by-password")
    assert done.returncode == 0
    assert "stays so in `fleetmark devices`" in done.stderr
    assert centre.enrolment.find("by-password") is None
