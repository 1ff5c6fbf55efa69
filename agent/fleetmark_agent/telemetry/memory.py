"""How much memory the machine has left, and whether it reads pages back from swap."""

import os
from pathlib import Path

import psutil

from fleetmark_agent.telemetry.base import SensorStatus, Value, Values


def swapped_in_bytes(vmstat: Path) -> int | None:
    """Return what was ever read back from swap since boot; None where the kernel does not say.

    Not through psutil, which takes every page for 4 KiB: a Raspberry Pi 5 has pages of 16 KiB.
    """
    try:
        lines = vmstat.read_bytes()
    except OSError:
        return None
    _, found, rest = lines.partition(b"\npswpin ")
    return int(rest.partition(b"\n")[0]) * os.sysconf("SC_PAGESIZE") if found else None


class Memory:
    """RAM and swap of the machine."""

    name = "memory"

    def __init__(self, root: Path) -> None:
        """Look for `proc/vmstat` below `root`; the rest is psutil's."""
        self._vmstat = root / "proc/vmstat"
        self._swapped_in: int | None = None

    def probe(self) -> SensorStatus:
        """Available wherever Linux runs; swap only where there is any."""
        fields = ["mem_total_bytes", "mem_available_bytes", "mem_used_percent"]
        if psutil.swap_memory().total:
            fields.append("swap_used_bytes")
        if swapped_in_bytes(self._vmstat) is not None:
            fields.append("swap_in_bytes")
        return SensorStatus(True, "psutil (/proc/meminfo), /proc/vmstat", tuple(fields))

    def read(self) -> Values:
        """`swap_in_bytes` is since the reading before: absent at the first."""
        memory = psutil.virtual_memory()
        values: dict[str, Value] = {
            "mem_total_bytes": memory.total,
            "mem_available_bytes": memory.available,
            "mem_used_percent": round(100.0 * (1 - memory.available / memory.total), 3),
        }
        swap = psutil.swap_memory()
        if swap.total:
            values["swap_used_bytes"] = swap.used
        before, self._swapped_in = self._swapped_in, swapped_in_bytes(self._vmstat)
        if before is not None and self._swapped_in is not None and self._swapped_in >= before:
            values["swap_in_bytes"] = self._swapped_in - before
        return values
