"""Whose status counts as one of now: on this connection, live at once, retained after a while."""

import pytest

from collected import BOOT
from fakes.fake_time import FakeTime
from fleetmark_collector.devices import DeviceRegistry
from fleetmark_collector.presence import RETAINED_S, Presence
from fleetmark_protocol import codec
from fleetmark_protocol.messages import Status

LIVE, KEPT = ("lab", "live"), ("lab", "kept")


@pytest.fixture
def time():
    return FakeTime()


@pytest.fixture
def presence(time):
    made = Presence(time)
    made.connected()
    return made


def test_a_retained_status_counts_after_a_while_and_one_that_comes_live_at_once(presence, time):
    presence.note(LIVE, retained=False)
    presence.note(KEPT, retained=True)
    assert presence.heard() == {LIVE}
    time.now_s += RETAINED_S
    assert presence.heard() == {LIVE, KEPT}


def test_with_a_new_connection_all_begins_anew_and_without_one_nobody_counts(presence, time):
    presence.note(LIVE, retained=False)
    presence.disconnected()
    time.now_s += RETAINED_S
    presence.note(LIVE, retained=False)
    assert presence.heard() == set()
    presence.connected()
    presence.note(KEPT, retained=True)
    assert presence.heard() == set()
    assert Presence(time).heard() == set()


def test_the_registry_tells_it_of_devices_that_are_there_and_not_of_wills(tmp_path):
    registry = DeviceRegistry(tmp_path / "state.db")
    registry.presence.connected()
    for name, online, retained in (("a", True, False), ("b", False, False), ("c", True, True)):
        said = Status(online=online, boot_id=BOOT, agent_version="1", started_ns=1)
        registry.receive(f"fleetmark/v1/lab/{name}/status", codec.encode(said), retained)
    assert registry.presence.heard() == {("lab", "a")}
