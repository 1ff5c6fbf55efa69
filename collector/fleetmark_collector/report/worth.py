"""What a request costs on each machine, and which is the best value for it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from fleetmark_collector.report.cellreport import CellReport
from fleetmark_collector.report.cells import Cell
from fleetmark_collector.report.compare import comparable_groups, compare_metric
from fleetmark_collector.report.statistics import Outcome, Ratio


class Standing(StrEnum):
    """How a cell's EQ stands among those that it can be compared with."""

    BEST = "best"
    LEVEL = "no difference to the best shown"
    BEHIND = "behind"
    HIGHEST = "highest so far, too few repetitions to tell"
    UNCERTAIN = "too few repetitions to tell"
    ALONE = "nothing to compare with"


@dataclass(frozen=True)
class Value:
    """One cell's worth.

    Attributes:
        usd_per_hour: price of the machine; None where no trial tells.
        standing: None without an EQ: there is no price, it is 0, or nothing worked.
        gain: EQ of the best over this one's; None for the best itself.
    """

    cell: CellReport
    usd_per_hour: float | None
    standing: Standing | None
    gain: Ratio | None


@dataclass(frozen=True)
class Worth:
    """A workload's cells by what they cost, those that failed included."""

    workload: str
    values: tuple[Value, ...]


def worths(cells: Sequence[CellReport], *, confidence: float, seed: int) -> Iterator[Worth]:
    """Yield the worth of each workload in which any trial has a price.

    Not of a soak: its requests are there to make heat, and get dearer as it goes on.
    """
    for workload in dict.fromkeys(cell.cell.workload for cell in cells):
        here = [cell for cell in cells if cell.cell.workload == workload]
        prices = [price_of(cell.cell) for cell in here]
        if all(price is None for price in prices) or here[0].cell.workload_kind == "soak":
            continue
        standings = _standings(here, confidence=confidence, seed=seed)
        yield Worth(
            workload,
            tuple(
                Value(cell, price, *standings.get(id(cell), (None, None)))
                for cell, price in zip(here, prices, strict=True)
            ),
        )


def price_of(cell: Cell) -> float | None:
    """Return the price per hour that the trials were counted with, the newest of several."""
    told = (trial.record.usd_per_hour for trial in reversed(cell.trials))
    return next((price for price in told if price is not None), None)


def _standings(
    cells: Sequence[CellReport], *, confidence: float, seed: int
) -> dict[int, tuple[Standing, Ratio | None]]:
    """Return how cells stand, by `id`."""
    priced = [cell for cell in cells if "eq" in cell.figures]
    found: dict[int, tuple[Standing, Ratio | None]] = {}
    for alike in comparable_groups([cell.cell for cell in priced]):
        group = [cell for cell in priced if any(cell.cell is one for one in alike)]
        best = max(group, key=lambda cell: cell.figures["eq"].median)
        outcomes: list[Outcome] = []
        for cell in group:
            if cell is best:
                continue
            shown = compare_metric(best.cell, cell.cell, "eq", confidence=confidence, seed=seed)
            if shown is None:
                continue
            outcomes.append(shown.outcome)
            standing = {
                Outcome.BETTER: Standing.BEHIND,
                Outcome.TOO_FEW: Standing.UNCERTAIN,
            }.get(shown.outcome, Standing.LEVEL)
            found[id(cell)] = (standing, shown.gain)
        found[id(best)] = (_of_best(outcomes), None)
    return found


def _of_best(outcomes: Sequence[Outcome]) -> Standing:
    if not outcomes:
        return Standing.ALONE
    if Outcome.TOO_FEW in outcomes:
        return Standing.HIGHEST
    return Standing.BEST if all(o is Outcome.BETTER for o in outcomes) else Standing.LEVEL
