"""How much room the agent's disk has left, and what the disks of the machine are doing."""

import time
from collections.abc import Callable
from pathlib import Path

import psutil

from fleetmark_agent.telemetry.base import SensorStatus, Value, Values
from fleetmark_agent.telemetry.rates import Rates


class Disk:
    """Free space where the agent keeps its state; bytes per second over all real disks."""

    name = "disk"

    def __init__(
        self, root: Path, state_dir: Path, clock_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """Prepare.

        Args:
            root: `sys/block` below it says which disks are real.
            state_dir: whose file system's free space counts.
            clock_ns: monotonic.
        """
        self._block = root / "sys/block"
        self._state_dir = state_dir
        self._rates = Rates(clock_ns)
        self._disks: frozenset[str] = frozenset()

    def probe(self) -> SensorStatus:
        """Find the disks; one plugged in later is not counted before the agent starts again."""
        # LVM, RAID, loop and compressed RAM sit on others, or on none: they would count twice.
        self._disks = frozenset(path.parent.name for path in self._block.glob("*/device"))
        fields = ["disk_free_bytes"]
        if self._disks and self._counters():
            fields += ["disk_read_bytes_per_s", "disk_write_bytes_per_s"]
        return SensorStatus(True, "psutil (statvfs, /proc/diskstats)", tuple(fields))

    def read(self) -> Values:
        """Rates since the reading before; absent at the first, and where there is no disk."""
        values: dict[str, Value] = {"disk_free_bytes": psutil.disk_usage(str(self._state_dir)).free}
        rates = self._rates.per_second(self._counters()) if self._disks else None
        if rates is not None:
            values["disk_read_bytes_per_s"], values["disk_write_bytes_per_s"] = rates
        return values

    def _counters(self) -> dict[str, tuple[int, ...]]:
        # Without psutil's own handling of counters that wrap: it would hide a reset from us.
        disks = psutil.disk_io_counters(perdisk=True, nowrap=False) or {}
        return {
            name: (disk.read_bytes, disk.write_bytes)
            for name, disk in disks.items()
            if name in self._disks
        }
