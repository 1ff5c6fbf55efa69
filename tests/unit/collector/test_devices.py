"""The registry of devices and the collector's sign of life."""

import os
import sqlite3

import pytest

from fleetmark_collector.devices import STALE_BEAT_S, Beat, DeviceRegistry
from fleetmark_protocol import codec
from fleetmark_protocol.errors import ContractError, StoreError
from fleetmark_protocol.messages import Hardware, Inventory, Status

BOOT = "0b0c7b0e-4a4c-4a53-9d0c-0d3f0f5a00a1"
NEXT_BOOT = "0b0c7b0e-4a4c-4a53-9d0c-0d3f0f5a00a2"
STATUS = "fleetmark/v1/lab/pi/status"
INVENTORY = "fleetmark/v1/lab/pi/inventory"
S = 10**9


def status(online: bool, boot_id: str = BOOT, started_s: int = 100) -> bytes:
    return codec.encode(
        Status(online=online, boot_id=boot_id, agent_version="0.1.0", started_ns=started_s * S)
    )


def inventory(tags: tuple[str, ...] = ("fast",)) -> bytes:
    return codec.encode(
        Inventory(
            boot_id=BOOT,
            time_ns=1,
            agent_version="0.1.0",
            python_version="3.11",
            tags=tags,
            hardware=Hardware(arch="aarch64", os="Debian", kernel="6", hostname="pi"),
        )
    )


class Clock:
    def __init__(self) -> None:
        self.now_ns = 1000 * S

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def registry(tmp_path, clock):
    registry = DeviceRegistry(tmp_path / "state.db", clock)
    yield registry
    registry.close()


def test_a_birth_and_an_inventory_make_a_device(registry, clock):
    registry.receive(STATUS, status(online=True))
    registry.receive(INVENTORY, inventory())
    (device,) = registry.list()
    assert (device.fleet, device.device, device.online) == ("lab", "pi", True)
    assert device.status.boot_id == BOOT
    assert device.inventory.tags == ("fast",)
    assert device.last_seen_ns == clock.now_ns


def test_another_process_sees_what_was_flushed(registry, tmp_path):
    registry.receive(STATUS, status(online=True))
    other = DeviceRegistry(tmp_path / "state.db")
    assert other.list() == []
    registry.flush()
    assert other.get("lab", "pi").online
    assert other.get("lab", "ec2") is None
    other.close()


def test_a_will_of_the_same_boot_takes_the_device_offline(registry):
    registry.receive(STATUS, status(online=True))
    registry.receive(STATUS, status(online=False))
    assert not registry.get("lab", "pi").online


@pytest.mark.parametrize("flush_between", [True, False])
def test_a_late_will_of_an_older_boot_does_not_overwrite_a_newer_birth(registry, flush_between):
    registry.receive(STATUS, status(online=True, boot_id=NEXT_BOOT, started_s=200))
    if flush_between:
        registry.flush()
    registry.receive(STATUS, status(online=False, boot_id=BOOT, started_s=100))
    device = registry.get("lab", "pi")
    assert device.online
    assert device.status.boot_id == NEXT_BOOT


def test_a_will_of_a_newer_boot_whose_birth_was_missed_is_believed(registry):
    registry.receive(STATUS, status(online=True, boot_id=BOOT, started_s=100))
    registry.flush()
    registry.receive(STATUS, status(online=False, boot_id=NEXT_BOOT, started_s=200), retained=True)
    assert not registry.get("lab", "pi").online


def test_a_birth_is_believed_even_where_the_device_s_clock_went_back(registry):
    registry.receive(STATUS, status(online=True, boot_id=BOOT, started_s=100))
    registry.receive(STATUS, status(online=True, boot_id=NEXT_BOOT, started_s=1))
    assert registry.get("lab", "pi").status.boot_id == NEXT_BOOT


def test_retained_messages_and_wills_are_no_signs_of_life(registry, clock):
    registry.receive(STATUS, status(online=True), retained=True)
    assert registry.get("lab", "pi").last_seen_ns is None
    registry.seen({("lab", "pi")})
    seen_ns = clock.now_ns
    clock.now_ns += 60 * S
    registry.receive(STATUS, status(online=False))
    assert registry.get("lab", "pi").last_seen_ns == seen_ns


def test_a_device_known_by_its_records_alone_is_listed_as_offline(registry, clock):
    registry.seen({("lab", "ec2")})
    (device,) = registry.list()
    assert (device.device, device.online, device.status) == ("ec2", False, None)
    assert device.last_seen_ns == clock.now_ns


def test_an_emptied_status_forgets_the_device(registry):
    registry.receive(STATUS, status(online=True))
    registry.receive(INVENTORY, inventory())
    registry.flush()
    registry.receive(STATUS, b"")
    assert registry.list() == []


def test_an_emptied_inventory_leaves_the_status(registry):
    registry.receive(STATUS, status(online=True))
    registry.receive(INVENTORY, inventory())
    registry.flush()
    registry.receive(INVENTORY, b"")
    device = registry.get("lab", "pi")
    assert device.online
    assert device.inventory is None


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        (STATUS, b"online"),
        (STATUS, b'{"online": true}'),
        (INVENTORY, status(online=True)),
        ("fleetmark/v1/lab/pi/data", status(online=True)),
        ("fleetmark/v1/lab/../status", status(online=True)),
    ],
)
def test_what_is_no_status_or_inventory_is_refused_and_changes_nothing(registry, topic, payload):
    registry.receive(STATUS, status(online=True))
    before = registry.list()
    with pytest.raises(ContractError):
        registry.receive(topic, payload)
    assert registry.list() == before


def test_receiving_needs_no_disk_and_what_could_not_be_written_is_kept(tmp_path):
    (tmp_path / "state.db").mkdir()  # nothing can be opened in its place
    registry = DeviceRegistry(tmp_path / "state.db")
    registry.receive(STATUS, status(online=True))
    registry.seen({("lab", "ec2")})
    with pytest.raises(StoreError):
        registry.flush()
    (tmp_path / "state.db").rmdir()
    registry.flush()
    assert [device.device for device in registry.list()] == ["ec2", "pi"]
    registry.close()


def test_looking_at_an_empty_directory_makes_no_file(tmp_path):
    registry = DeviceRegistry(tmp_path / "none" / "state.db")
    assert registry.list() == []
    assert registry.last_beat() is None
    assert not registry.collector_alive()
    assert not (tmp_path / "none").exists()


def test_a_state_file_with_other_tables_only_has_no_devices(tmp_path):
    db = sqlite3.connect(tmp_path / "state.db")
    db.execute("CREATE TABLE campaigns (id TEXT)")
    db.commit()
    db.close()
    registry = DeviceRegistry(tmp_path / "state.db")
    assert registry.list() == []
    registry.close()


def test_a_beating_collector_is_alive_until_it_stops_beating(registry, clock):
    registry.beat(clock.now_ns, {"records_written": 7})
    beat = registry.last_beat()
    assert beat == Beat(clock.now_ns, os.getpid(), {"records_written": 7})
    assert registry.collector_alive()
    clock.now_ns += int(STALE_BEAT_S * S) + 1
    assert not registry.collector_alive()


def test_a_collector_that_stopped_in_good_order_leaves_no_sign_of_life(registry, clock):
    registry.beat(clock.now_ns, {})
    registry.rest()
    assert registry.last_beat() is None
