"""From a device's messages to durable records and acknowledgements, through both real brokers."""

import json
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from collected import BOOT, data, job, telemetry, trial
from commands import Broker, Command, fleetmark
from fleetmark_collector.devices import DeviceRegistry
from fleetmark_collector.sinks.sqlite import SqliteReader
from fleetmark_protocol import codec
from fleetmark_protocol.errors import StoreUnavailable
from fleetmark_protocol.messages import Hardware, Inventory, Status
from servers import wait_for
from wiredevice import Device

pytestmark = pytest.mark.integration


@pytest.fixture(params=[False, True], ids=["mosquitto", "amqtt"])
def broker(tmp_path, request):
    directory = tmp_path / "broker"
    directory.mkdir()
    broker = Broker(directory, embedded=request.param)
    yield broker
    broker.kill()


class Collector:
    """`fleetmark collect` on a data directory, started as often as need be."""

    def __init__(self, data_dir, port: int) -> None:
        self.data_dir, self.port = data_dir, port
        self.command: Command | None = None

    def start(self) -> "Collector":
        self.command = fleetmark(
            *("collect", "--broker-port", self.port, "--data-dir", self.data_dir),
            log=self.data_dir.parent / "collect.log",
        )
        return self

    def says(self, event: str) -> int:
        return self.command.output().count(f'"{event}"') if self.command else 0

    def counts(self) -> dict[str, int]:
        reader = SqliteReader(self.data_dir / "store.db")
        try:
            return reader.counts()
        except StoreUnavailable:
            return {}
        finally:
            reader.close()


@pytest.fixture
def collector(tmp_path, broker):
    collector = Collector(tmp_path / "data", broker.port)
    yield collector
    if collector.command is not None:
        collector.command.kill()
        assert "Traceback" not in collector.command.output()


@pytest.fixture
def device(broker):
    device = Device(broker.port)
    yield device
    device.close()


def records(count: int) -> dict:
    """Return seq -> record: mostly telemetry, a trial in ten."""
    return {
        seq: trial(seq, f"c.pi.1.w.{seq}.0") if seq % 10 == 0 else telemetry(seq)
        for seq in range(1, count + 1)
    }


def test_what_is_acknowledged_is_in_the_store(broker, collector, device):
    broker.start()
    collector.start()
    device.send_all(records(1000))
    assert collector.counts() == {"telemetry": 900, "trial": 100, "load": 0, "job": 0, "event": 0}


def test_the_collector_waits_for_a_broker_that_starts_later_and_says_so_once(
    broker, collector, device
):
    collector.start()
    wait_for(lambda: collector.says("broker_unreachable"), what="the complaint")
    time.sleep(2.5)  # two more attempts
    broker.start()
    device.send_all(records(20))
    assert collector.says("broker_unreachable") == 1
    assert "fleetmark broker" in collector.command.output()


def test_a_broker_that_dies_in_the_middle_costs_nothing(broker, collector, device):
    broker.start()
    collector.start()
    everything = records(3000)
    sender = threading.Thread(target=device.send_all, args=(everything, 120))
    sender.start()
    wait_for(lambda: len(device.acked) > 100, what="the first acks")
    broker.kill()
    time.sleep(0.5)
    broker.start()
    sender.join()
    assert device.acked == set(everything)
    assert sum(collector.counts().values()) == 3000


def test_a_collector_that_is_killed_again_and_again_loses_and_repeats_nothing(
    broker, collector, device
):
    broker.start()
    everything = records(4000)
    sender = threading.Thread(target=device.send_all, args=(everything, 120, 20))
    sender.start()
    rng = random.Random(5)
    acked_before = 0
    for _ in range(4):
        collector.start()
        wait_for(
            lambda: len(device.acked) > acked_before or not sender.is_alive(),  # noqa: B023
            40,
            what="acks from this one",
        )
        time.sleep(rng.uniform(0, 0.2))
        collector.command.kill()
        # Whatever was acknowledged was durable before.
        assert sum(collector.counts().values()) >= len(device.acked)
        acked_before = len(device.acked)
    collector.start()
    sender.join()
    assert device.acked == set(everything)
    assert sum(collector.counts().values()) == 4000
    reader = SqliteReader(collector.data_dir / "store.db")
    assert reader.trial_counts("c") == {"c.pi.1": 400}
    assert len({item.seq for item in reader.trials("c")}) == 400
    reader.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_collector_has_acknowledged_all_it_wrote(broker, collector, device, number):
    broker.start()
    collector.start()
    wait_for(lambda: collector.says("broker_connected"), what="the collector's connection")
    for start in range(1, 1001, 10):
        payload = data(*((seq, telemetry(seq)) for seq in range(start, start + 10)))
        device.publish(payload)
    wait_for(lambda: len(device.acked) > 0, what="the first ack")
    assert collector.command.end(number) == 0
    stored = sum(collector.counts().values())
    wait_for(lambda: len(device.acked) == stored, what="the last acks")
    registry = DeviceRegistry(collector.data_dir / "state.db")
    assert registry.last_beat() is None
    registry.close()


