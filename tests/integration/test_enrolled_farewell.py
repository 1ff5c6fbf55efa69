"""What is retained of a device that is revoked, or bound to one fleet, while the broker runs."""

import json

import pytest

from collected import EPOCH
from enrolled_centre import COLLECTOR, Centre
from fleetmark_protocol import codec
from fleetmark_protocol.messages import MAX_PAYLOAD_BYTES, Status
from servers import each_closed, wait_for

pytestmark = pytest.mark.integration

ONLINE = codec.encode(Status(online=True, boot_id=EPOCH, agent_version="1", started_ns=1))
LAB, FIELD = (f"fleetmark/v1/{fleet}/by-password/status" for fleet in ("lab", "field"))
MARK = "fleetmark/v1/zzz/mark/status"


@pytest.fixture
def centre(tmp_path):
    """A centre that enrolled by-password before identities had a fleet."""
    centre = Centre(tmp_path)
    file = centre.enrolment.keep.path("identities.json")
    kept = json.loads(file.read_text())
    del kept["identities"]["by-password"]["fleet"]
    file.write_text(json.dumps(kept))
    centre.enrolment.prepare()
    yield centre.start()
    centre.broker.kill()


@pytest.fixture
def connect(centre):
    """Connect to the centre; the connections end with the test."""
    with each_closed(centre.connect) as client:
        yield client


def retained(connect):
    """Return what who subscribes now is told: topic -> whether online, None for no status."""
    connect(COLLECTOR).say(MARK, b"mark", retain=True)
    late = connect(COLLECTOR, topics="fleetmark/v1/+/+/status")
    wait_for(lambda: (MARK, b"mark") in late.got, what="what is retained")
    return {
        topic: json.loads(payload)["online"] if payload.startswith(b"{") else None
        for topic, payload in late.got
        if topic != MARK
    }


def heard_out(client, topic):
    """Wait until the broker has had what it does not want: it says so, or hangs up."""
    said = client.client.publish(topic, ONLINE, qos=1, retain=True)
    wait_for(
        # Of one that is cut off already, paho raises.
        lambda: client.lost.is_set() or (said.rc == 0 and said.is_published()),
        what="an answer",
    )


def test_a_revoked_device_is_offline_wherever_it_spoke_and_leaves_nothing_that_is_no_status(
    centre, connect
):
    device = connect("by-password")
    device.say(LAB, ONLINE, retain=True)
    # With a field that nobody here knows, as large as a message may be.
    more = b"x" * (MAX_PAYLOAD_BYTES - len(ONLINE) - len(b',"more":""'))
    device.say(FIELD, ONLINE[:-1] + b',"more":"' + more + b'"}', retain=True)
    junk = [f"fleetmark/v1/{fleet}/by-password/status" for fleet in ("junk", "No Name")]
    for topic in junk:
        device.say(topic, b"x" * 100_000, retain=True)
    assert retained(connect) == {LAB: True, FIELD: True, **dict.fromkeys(junk)}
    done = centre.cli("revoke", "by-password")
    assert (done.returncode, "stays so" in done.stderr) == (0, False), done.stderr
    assert retained(connect) == {LAB: False, FIELD: False}


def test_a_device_that_is_bound_to_a_fleet_is_offline_in_the_others(centre, connect):
    device = connect("by-password")
    device.say(LAB, ONLINE, retain=True)
    device.say(FIELD, ONLINE, retain=True)
    done = centre.cli("enroll", "by-password", "--renew", "--password", "--fleet", "lab")
    assert done.returncode == 0, done.stderr
    assert 'fleet = "lab"' in done.stdout
    assert retained(connect) == {LAB: True, FIELD: False}
    # Neither the old connection nor a new one speaks there any more.
    heard_out(device, FIELD)
    heard_out(connect("by-password"), FIELD)
    connect("by-password").say(LAB, ONLINE, retain=True)
    assert retained(connect) == {LAB: True, FIELD: False}
