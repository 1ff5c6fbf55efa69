"""Sensors, counters and a clock whose numbers a test chooses."""

import threading
from collections.abc import Callable

from fleetmark_agent.telemetry.base import SensorStatus, Values
from fleetmark_agent.telemetry.counters import Counters
from fleetmark_agent.telemetry.cpu import CpuTimes
from fleetmark_agent.telemetry.process import ProcessTree


class FakeClock:
    """Moves only when told to."""

    def __init__(self, now_ns: int = 10**12) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns

    def advance(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


class FakeSensor:
    """Gives what its function returns, or raises."""

    def __init__(self, read: Callable[[], Values], name: str = "fake") -> None:
        self.name = name
        self.reads = 0
        self.was_read = threading.Semaphore(0)
        self._values = read

    def probe(self) -> SensorStatus:
        return SensorStatus(True, "a test")

    def read(self) -> Values:
        self.reads += 1
        self.was_read.release()
        return self._values()


class FakeCounters:
    """Counters that a test sets between the ends of a window."""

    def __init__(self, mono_ns: Callable[[], int], wall_ns: Callable[[], int]) -> None:
        self.busy_s = self.steal_s = self.agent_cpu_s = 0.0
        self.backend_cpu_s: float | None = 0.0
        self.swapped_in_bytes: int | None = 0
        self.cores = 4
        self._mono_ns = mono_ns
        self._wall_ns = wall_ns

    def read(self, tree: ProcessTree | None) -> Counters:
        return Counters(
            mono_ns=self._mono_ns(),
            time_ns=self._wall_ns(),
            machine=CpuTimes(self.busy_s, self.steal_s, self.cores * self._mono_ns() / 1e9),
            cores=self.cores,
            swapped_in_bytes=self.swapped_in_bytes,
            agent_cpu_s=self.agent_cpu_s,
            backend_cpu_s=self.backend_cpu_s,
        )
