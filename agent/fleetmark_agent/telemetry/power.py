"""How much power the machine draws, from the best source that it has, and the energy of a window.

Two sources, the one that sees more first: a meter in the supply line (all of the machine), then the
counters of an x86 processor (packages and memory, no disk, no fan, no power supply).
"""

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from fleetmark_agent.telemetry.base import EnergySource, Sensor, SensorStatus, Values
from fleetmark_agent.telemetry.power_hwmon import Meter
from fleetmark_agent.telemetry.power_rapl import Rapl

Reading = tuple[int, float]
"""Nanoseconds of the monotonic clock, and watts."""


class Power:
    """Power in watts; a virtual machine, and a board without a meter, have none."""

    name = "power"

    def __init__(self, root: Path, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        """Look for `sys` below `root`."""
        self._sources: tuple[Sensor, ...] = (Meter(root), Rapl(root, clock_ns))
        self._used: Sensor | None = None

    def probe(self) -> SensorStatus:
        """Take the first source that is there; if none is, say what each of them lacks."""
        reasons, hint = [], None
        for source in self._sources:
            status = source.probe()
            if status.available:
                self._used = source
                return status
            reasons.append(status.reason or status.source)
            hint = hint or status.hint
        return SensorStatus(False, "sysfs", reason="; ".join(reasons), hint=hint)

    def read(self) -> Values:
        """See the source."""
        return {} if self._used is None else self._used.read()


def energy_j(
    source: EnergySource, opened: Reading | int, readings: Sequence[Reading], closed_ns: int
) -> float | None:
    """Return the energy of a window; None where too little of it was observed; pure.

    Readings of a counter are means since the reading before, so that their sum is what the counter
    grew by; those of a meter are moments, and a straight line is drawn between two.
    Formula: counter: sum of power x time since the reading before (the rest up to the end at the
    last power); meter: sum of (power before + power) / 2 x time between.

    Args:
        source: whose readings they are.
        opened: the reading just before the window, or only its time where there was none.
        readings: those within, the closing one included, in order of time.
        closed_ns: when the window ended.
    """
    opened_ns = opened if isinstance(opened, int) else opened[0]
    if not readings or closed_ns <= opened_ns:
        return None
    if source == "rapl":
        times = [opened_ns, *(time_ns for time_ns, _ in readings)]
        spans = [after - before for before, after in pairwise(times)]
        spans[-1] += closed_ns - times[-1]
        drawn = sum(span * watts for span, (_, watts) in zip(spans, readings, strict=True))
        return drawn / 1e9
    first = (opened_ns, readings[0][1]) if isinstance(opened, int) else opened
    points = [first, *readings, (closed_ns, readings[-1][1])]
    drawn = sum((w1 + w2) / 2 * (t2 - t1) for (t1, w1), (t2, w2) in pairwise(points))
    return drawn / 1e9
