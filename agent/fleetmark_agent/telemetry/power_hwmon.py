"""What a power meter on the supply line says: chips like the INA219, and a server's own meter."""

import re
from collections.abc import Iterator
from pathlib import Path

from fleetmark_agent.telemetry.base import POWER_FIELD, SensorStatus, Values, first_line

_METER = re.compile(r"ina(\d{3}|2xx)|isl28022|sy24655|power_meter")
"""Drivers of meters that somebody put into a supply line, and the meter of ACPI; a processor's or
graphics card's own figure is something else."""
_QUANTITIES = ("average", "input")
"""The chip's own mean over its interval first, where it has one."""
_MICROWATTS = 1_000_000


class Meter:
    """The power that a meter shows at the moment."""

    name = "power"

    def __init__(self, root: Path) -> None:
        """Look for `sys/class/hwmon` below `root`."""
        self._hwmon = root / "sys/class/hwmon"
        self._file: Path | None = None

    def probe(self) -> SensorStatus:
        """Find the one meter; of several nobody here knows which one measures all."""
        found = list(_meters(self._hwmon))
        source = str(self._hwmon)
        if not found:
            return SensorStatus(False, source, reason="no power meter")
        if len(found) > 1:
            names = ", ".join(name for name, _ in found)
            reason = f"{len(found)} power meters ({names}): which one measures the whole machine?"
            return SensorStatus(False, source, reason=reason)
        name, file = found[0]
        try:
            _watts(file)
        except (OSError, ValueError) as error:
            return SensorStatus(False, str(file), reason=f"cannot be read: {error}")
        self._file = file
        return SensorStatus(True, f"{file} ({name})", (POWER_FIELD,), energy_source="meter")

    def read(self) -> Values:
        """What the meter shows.

        Raises:
            OSError, ValueError: it cannot be read any more.
        """
        if self._file is None:
            return {}
        watts = _watts(self._file)
        # Below zero where nothing is drawn and the chip is a little off, or is wired the other way.
        return {POWER_FIELD: watts} if watts >= 0 else {}


def _meters(hwmon: Path) -> Iterator[tuple[str, Path]]:
    """Yield each channel of each meter once."""
    for chip in sorted(hwmon.glob("hwmon*")):
        try:
            name = first_line((chip / "name").read_text("utf-8", "replace"))
        except OSError:
            continue
        if not _METER.fullmatch(name):
            continue
        channels = {file.name.partition("_")[0] for file in chip.glob("power[0-9]*_*")}
        for channel in sorted(channels):
            files = (chip / f"{channel}_{quantity}" for quantity in _QUANTITIES)
            there = next((file for file in files if file.exists()), None)
            if there is not None:
                yield name, there


def _watts(file: Path) -> float:
    return int(first_line(file.read_text("ascii"))) / _MICROWATTS
