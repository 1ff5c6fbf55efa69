"""How hot the processor is: heat is why a small board slows down.

Read from sysfs and not through psutil, which looks for every sensor of the machine again at each
reading, some of them slow, and mixes the processor's with the disks'.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from fleetmark_agent.telemetry.base import SensorStatus, Values, first_line

FIELD = "temperature_c"

_PROCESSOR = re.compile(r"cpu|soc|core|package|pkg|k10temp|zenpower", re.IGNORECASE)
_PLAUSIBLE_C = (-60.0, 200.0)
"""Drivers report what is not connected as 0 K, -274 °C or 2^31."""


class Thermal:
    """The hottest sensor of the CPU or the system on a chip."""

    name = "thermal"

    def __init__(self, root: Path) -> None:
        """Look for `sys/class` below `root`."""
        self._class = root / "sys/class"
        self._files: tuple[Path, ...] = ()

    def probe(self) -> SensorStatus:
        """Find the processor's sensors; a virtual machine has none."""
        named = [*_zones(self._class / "thermal"), *_chips(self._class / "hwmon")]
        self._files = tuple(file for name, file in named if _PROCESSOR.search(name))
        if not list(_celsius(self._files)):
            reason = "no temperature sensor of a processor, as in virtual machines"
            return SensorStatus(False, str(self._class), reason=reason)
        names = sorted({name for name, file in named if file in self._files})
        return SensorStatus(True, f"{self._class} ({', '.join(names)})", (FIELD,))

    def read(self) -> Values:
        """Absent where no sensor gives a plausible number now."""
        hottest = max(_celsius(self._files), default=None)
        return {} if hottest is None else {FIELD: hottest}


def _zones(thermal: Path) -> Iterator[tuple[str, Path]]:
    for zone in sorted(thermal.glob("thermal_zone*")):
        yield _text(zone / "type"), zone / "temp"


def _chips(hwmon: Path) -> Iterator[tuple[str, Path]]:
    for chip in sorted(hwmon.glob("hwmon*")):
        if (chip / "device/temp").exists():
            continue  # another face of a thermal zone
        for file in sorted(chip.glob("temp*_input")):
            yield _text(chip / "name"), file


def _celsius(files: Iterable[Path]) -> Iterator[float]:
    for file in files:
        try:
            celsius = int(_text(file)) / 1000
        except ValueError:
            continue
        if _PLAUSIBLE_C[0] < celsius < _PLAUSIBLE_C[1]:
            yield celsius


def _text(file: Path) -> str:
    """Return a file's first line; nothing where it cannot be read (a zone that is off)."""
    try:
        return first_line(file.read_text("utf-8", "replace"))
    except OSError:
        return ""
