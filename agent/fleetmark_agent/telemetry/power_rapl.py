"""What an x86 processor says it has drawn: counters of energy, by RAPL of Intel and AMD."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fleetmark_agent.telemetry.base import (
    MIN_RATE_NS,
    POWER_FIELD,
    SensorStatus,
    Values,
    first_line,
)

_ZONE = re.compile(r"intel-rapl:\d+(:\d+)?")
"""Packages, and what is within one. The kernel shows the same packages once more under
`intel-rapl-mmio`."""
LET_US = (
    "let the agent's group read it until the next boot: chgrp GROUP FILE && chmod 440 FILE "
    "(docs/install.md has the lasting way, and why the kernel is reserved about it)"
)


@dataclass(frozen=True)
class _Zone:
    """A counter in microjoules that begins again at 0 after `range_uj`."""

    name: str
    energy: Path
    range_uj: int


class Rapl:
    """Mean power of packages and memory since the reading before.

    A counter that begins anew once between two readings is followed; it takes a minute at the very
    least. Whoever may not read the counters (only root may, unless the owner lets others) has none.
    """

    name = "power"

    def __init__(self, root: Path, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        """Look for `sys/class/powercap` below `root`."""
        self._powercap = root / "sys/class/powercap"
        self._clock_ns = clock_ns
        self._zones: tuple[_Zone, ...] = ()
        self._last: tuple[int, tuple[int, ...]] | None = None

    def probe(self) -> SensorStatus:
        """Find the counters that may be read."""
        source, found = str(self._powercap), _zones(self._powercap)
        if not found:
            reason = "no RAPL counters, as on ARM boards and in most virtual machines"
            return SensorStatus(False, source, reason=reason)
        try:
            for zone in found:
                _microjoules(zone.energy)
        except PermissionError:
            reason = f"not allowed to read {found[0].energy} (root may)"
            return SensorStatus(False, source, reason=reason, hint=LET_US)
        except (OSError, ValueError) as error:
            return SensorStatus(False, source, reason=f"{found[0].energy.parent}: {error}")
        self._zones = found
        names = ", ".join(zone.name for zone in found)
        return SensorStatus(True, f"{source} ({names})", (POWER_FIELD,), energy_source="rapl")

    def read(self) -> Values:
        """Absent at the first reading, and too soon after the last one that gave any.

        Raises:
            OSError, ValueError: a counter cannot be read any more.
        """
        now_ns = self._clock_ns()
        now = tuple(_microjoules(zone.energy) for zone in self._zones)
        if self._last is None:
            self._last = (now_ns, now)
            return {}
        last_ns, last = self._last
        if now_ns - last_ns < MIN_RATE_NS:
            # What was drawn meanwhile counts at the next reading.
            return {}
        self._last = (now_ns, now)
        drawn_uj = 0
        for zone, before, after in zip(self._zones, last, now, strict=True):
            grown = after - before if after >= before else after + zone.range_uj - before
            if grown < 0 or (after < before and not zone.range_uj):
                return {}
            drawn_uj += grown
        return {POWER_FIELD: drawn_uj * 1000 / (now_ns - last_ns)}


def _zones(powercap: Path) -> tuple[_Zone, ...]:
    """Return packages, and the memory that is no part of one; cores are within their package."""
    found = []
    for folder in sorted(powercap.glob("intel-rapl:*")):
        if not _ZONE.fullmatch(folder.name):
            continue
        name = _text(folder / "name")
        if name.startswith("package") or name == "dram":
            range_text = _text(folder / "max_energy_range_uj")
            range_uj = int(range_text) if range_text.isdecimal() else 0
            found.append(_Zone(name, folder / "energy_uj", range_uj))
    return tuple(found)


def _microjoules(file: Path) -> int:
    return int(first_line(file.read_text("ascii")))


def _text(file: Path) -> str:
    try:
        return first_line(file.read_text("utf-8", "replace"))
    except OSError:
        return ""
