"""The role of a sensor, and what goes in and out of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

Value = float | int | tuple[float, ...]
Values = Mapping[str, Value]
"""Observations under the field names of a telemetry record; what was not observed is not there."""

POWER_FIELD = "power_w"
EnergySource = Literal["meter", "rapl"]
"""Classes of sources of energy, as records tell them: a meter in the supply line, or the counters
of a processor."""

MIN_RATE_NS = 50_000_000
"""Below this a rate is not given: the kernel's CPU clocks tick every 10 ms, so that less than five
ticks say nothing."""


@dataclass(frozen=True)
class SensorStatus:
    """Whether a sensor can be used on this machine.

    Attributes:
        available: whether `read` will observe anything.
        source: where its numbers come from, for people.
        fields: what `read` can give here.
        reason: why it is not available; None when it is.
        hint: what would make it so, where its owner can do something about it.
        energy_source: which class of source its power is from; None where it gives none.
    """

    available: bool
    source: str
    fields: tuple[str, ...] = ()
    reason: str | None = None
    hint: str | None = None
    energy_source: EnergySource | None = None


class Sensor(Protocol):
    """Something that observes the device. Used by one thread at a time.

    A sensor of cumulative counters remembers those of its last reading. It leaves a field out, and
    never gives 0 for it, where the machine lacks it, at the first reading of a rate, and where a
    counter went backwards.
    """

    name: str

    def probe(self) -> SensorStatus:
        """Say what can be observed here; asked once, before the first `read`."""

    def read(self) -> Values:
        """Observe; cheap enough for ten times a second.

        Raises:
            Exception: whatever went wrong; the caller counts it and goes on with other sensors.
        """


def first_line(text: str) -> str:
    """Return the first line of a small kernel file, without its white space."""
    return text.partition("\n")[0].strip()
