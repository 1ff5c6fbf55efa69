"""What a turn of `influxdb_ingest.py` brings, and what it took: the same points in every form."""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from ingest import DEVICES, RECORDS_PER_MESSAGE, messages_of, packets, sample

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from fleetmark_collector.sinks.base import Stored
from fleetmark_collector.sinks.influxdb.lines import Lines
from fleetmark_protocol import topics

FLEET = "bench"


@dataclass(frozen=True)
class Slice:
    """The points of one turn, in each form that a side takes.

    Attributes:
        first_seq: of each device; the others follow without a gap.
        seqs: how many each device has.
        records: MQTT packets of our messages.
        line_packets: MQTT packets of the same messages, finished lines in them.
        lines: the same points in the same order as lines of InfluxDB.
    """

    first_seq: int
    seqs: int
    records: bytes
    line_packets: bytes
    lines: list[bytes]


def make_slice(messages: int, first_seq: int, epoch: str) -> Slice:
    """Make the points of `messages` messages, a multiple of the number of devices."""
    made = Lines()
    lines, in_messages = [], []
    for number in range(messages):
        device = f"d{number % DEVICES}"
        start = first_seq + number // DEVICES * RECORDS_PER_MESSAGE
        part = [
            made.line(Stored(FLEET, device, epoch, seq, sample(seq)))
            for seq in range(start, start + RECORDS_PER_MESSAGE)
        ]
        lines += part
        in_messages.append((topics.topic(FLEET, device, "data"), b"\n".join(part)))
    return Slice(
        first_seq,
        messages // DEVICES * RECORDS_PER_MESSAGE,
        packets(messages_of(messages, first_seq, epoch)),
        packets(in_messages),
        lines,
    )


@dataclass(frozen=True)
class Turn:
    """What one side did with one slice.

    Attributes:
        points: that arrived.
        cpu_s: process -> CPU seconds.
        others_cpu_s: of processes that have nothing to do with it.
    """

    points: int
    took_s: float
    cpu_s: dict[str, float]
    others_cpu_s: float

    @property
    def rate(self) -> float:
        return self.points / self.took_s


class Clock:
    """Wall and CPU time of a turn."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._pids = pids
        self._start = self._now()
        self._start_s = time.perf_counter()

    def _now(self) -> tuple[dict[str, float], float]:
        spent = {}
        for name, pid in {**self._pids, "this script": os.getpid()}.items():
            process = psutil.Process(pid)
            family = [process, *(process.children(recursive=True) if pid != os.getpid() else [])]
            spent[name] = sum(sum(one.cpu_times()[:2]) for one in family)
        busy = psutil.cpu_times()
        return spent, sum(busy) - busy.idle - busy.iowait - busy.guest - busy.guest_nice

    def stop(self, points: int, took_s: float | None = None) -> Turn:
        took_s = took_s or time.perf_counter() - self._start_s
        before, busy_before = self._start
        after, busy_after = self._now()
        cpu_s = {name: after[name] - before[name] for name in after}
        return Turn(points, took_s, cpu_s, busy_after - busy_before - sum(cpu_s.values()))
