"""At which frequency the processors run: its drop is how throttling shows.

Read from sysfs and not through psutil, which offers what a virtual machine calls its frequency (a
constant) as if it had been observed.
"""

from collections.abc import Callable
from pathlib import Path

from fleetmark_agent.telemetry.base import SensorStatus, Values, first_line

FIELD = "cpu_freq_hz"


class Frequency:
    """Mean over the cores, of what the kernel's frequency driver says.

    On a Raspberry Pi that is what the kernel asked for; the firmware may run slower when it
    throttles, and then its throttling bits say so.
    """

    name = "frequency"

    def __init__(self, root: Path) -> None:
        """Look for `sys` and `proc` below `root`."""
        self._cpu = root / "sys/devices/system/cpu"
        self._cpuinfo = root / "proc/cpuinfo"
        self._read: Callable[[], float | None] = lambda: None

    def probe(self) -> SensorStatus:
        """Prefer cpufreq; else counters of the processor itself; else there is nothing."""
        policies = _policies(self._cpu)
        if policies:
            self._read = lambda: _mean_hz(policies)
            return SensorStatus(True, f"{self._cpu}/cpufreq (scaling_cur_freq)", (FIELD,))
        if _observes_frequency(self._cpuinfo):
            self._read = lambda: _cpuinfo_hz(self._cpuinfo)
            return SensorStatus(True, f"{self._cpuinfo} (APERF/MPERF)", (FIELD,))
        reason = "neither a cpufreq driver nor frequency counters, as in most virtual machines"
        return SensorStatus(False, "sysfs", reason=reason)

    def read(self) -> Values:
        """Absent where no core says."""
        hz = self._read()
        return {} if hz is None else {FIELD: hz}


def _policies(cpu: Path) -> list[tuple[Path, int]]:
    """Return the file of each frequency domain and how many cores follow it."""
    found = []
    for folder in sorted(cpu.glob("cpufreq/policy*")) or sorted(cpu.glob("cpu[0-9]*/cpufreq")):
        file = folder / "scaling_cur_freq"
        if _khz(file):
            try:
                cores = len((folder / "affected_cpus").read_text("ascii").split())
            except OSError:
                cores = 1
            found.append((file, max(1, cores)))
    return found


def _mean_hz(policies: list[tuple[Path, int]]) -> float | None:
    seen = [(khz, cores) for file, cores in policies if (khz := _khz(file))]
    if not seen:
        return None
    return 1000.0 * sum(khz * cores for khz, cores in seen) / sum(cores for _, cores in seen)


def _khz(file: Path) -> int:
    """Return what a frequency file says; 0 where it is unknown or its core is off line."""
    try:
        return int(first_line(file.read_text("ascii")))
    except (OSError, ValueError):
        return 0


def _observes_frequency(cpuinfo: Path) -> bool:
    """Whether the "cpu MHz" of an x86 kernel is measured; without these counters it is nominal."""
    try:
        text = cpuinfo.read_text("utf-8", "replace")
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return "aperfmperf" in flags.split()


def _cpuinfo_hz(cpuinfo: Path) -> float | None:
    lines = cpuinfo.read_text("utf-8", "replace").splitlines()
    mhz = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    seen = [one for one in mhz if one > 0]
    return 1e6 * sum(seen) / len(seen) if seen else None
