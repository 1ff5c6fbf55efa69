"""Two collectors as processes, a real broker and agent: one is killed or frozen, one goes on."""

import json
import signal
import time

import pytest

from fleetmark_collector.lease import LEASE_S
from fleetmark_collector.mqtt import RECONNECT_MIN_S, Bus
from fleetmark_protocol.settings import BrokerSettings
from servers import wait_for

pytestmark = pytest.mark.integration

TAKEOVER_S = 15
"""What the documentation promises, from the leader's last sign."""
REPETITIONS = 40


def events(fleet, name):
    lines = [line for line in fleet.log(name).splitlines() if line.startswith("{")]
    return [json.loads(line) for line in lines]


def said(fleet, name, event):
    return [one for one in events(fleet, name) if one["event"] == event]


def collector_pid(fleet):
    from fleetmark_collector.devices import DeviceRegistry

    registry = DeviceRegistry(fleet.data_dir / "state.db")
    try:
        beat = registry.last_beat()
    finally:
        registry.close()
    return None if beat is None else beat.pid


@pytest.fixture
def pair(fleet):
    """A leader, a standby, and a campaign under way."""
    fleet.settings('log_format = "json"\n')
    fleet.start_collector(name="leader")
    fleet.start_agent("pi-sim")
    fleet.wait_for_devices("pi-sim")
    fleet.start_collector(name="standby")
    wait_for(lambda: said(fleet, "standby", "standby"), 30, "the second waiting")
    fleet.campaign_id = fleet.submit(fleet.write_campaign(repetitions=REPETITIONS))
    wait_for(lambda: fleet.stored_trials(fleet.campaign_id) >= 3, 60, "three trials in the store")
    return fleet


def assert_nothing_lost_or_repeated(fleet):
    assert fleet.wait_for_end(fleet.campaign_id) == "SUCCEEDED"
    fleet.assert_each_trial_once(fleet.campaign_id, REPETITIONS + 1)
    (job,) = fleet.status(fleet.campaign_id)["jobs"]
    assert job["attempt"] == 1, "the device noticed nothing"


def test_a_leader_that_is_killed_is_replaced_at_once_and_its_campaign_goes_on(pair):
    (waits,) = said(pair, "standby", "standby")
    assert waits["leader_pid"] == pair.pid("leader")
    assert collector_pid(pair) == pair.pid("leader")
    pair.kill("leader", signal.SIGKILL)
    killed_s = time.monotonic()
    wait_for(lambda: said(pair, "standby", "leading"), TAKEOVER_S, "the takeover")
    assert time.monotonic() - killed_s < LEASE_S, "it does not wait for the lease to run out"
    assert said(pair, "standby", "leading")[0]["term"] == 2
    assert_nothing_lost_or_repeated(pair)
    assert collector_pid(pair) == pair.pid("standby")


def test_a_leader_that_is_frozen_is_replaced_and_changes_nothing_when_it_wakes(pair):
    pair.signal("leader", signal.SIGSTOP)
    wait_for(lambda: said(pair, "standby", "leading"), TAKEOVER_S, "the takeover")
    wait_for(lambda: said(pair, "standby", "broker_connected"), 10, "the new one at the broker")
    beats = pair.pid("standby")
    wait_for(lambda: collector_pid(pair) == beats, 10, "a heartbeat of the new one")
    pair.signal("leader", signal.SIGCONT)
    wait_for(lambda: said(pair, "leader", "leadership_lost"), 20, "the old one noticing")
    wait_for(lambda: said(pair, "leader", "standby"), 20, "the old one waiting")
    assert said(pair, "leader", "standby")[-1]["leader_pid"] == pair.pid("standby")
    assert_nothing_lost_or_repeated(pair)
    assert collector_pid(pair) == beats
    assert not said(pair, "standby", "broker_lost"), "the old one did not push it out again"
    assert len(said(pair, "leader", "broker_connected")) == 1
    # And back again: the one that slept is as good a standby as any.
    pair.kill("standby", signal.SIGTERM)
    wait_for(lambda: len(said(pair, "leader", "leading")) == 2, TAKEOVER_S, "the way back")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_that_waits_ends_at_once_and_well(fleet, number):
    fleet.settings('log_format = "json"\n')
    fleet.start_collector(name="leader")
    wait_for(lambda: said(fleet, "leader", "leading"), 30, "the first leading")
    fleet.start_collector(name="standby")
    wait_for(lambda: said(fleet, "standby", "standby"), 30, "the second waiting")
    process = fleet._processes["standby"]
    process.send_signal(number)
    assert process.wait(5) == 0
    assert not said(fleet, "standby", "leading")
    wait_for(lambda: collector_pid(fleet) == fleet.pid("leader"), 10, "the first at work")


def test_a_leader_that_ends_in_good_order_is_followed_at_once(fleet):
    fleet.settings('log_format = "json"\n')
    fleet.start_collector(name="leader")
    wait_for(lambda: said(fleet, "leader", "leading"), 30, "the first leading")
    fleet.start_collector(name="standby")
    wait_for(lambda: said(fleet, "standby", "standby"), 30, "the second waiting")
    fleet.kill("leader", signal.SIGTERM)
    wait_for(lambda: said(fleet, "standby", "leading"), LEASE_S / 2, "the takeover")


class Mandate:
    """That of a collector which a test lets lose it."""

    lost = False

    def holds(self):
        return not self.lost


def test_a_connection_that_another_has_taken_over_is_left_to_that_one(mosquitto):
    settings = BrokerSettings(port=mosquitto.port)
    mandate, connects, heard = Mandate(), [], []
    first = Bus(settings, "the-same", mandate=mandate)
    first.start()
    wait_for(lambda: first.connected, what="the first at the broker")
    second = Bus(settings, "the-same", mandate=Mandate())
    second.on_connect(lambda: connects.append(1))
    second.subscribe("said", lambda topic, payload, retained: heard.append(payload))
    mandate.lost = True
    first.publish("said", b"by the first", True)
    second.start()
    try:
        wait_for(lambda: second.connected, what="the second at the broker")
        wait_for(lambda: not first.connected, what="the first put out")
        time.sleep(3 * RECONNECT_MIN_S)
        assert (len(connects), second.connected, first.connected) == (1, True, False)
        second.publish("said", b"by the second", True)
        wait_for(lambda: heard, what="what was said")
        assert heard == [b"by the second"]
    finally:
        first.stop()
        second.stop()
