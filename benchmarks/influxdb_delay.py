"""How long after a sample was taken a query finds it: device, broker, collector, InfluxDB.

`fleetmark simulate` plays the devices (real protocol, real outboxes), a real Mosquitto carries, one
`fleetmark collect` writes, and a real influxd is asked many times a second for the newest samples
of some of the devices, drawn by lot. A sample's delay is the moment the first answer that holds it
had come, minus the sample's own `time_ns`; both clocks are this machine's. It is too long by up to
the time between two answers, which is printed. The script also listens at the broker, so that the
delay falls in two parts: until the sample came past the broker (the agent lets telemetry wait for
company, so that a message is worth sending), and from there until a query found it.

    python benchmarks/influxdb_delay.py [--devices 1000] [--rate 1] [--seconds 60]
"""

import argparse
import os
import platform
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import paho.mqtt.client as paho
import psutil
from paho.mqtt.enums import CallbackAPIVersion

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from commands import Broker, fleetmark
from fleetmark_protocol import codec, topics
from influxservers import Influxd
from servers import wait_for

DATABASE = "delay"
POLL_S = 0.05
LOOK_BACK_S = 6
"""An answer holds the samples of so many seconds; what comes later still is looked for at the end
and counted apart."""

Sample = tuple[str, int]
"""Device and seq."""


