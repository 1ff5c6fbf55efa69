"""Counters that only grow, read at both ends of a window: their difference is exact."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fleetmark_agent.telemetry.base import MIN_RATE_NS
from fleetmark_agent.telemetry.cpu import CpuTimes, core_times, share, together
from fleetmark_agent.telemetry.memory import swapped_in_bytes
from fleetmark_agent.telemetry.process import ProcessTree


@dataclass(frozen=True)
class Counters:
    """One reading of them all; None where there is none.

    Attributes:
        mono_ns: monotonic clock.
        time_ns: wall clock, since the Unix epoch.
        machine: CPU times of all cores together.
        cores: how many those are.
        swapped_in_bytes: since boot.
        agent_cpu_s: of this process.
        backend_cpu_s: of the backend's process tree; None where it has ended.
    """

    mono_ns: int
    time_ns: int
    machine: CpuTimes
    cores: int
    swapped_in_bytes: int | None
    agent_cpu_s: float
    backend_cpu_s: float | None


ReadCounters = Callable[[ProcessTree | None], Counters]


class CounterReader:
    """Reads the counters of this machine."""

    def __init__(
        self,
        root: Path = Path("/"),
        mono_ns: Callable[[], int] = time.monotonic_ns,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Look for `proc/vmstat` below `root`."""
        self._vmstat = root / "proc/vmstat"
        self._mono_ns = mono_ns
        self._wall_ns = wall_ns

    def read(self, tree: ProcessTree | None) -> Counters:
        """Read them, `tree` included."""
        backend_cpu_s = None if tree is None else tree.cpu_s()
        cores = core_times()
        swapped = swapped_in_bytes(self._vmstat)
        agent_cpu_s = time.process_time()
        mono_ns, time_ns = self._mono_ns(), self._wall_ns()
        return Counters(
            mono_ns, time_ns, together(cores), len(cores), swapped, agent_cpu_s, backend_cpu_s
        )


def between(opened: Counters, closed: Counters) -> dict[str, float | int]:
    """Return what the difference of two readings says, under the names of a trial record.

    Absent where a counter went backwards, is not there, or the readings are too close for a rate.
    """
    fields: dict[str, float | int] = {}
    machine = share(opened.machine, closed.machine, closed.cores)
    if machine is not None and opened.cores == closed.cores:
        fields["cpu_percent_mean"] = machine.busy
        fields["cpu_steal_percent_mean"] = machine.steal
    swapped = (opened.swapped_in_bytes, closed.swapped_in_bytes)
    if swapped[0] is not None and swapped[1] is not None and swapped[1] >= swapped[0]:
        fields["swap_in_bytes"] = swapped[1] - swapped[0]
    elapsed_ns = closed.mono_ns - opened.mono_ns
    if elapsed_ns >= MIN_RATE_NS:
        agent_s = closed.agent_cpu_s - opened.agent_cpu_s
        fields["agent_cpu_percent"] = round(100 * agent_s / (elapsed_ns / 1e9), 3)
        if opened.backend_cpu_s is not None and closed.backend_cpu_s is not None:
            backend_s = closed.backend_cpu_s - opened.backend_cpu_s
            fields["backend_cpu_percent_mean"] = round(100 * backend_s / (elapsed_ns / 1e9), 3)
    return fields
