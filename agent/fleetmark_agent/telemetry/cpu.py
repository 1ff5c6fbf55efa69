"""How busy the machine's processors are, and how much of them a hypervisor takes."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import psutil

from fleetmark_agent.telemetry.base import MIN_RATE_NS, SensorStatus, Value, Values


class CpuTimes(NamedTuple):
    """Cumulative seconds since boot, of one core or of all together.

    `busy_s` counts neither waiting for I/O nor what the hypervisor stole; `total_s` counts both.
    """

    busy_s: float
    steal_s: float
    total_s: float


class CpuShare(NamedTuple):
    """Percent (0 to 100) between two readings."""

    busy: float
    steal: float


def core_times() -> list[CpuTimes]:
    """Read the times of every core."""
    return [_times(core) for core in psutil.cpu_times(percpu=True)]


def together(cores: Sequence[CpuTimes]) -> CpuTimes:
    """Return the times of the whole machine."""
    return CpuTimes(*(sum(column) for column in zip(*cores, strict=True)))


def share(before: CpuTimes, now: CpuTimes, cores: int = 1) -> CpuShare | None:
    """Return the share between two readings.

    None where they are too close for the kernel's ticks, or a counter went backwards.
    """
    total_s = now.total_s - before.total_s
    busy_s = now.busy_s - before.busy_s
    steal_s = now.steal_s - before.steal_s
    # Counters are floats of ticks: their differences carry rounding.
    if total_s / max(1, cores) < MIN_RATE_NS / 1e9 - 1e-6 or min(busy_s, steal_s) < -1e-6:
        return None
    return CpuShare(_percent(busy_s, total_s), _percent(steal_s, total_s))


class Cpu:
    """Machine CPU in total and per core, steal, load averages."""

    name = "cpu"

    def __init__(self, read_cores: Callable[[], list[CpuTimes]] = core_times) -> None:
        self._read_cores = read_cores
        self._last: list[CpuTimes] | None = None

    def probe(self) -> SensorStatus:
        """Available wherever Linux runs."""
        fields = ("cpu_percent", "cpu_percent_per_core", "cpu_steal_percent", "load_1m", "load_5m")
        return SensorStatus(True, "psutil (/proc/stat, /proc/loadavg)", fields)

    def read(self) -> Values:
        """Shares since the reading before; absent at the first."""
        now = self._read_cores()
        before, self._last = self._last, now
        load_1m, load_5m, _ = psutil.getloadavg()
        values: dict[str, Value] = {"load_1m": load_1m, "load_5m": load_5m}
        if before is None or len(before) != len(now):
            return values
        machine = share(together(before), together(now), len(now))
        if machine is not None:
            values["cpu_percent"] = machine.busy
            values["cpu_steal_percent"] = machine.steal
        cores = [share(*pair) for pair in zip(before, now, strict=True)]
        known = tuple(core.busy for core in cores if core is not None)
        if len(known) == len(cores):
            values["cpu_percent_per_core"] = known
        return values


def _times(raw: Any) -> CpuTimes:
    # `user` and `nice` already hold the time of guests.
    busy_s = raw.user + raw.nice + raw.system + raw.irq + raw.softirq
    return CpuTimes(busy_s, raw.steal, busy_s + raw.steal + raw.idle + raw.iowait)


def _percent(part: float, whole: float) -> float:
    return round(min(100.0, max(0.0, 100.0 * part / whole)), 3)