class Listener:
    """Notes when the samples of some devices come past the broker."""

    def __init__(self, port: int, fleet_devices: Iterable[tuple[str, str]]) -> None:
        self.heard_ns: dict[Sample, int] = {}
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._received
        self._client.connect("127.0.0.1", port)
        topics_wanted = [topics.topic(fleet, device, "data") for fleet, device in fleet_devices]
        self._client.subscribe([(topic, 1) for topic in topics_wanted])
        self._client.loop_start()

    def _received(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        now_ns = time.time_ns()
        device = topics.parse(message.topic).device
        for envelope in codec.decode_batch(message.payload).records:
            if envelope.record.kind == "telemetry":
                self.heard_ns.setdefault((device, envelope.seq), now_ns)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Poller:
    """Asks the server for the newest samples of some devices, again and again."""

    def __init__(self, server: Influxd, devices: list[str]) -> None:
        self._server = server
        self._one_of = " OR ".join(f"device = '{device}'" for device in devices)
        self.taken_ns: dict[Sample, int] = {}
        self.found_ns: dict[Sample, int] = {}
        self.between_s: list[float] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _work(self) -> None:
        last_s: float | None = None
        while not self._stopping.is_set():
            asked_s = time.perf_counter()
            answer = self._ask()
            now_ns, now_s = time.time_ns(), time.perf_counter()
            for device, seq, taken_ns in answer:
                self.found_ns.setdefault((device, seq), now_ns)
                self.taken_ns.setdefault((device, seq), taken_ns)
            if last_s is not None:
                self.between_s.append(now_s - last_s)
            last_s = now_s
            self._stopping.wait(max(0.0, asked_s + POLL_S - now_s))

    def late(self, missing: list[Sample], since_ns: int) -> int:
        """Return how many of these came after all, but too late for the answers above."""
        held = {(device, seq) for device, seq, _ in self._ask(since_ns)}
        return len(held.intersection(missing))

    def _ask(self, since_ns: int | None = None) -> list[tuple[str, int, int]]:
        since_ns = since_ns or time.time_ns() - LOOK_BACK_S * 10**9
        answer = self._server.query(
            f"SELECT seq FROM telemetry WHERE ({self._one_of}) AND time > {since_ns} "
            "GROUP BY device",
            DATABASE,
            epoch="ns",
        )
        return [
            (series["tags"]["device"], int(seq), int(taken_ns))
            for series in answer["results"][0].get("series", [])
            for taken_ns, seq in series["values"]
        ]


def known_devices(server: Influxd) -> list[tuple[str, str]]:
    """Return (fleet, device) of all that have a sample in the database."""
    answer = server.query("SHOW SERIES FROM telemetry", DATABASE)
    keys = [row[0] for row in answer["results"][0].get("series", [{"values": []}])[0]["values"]]
    tags = [dict(part.split("=") for part in key.split(",")[1:]) for key in keys]
    return sorted((one["fleet"], one["device"]) for one in tags)


def telemetry_count(server: Influxd) -> int:
    answer = server.query("SELECT count(seq) FROM telemetry", DATABASE)
    series = answer["results"][0].get("series")
    return int(series[0]["values"][0][1]) if series else 0


def percentiles(label: str, delays_ns: list[int]) -> str:
    p50, p90, p99, most = np.percentile(np.array(delays_ns) / 1e9, [50, 90, 99, 100])
    return f"| {label} | {p50:.2f} | {p90:.2f} | {p99:.2f} | {most:.2f} |"


class Costs:
    """CPU share and memory of each process over a time."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._families = {"this script": [psutil.Process()]} | {
            name: [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
            for name, pid in pids.items()
        }
        self._before = {name: self._cpu_s(name) for name in self._families}
        self._start_s = time.monotonic()

    def _cpu_s(self, name: str) -> float:
        return sum(sum(one.cpu_times()[:2]) for one in self._families[name])

    def table(self) -> str:
        took_s = time.monotonic() - self._start_s
        rows = ["| process | CPU, one core | RSS |", "|---|---|---|"]
        for name, family in self._families.items():
            percent = 100 * (self._cpu_s(name) - self._before[name]) / took_s
            rss = sum(one.memory_info().rss for one in family) / 2**20
            rows.append(f"| {name} | {percent:.1f} % | {rss:.0f} MiB |")
        return "\n".join(rows)


class Centre:
    """Broker, collector, server and the simulated fleet; `with` ends them all."""

    def __init__(self, stack: ExitStack, devices: int, rate: float) -> None:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.server = Influxd(directory / "influxd").start()
        stack.callback(self.server.kill)
        self.server.database(DATABASE)
        self.broker = Broker(directory, embedded=False).start()
        stack.callback(self.broker.kill)
        store = {"KIND": "influxdb", "URL": self.server.url, "BUCKET": DATABASE}
        collector = fleetmark(
            *("collect", "--broker-port", self.broker.port, "--data-dir", directory / "data"),
            log=directory / "collect.log",
            env={f"FLEETMARK_STORE__{key}": value for key, value in store.items()},
        )
        stack.callback(collector.end)
        wait_for(lambda: "broker_connected" in collector.output(), what="the collector")
        fleet = fleetmark(
            *("simulate", "--devices", devices, "--rate", rate, "--broker-port", self.broker.port),
            log=directory / "simulate.log",
        )
        stack.callback(fleet.end)
        wait_for(
            lambda: len(known_devices(self.server)) == devices,
            timeout_s=60 + devices / 10,
            what=f"all devices in the database (log: {fleet.log})",
        )
        assert self.broker.command is not None
        self.pids = {
            "simulate": fleet.pid,
            "mosquitto": self.broker.command.pid,
            "collector": collector.pid,
            "influxd": self.server.pid,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=1.0, help="samples a second and device")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--settle", type=float, default=15, help="seconds before the measurement")
    parser.add_argument("--watched", type=int, default=50, help="devices whose samples are timed")
    options = parser.parse_args()
    load1 = os.getloadavg()[0]
    with ExitStack() as stack:
        centre = Centre(stack, options.devices, options.rate)
        time.sleep(options.settle)
        watched = random.Random(0).sample(known_devices(centre.server), options.watched)
        listener = Listener(centre.broker.port, watched)
        poller = Poller(centre.server, [device for _, device in watched])
        poller.start()
        try:
            time.sleep(LOOK_BACK_S)
            count, start_ns = telemetry_count(centre.server), time.time_ns()
            costs = Costs(centre.pids)
            time.sleep(options.seconds)
            table, end_ns = costs.table(), time.time_ns()
            count = telemetry_count(centre.server) - count
            time.sleep(LOOK_BACK_S)
        finally:
            poller.stop()
            listener.close()
        heard = {one: at for one, at in listener.heard_ns.items() if start_ns <= at < end_ns}
        found = [one for one in heard if one in poller.found_ns]
        missing = [one for one in heard if one not in poller.found_ns]
        late = poller.late(missing, start_ns - 60 * 10**9)
    taken, seen = poller.taken_ns, poller.found_ns
    print("\n| seconds | p50 | p90 | p99 | longest |\n|---|---|---|---|---|")
    print(percentiles("sample to queryable", [seen[one] - taken[one] for one in found]))
    print(percentiles("of it: sample to broker", [heard[one] - taken[one] for one in found]))
    print(percentiles("of it: broker to queryable", [seen[one] - heard[one] for one in found]))
    median, p99, most = np.percentile(poller.between_s, [50, 99, 100])
    print(
        f"\n{table}\n\n{len(found):,} samples of {len(watched)} of {options.devices} devices; "
        f"later than {LOOK_BACK_S} s: {late}; never: {len(missing) - late}; "
        f"{count / (end_ns - start_ns) * 1e9:.0f} points/s were written; between two answers "
        f"{median:.3f} s (median), {p99:.3f} s (p99), at most {most:.3f} s; {platform.machine()}, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}; "
        f"load before the run {load1:.1f}"
    )


if __name__ == "__main__":
    main()
