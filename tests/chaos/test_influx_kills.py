"""InfluxDB or the collector killed in mid-stream: every record is in the database exactly once."""

import random
import signal
import threading
import time

import pytest

from collected import telemetry, trial
from commands import Command, fleetmark
from influxservers import Database, Influxd, Nginx
from servers import wait_for
from wiredevice import Device

pytestmark = pytest.mark.chaos

RECORDS = 20_000


class Centre:
    """Broker, InfluxDB and `fleetmark collect`, each to be killed and started again."""

    def __init__(self, tmp_path, mosquitto, influxd: Influxd, database: Database) -> None:
        self.influxd = influxd
        self.database = database
        self._log = tmp_path / "collect.log"
        self._config = tmp_path / "collector.toml"
        self._config.write_text(
            f'data_dir = "{tmp_path / "data"}"\n'
            "[broker]\n"
            f"port = {mosquitto.port}\n"
            "[store]\n"
            'kind = "influxdb"\n'
            f'url = "{database.url}"\n'
            f'bucket = "{database.name}"\n'
            "timeout_s = 3\n"
            "[ingest]\n"
            "batch_records = 500\n",
            "utf-8",
        )
        self.command: Command | None = None

    def start(self) -> None:
        self.command = fleetmark("collect", "--config", self._config, log=self._log)

    def says(self, event: str) -> bool:
        return f'"{event}"' in self._log.read_text("utf-8") if self._log.exists() else False

    def stored(self) -> dict[str, list[int]]:
        """Return kind -> the `seq` of every point, in order of time."""
        return {
            kind: [row["seq"] for row in self.database.rows(f"SELECT seq FROM {kind}")]
            for kind in ("telemetry", "trial")
        }

    def close(self) -> None:
        if self.command is not None:
            self.command.kill()
            assert "Traceback" not in self.command.output()


@pytest.fixture(params=["direct", "v2"])
def centre(request, tmp_path, mosquitto):
    influxd = Influxd(tmp_path / "influxd").start()
    front = Nginx(tmp_path / "nginx", influxd).start() if request.param == "v2" else None
    database = (front or influxd).database()
    centre = Centre(tmp_path, mosquitto, influxd, database)
    yield centre
    centre.close()
    influxd.kill()
    if front is not None:
        front.kill()


@pytest.fixture
def device(mosquitto):
    device = Device(mosquitto.port)
    yield device
    device.close()


def records(count: int = RECORDS) -> dict:
    """Return seq -> record: mostly telemetry, a trial in ten; each at a time of its own."""
    return {
        seq: trial(seq, f"c.pi.1.w.{seq}.0") if seq % 10 == 0 else telemetry(seq)
        for seq in range(1, count + 1)
    }


class Sending:
    """A device that sends until all of its records are acknowledged."""

    def __init__(self, device: Device, everything: dict) -> None:
        self._device, self._everything = device, everything
        self._thread = threading.Thread(target=device.send_all, args=(everything, 120, 50))
        self._thread.start()

    def wait_for_more(self, than: int) -> None:
        wait_for(
            lambda: len(self._device.acked) > than or not self._thread.is_alive(),
            60,
            f"more than {than} acks",
        )

    def under_way(self) -> bool:
        return len(self._device.acked) < len(self._everything)

    def wait_for_end(self, centre: Centre) -> None:
        self._thread.join(140)
        assert self._device.acked == set(self._everything), centre.command.output()[-3000:]


def assert_each_once(centre: Centre, everything: dict) -> None:
    stored = centre.stored()
    assert stored["trial"] == [seq for seq in everything if seq % 10 == 0]
    assert stored["telemetry"] == [seq for seq in everything if seq % 10]


def test_influxdb_killed_again_and_again_loses_and_repeats_nothing(centre, device):
    centre.start()
    everything = records()
    sending = Sending(device, everything)
    rng = random.Random(7)
    in_mid_stream = 0
    for _ in range(4):
        sending.wait_for_more(than=len(device.acked))
        centre.influxd.kill()
        acked = set(device.acked)
        in_mid_stream += sending.under_way()
        time.sleep(rng.uniform(0, 1.5))
        centre.influxd.start()
        # Whatever was acknowledged had been said yes to, and outlived the kill.
        stored = centre.stored()
        assert acked <= {*stored["telemetry"], *stored["trial"]}
    sending.wait_for_end(centre)
    assert in_mid_stream >= 2
    assert_each_once(centre, everything)
    assert centre.command.process.poll() is None, "the collector went on through all of it"
    assert centre.says("store_unavailable")
    assert centre.says("store_available_again")


def test_a_collector_killed_again_and_again_loses_and_repeats_nothing(centre, device):
    everything = records()
    sending = Sending(device, everything)
    rng = random.Random(5)
    in_mid_stream = 0
    for _ in range(4):
        centre.start()
        sending.wait_for_more(than=len(device.acked))
        time.sleep(rng.uniform(0, 0.05))
        centre.command.kill()
        in_mid_stream += sending.under_way()
        stored = centre.stored()
        assert device.acked <= {*stored["telemetry"], *stored["trial"]}
    centre.start()
    sending.wait_for_end(centre)
    assert in_mid_stream >= 2
    assert_each_once(centre, everything)


def test_a_server_that_hangs_and_comes_back_costs_nothing(centre, device):
    centre.start()
    everything = records()
    sending = Sending(device, everything)
    sending.wait_for_more(than=0)
    centre.influxd.signal(signal.SIGSTOP)
    try:
        time.sleep(4)
    finally:
        centre.influxd.signal(signal.SIGCONT)
    sending.wait_for_end(centre)
    assert_each_once(centre, everything)


def test_a_collector_started_before_its_database_server_waits_for_it(centre, device):
    centre.influxd.kill()
    centre.start()
    everything = records(300)
    sending = Sending(device, everything)
    wait_for(lambda: centre.says("store_unavailable"), 30, "the complaint")
    assert device.acked == set()
    centre.influxd.start()
    sending.wait_for_end(centre)
    assert_each_once(centre, everything)


def test_a_database_that_is_dropped_stops_the_collector_and_the_device_keeps_its_records(
    centre, device
):
    centre.start()
    device.send_all(records(100))
    centre.database.drop()
    device.publish_all(records(200))
    assert centre.command.process.wait(30) == 2
    assert "store.bucket" in centre.command.output()
    assert device.acked == set(records(100))
    centre.influxd.database(centre.database.name)
    centre.start()
    device.send_all(records(200))
    assert centre.stored()["trial"] == list(range(110, 201, 10))
