"""Whether the machine is being slowed down: by heat, by its firmware, or by a weak power supply.

Three sources, the one that says most first:

- A Raspberry Pi's firmware: bits for what is so now and what was so lately. The kernel asks it
  every two seconds and shows the last answer, so what came up in the last two seconds of a trial
  may be seen only after it.
- The Raspberry Pi's voltage alarm, which is all that kernels without the firmware's file have.
- An x86 processor's counts of how often it slowed itself down; a virtual machine has none.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

from fleetmark_agent.telemetry.base import SensorStatus, Values, first_line

FIELD = "throttled"
BITS_FIELD = "throttled_bits"

NOW = 0x0000_000F
"""Bits of what is so now: under-voltage, frequency capped, throttled, soft temperature limit.
The others tell of the past, until the kernel or somebody else has asked for them."""

_FIRMWARE = (
    "bus/platform/drivers/raspberrypi-firmware/*/get_throttled",
    "devices/platform/soc*/*firmware/get_throttled",
)
"""By the driver, whatever the device is called (`soc:firmware`, or with an address on newer device
trees); then as the kernels of the Raspberry Pi 3 and 4 name it."""


class Throttle:
    """0 or 1, and on a Raspberry Pi the firmware's bits."""

    name = "throttle"

    def __init__(self, root: Path) -> None:
        """Look for `sys` below `root`."""
        self._sys = root / "sys"
        self._read: Callable[[], Values] = dict

    def probe(self) -> SensorStatus:
        """Find the best source; its files are looked for here alone."""
        for file in (file for pattern in _FIRMWARE for file in sorted(self._sys.glob(pattern))):
            if _hexadecimal(file) is not None:
                self._read = partial(_of_firmware, file)
                return SensorStatus(True, f"{file} (firmware)", (FIELD, BITS_FIELD))
        for file in _voltage_alarms(self._sys / "class/hwmon"):
            self._read = partial(_of_alarm, file)
            return SensorStatus(True, f"{file} (under-voltage alone)", (FIELD,))
        counts = _Counts(_count_files(self._sys / "devices/system/cpu"))
        if counts.files:
            self._read = counts.read
            where = f"{self._sys}/devices/system/cpu/cpu*/thermal_throttle"
            return SensorStatus(True, f"{where} ({len(counts.files)} counts)", (FIELD,))
        reason = "neither a Raspberry Pi's firmware nor an x86 processor's counts of throttling"
        return SensorStatus(False, "sysfs", reason=f"{reason}, as in virtual machines")

    def read(self) -> Values:
        """Absent where the source does not answer; of counts, at the first reading."""
        return self._read()


class _Counts:
    """Counts that grow when a core or a package was throttled."""

    def __init__(self, files: Iterable[Path]) -> None:
        self.files = tuple(files)
        self._last: dict[Path, int] = {}

    def read(self) -> Values:
        # Only what was there both times: a core that came back on line counts from 0 again.
        now = {file: count for file in self.files if (count := _number(file, 10)) is not None}
        last, self._last = self._last, now
        both = now.keys() & last.keys()
        return {FIELD: int(any(now[file] > last[file] for file in both))} if both else {}


def first_change(bits: Sequence[int]) -> tuple[int, int] | None:
    """Return the first change among the firmware's bits that says throttling began or ended.

    A bit that came up, of now or of the past, says that it began; a bit of now that went away, that
    it ended. A bit of the past that went away only says that it was asked for.

    Returns:
        The bits before and after it; where there is none, the last ones twice; None for no bits.
    """
    for before, after in pairwise(bits):
        if after & ~before or before & ~after & NOW:
            return before, after
    return (bits[-1], bits[-1]) if bits else None


def _of_firmware(file: Path) -> Values:
    bits = _hexadecimal(file)
    return {} if bits is None else {FIELD: int(bits & NOW != 0), BITS_FIELD: bits}


def _of_alarm(file: Path) -> Values:
    alarm = _number(file, 10)
    return {} if alarm is None else {FIELD: int(alarm != 0)}


def _voltage_alarms(hwmon: Path) -> Iterator[Path]:
    for chip in sorted(hwmon.glob("hwmon*")):
        file = chip / "in0_lcrit_alarm"
        if _text(chip / "name") == "rpi_volt" and _number(file, 10) is not None:
            yield file


def _count_files(cpu: Path) -> Iterator[Path]:
    """Yield one count for each core and each package: their other threads say the same."""
    seen: set[tuple[str, ...]] = set()
    for folder in sorted(cpu.glob("cpu[0-9]*/thermal_throttle")):
        package = _text(folder.parent / "topology/physical_package_id")
        core = _text(folder.parent / "topology/core_id") or folder.parent.name
        for name, place in (("core", ("core", package, core)), ("package", ("package", package))):
            file = folder / f"{name}_throttle_count"
            if place not in seen and _number(file, 10) is not None:
                seen.add(place)
                yield file


def _hexadecimal(file: Path) -> int | None:
    return _number(file, 16)


def _number(file: Path, base: int) -> int | None:
    try:
        number = int(_text(file), base)
    except ValueError:
        return None
    return number if 0 <= number < 2**63 else None


def _text(file: Path) -> str:
    """Return a file's first line; nothing where it cannot be read."""
    try:
        return first_line(file.read_text("ascii", "replace"))
    except OSError:
        return ""
