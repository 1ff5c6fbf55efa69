"""A job that the device has taken is in what it says of itself, whatever else it is at."""

import pytest

from conversing import BOOT, Device
from fleetmark_agent.inventory import hardware, make_inventory
from fleetmark_protocol import codec
from fleetmark_protocol.errors import StoreUnavailable
from fleetmark_protocol.messages import Inventory


@pytest.fixture
def device(tmp_path):
    made = Device(tmp_path, lists_jobs=True)
    made.talk.announce(inventory(made))
    return made


def inventory(device, time_ns=1):
    return make_inventory(
        settings=device.settings,
        boot_id=BOOT,
        time_ns=time_ns,
        hardware=hardware(),
        backends=(),
        models=(),
        sensors=(),
        jobs=(),
    )


def listed(device):
    """Return the jobs of each inventory that was said since the last time this was asked."""
    said = [payload for channel, payload, _ in device.said if channel == "inventory"]
    device.said.clear()
    return [[job.job_id for job in codec.decode(Inventory, one).jobs] for one in said]


def test_a_job_is_listed_once_it_is_taken_and_that_is_said_once_by_the_next_turn(device):
    device.talk.greet()
    device.talk.turn()
    assert listed(device) == [[]]
    device.wish(1, "run")
    assert listed(device) == [], "not on the network's thread"
    assert device.talk.urgent
    device.talk.turn()
    assert listed(device) == [["c.d1.001"]]
    device.wish(1, "run")
    device.talk.turn()
    assert listed(device) == []


def test_a_job_that_is_taken_inside_a_timed_window_is_listed_after_it(device):
    device.talk.greet()
    device.talk.turn()
    device.said.clear()
    with device.talk.hold():
        device.wish(1, "run")
        device.talk.turn()
        assert listed(device) == []
    assert device.talk.urgent
    with device.talk.hold():
        assert listed(device) == [["c.d1.001"]], "windows may follow each other closely"


def test_a_list_that_was_about_to_go_as_a_window_began_goes_after_it(device, monkeypatch):
    device.talk.greet()
    device.talk.turn()
    device.wish(1, "run")
    device.said.clear()
    with monkeypatch.context() as patched:
        patched.setattr(device.talk, "_may_send", lambda: True)
        with device.talk._hush.hold():
            device.talk.turn()
            assert listed(device) == []
    assert device.talk.urgent
    device.talk.turn()
    assert listed(device) == [["c.d1.001"]]


def test_a_new_connection_lists_what_was_taken_on_the_old_one(device):
    device.talk.greet()
    device.wish(1, "run")
    device.talk.lost()
    device.talk.turn()
    device.said.clear()
    device.talk.greet()
    device.talk.turn()
    assert listed(device) == [["c.d1.001"]]


def test_an_inventory_that_was_made_before_a_job_was_taken_does_not_hide_it(device):
    device.talk.greet()
    older = inventory(device)
    device.wish(1, "run")
    device.talk.turn()
    device.said.clear()
    device.talk.announce(older)
    assert listed(device) == [["c.d1.001"]]


def test_a_list_that_cannot_be_read_is_said_when_it_can(device, monkeypatch):
    def broken():
        raise StoreUnavailable("the disk is gone")

    device.talk.greet()
    device.talk.turn()
    device.said.clear()
    with monkeypatch.context() as patched:
        patched.setattr(device.talk._said, "_jobs", broken)
        device.wish(1, "run")
        device.talk.turn()
        assert not device.talk.urgent, "nor does it spin"
    assert listed(device) == []
    device.talk.turn()
    assert listed(device) == [["c.d1.001"]]