def test_poison_is_buried_and_what_follows_is_stored(broker, collector, device):
    broker.start()
    collector.start()
    wait_for(lambda: collector.says("broker_connected"), what="the collector's connection")
    device.say("data", b"\x00\xffnot json")
    device.say("status", b'{"online": "perhaps"}', retain=True)
    broken = data((1, telemetry()), (2, telemetry())).replace(b"12.5", b"-1", 1)
    device.say("data", broken)
    device.say("data", data((3, job())))
    wait_for(lambda: device.acked == {1, 2, 3}, what="the acks")
    assert sum(collector.counts().values()) == 2
    letters = (collector.data_dir / "dead_letters.jsonl").read_text().splitlines()
    assert [json.loads(line)["topic"].split("/")[-1] for line in letters].count("data") == 2
    assert len(letters) == 3


def _run(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from fleetmark_collector.cli.main import main; main()"]
        + [str(arg) for arg in args],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_devices_and_doctor_tell_what_there_is(broker, collector, device):
    flags = ("--data-dir", collector.data_dir)
    broker.start()
    birth = Status(online=True, boot_id=BOOT, agent_version="0.1.0", started_ns=1)
    inventory = Inventory(
        boot_id=BOOT,
        time_ns=1,
        agent_version="0.1.0",
        python_version="3.11.2",
        tags=("arm", "kitchen"),
        hardware=Hardware(
            arch="aarch64",
            os="Debian 12",
            kernel="6.6",
            hostname="pi",
            board="Raspberry Pi 5 [8GB]",
            cores_logical=4,
            mem_total_bytes=8 * 2**30,
        ),
        backends=({"name": "xllamacpp", "available": True}, {"name": "other", "available": False}),
    )
    device.say("status", codec.encode(birth), retain=True)
    device.say("inventory", codec.encode(inventory), retain=True)
    nothing = _run("devices", *flags)
    assert nothing.returncode == 1
    assert "no data yet" in nothing.stderr
    assert _run("doctor", *flags).returncode == 1

    collector.start()
    device.send_all({1: telemetry(1, cpu_percent=42.0, mem_used_percent=17.0)})
    registry = DeviceRegistry(collector.data_dir / "state.db")
    wait_for(lambda: registry.get("lab", "pi") and registry.get("lab", "pi").inventory)
    registry.close()
    table = _run("devices", *flags)
    assert table.returncode == 0, table.stderr
    (known,) = json.loads(_run("devices", "--json", *flags).stdout)
    assert known["online"] is True
    assert known["tags"] == ["arm", "kitchen"]
    assert known["hardware"]["board"] == "Raspberry Pi 5 [8GB]"
    assert known["telemetry"]["cpu_percent"] == 42.0
    for shown in ("pi", "lab", "yes", "kitchen", "[8GB]", "xllamacpp", "42%", "17%", "4, 8.0 GiB"):
        assert shown in " ".join(table.stdout.split()), table.stdout
    assert "other" not in table.stdout

    config = collector.data_dir.parent / "collector.toml"
    config.write_text(f'data_dir = "{collector.data_dir}"\n[broker]\nport = {broker.port}\n')
    healthy = _run("doctor", "--config", config, "--json")
    found = {one["name"]: one for one in json.loads(healthy.stdout)}
    assert healthy.returncode == 0, healthy.stdout
    assert found["collector"]["level"] == "ok"
    assert "telemetry 1" in found["store"]["text"]
    assert found["devices"]["text"] == "1 known, 1 online"

    collector.command.kill()
    dead = _run("doctor", "--config", config)
    assert "collector" in dead.stdout
    broker.kill()
    away = _run("doctor", "--config", config)
    assert away.returncode == 1
    assert "fleetmark broker" in away.stdout


def test_a_store_of_a_newer_version_is_said_plainly(broker, collector, tmp_path):
    collector.data_dir.mkdir()
    db = sqlite3.connect(collector.data_dir / "store.db")
    db.execute("PRAGMA user_version = 99")
    db.close()
    refused = _run("collect", "--broker-port", broker.port, "--data-dir", collector.data_dir)
    assert refused.returncode == 1
    assert "newer fleetmark" in refused.stderr
    assert "Traceback" not in refused.stderr
