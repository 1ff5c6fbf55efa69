"""What a metric is: name, unit, how to show it, its formula, as data."""

from dataclasses import dataclass
from typing import Literal

Unit = Literal[
    "s",
    "bytes",
    "bytes/s",
    "%",
    "tokens/s",
    "tokens",
    "Hz",
    "°C",
    "W",
    "J",
    "g",
    "USD",
    "1/(USD·s)",
    "tokens²/(USD·s)",
    "1",
]
Better = Literal["lower", "higher", "neither"]


@dataclass(frozen=True)
class Metric:
    """One quantity.

    Attributes:
        name: the field's name in records, store, dashboards and reports.
        unit: of the stored number.
        title: what people read.
        better: which direction is good, for colouring and ranking.
        description: what it is, and when it is absent.
        formula: how it is computed, where it is.
        display_unit: unit shown to people; `display_scale` turns the stored number into it.
        display_scale: multiply the stored number by this to show it.
        digits: decimals shown.
    """

    name: str
    unit: Unit
    title: str
    better: Better
    description: str
    formula: str | None = None
    display_unit: str = ""
    display_scale: float = 1.0
    digits: int = 2

    def show(self, value: float | None) -> str:
        """Return the number as people read it, without the unit; `-` when absent."""
        return "-" if value is None else f"{value * self.display_scale:,.{self.digits}f}"

    @property
    def shown_unit(self) -> str:
        """The unit that belongs to `show`."""
        return self.display_unit or self.unit
