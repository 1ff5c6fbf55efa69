"""How often a cell was measured: repetitions made, what they were to reach, engine processes."""

from collections.abc import Iterator
from dataclasses import dataclass

from fleetmark_collector.report.cells import Cell
from fleetmark_collector.report.figures import latency_of
from fleetmark_collector.report.labels import percent
from fleetmark_collector.report.statistics import estimate, min_sessions, sure_of


@dataclass(frozen=True)
class Repeats:
    """A cell's repetitions.

    Attributes:
        made: repetitions that have a trial in the figures.
        most: repetitions that are made at most; None where the plan is not known.
        processes: runs of the engine that they come from; in a cold cell each trial has its own.
        target: relative half width that adaptive repetitions were to reach; None without.
        reached: the same as it came out, of the latency that a repetition takes; None where there
            are too few for an interval.
    """

    made: int
    most: int | None
    processes: int
    target: float | None
    reached: float | None


def repeats_of(cell: Cell, *, confidence: float, seed: int) -> Repeats:
    """Return how often a cell was measured.

    Args:
        cell: the cell.
        confidence: of the interval whose half width is told.
        seed: of the resampling.
    """
    places = [place for place, _ in cell.placed()]
    asked = cell.asked
    target = asked.adaptive.half_width_percent / 100 if asked and asked.adaptive else None
    reached = None
    if target is not None:
        found = estimate(cell.values(latency_of(cell)), confidence=confidence, seed=seed)
        reached = found.relative_half_width if found else None
    return Repeats(
        made=len({place.session for place in places}),
        most=asked.repetitions if asked and len(cell.jobs) == 1 else None,
        processes=len({trial.record.job_id for trial in cell.measured}),
        target=target,
        reached=reached,
    )


def repeat_notes(cell: Cell, repeats: Repeats, confidence: float) -> Iterator[str]:
    """Yield what a reader should know of how often a cell was measured."""
    if repeats.target is not None:
        least = min_sessions(confidence)
        reached = (
            f"no interval (it needs {least})"
            if repeats.reached is None
            else f"±{repeats.reached:.1%} of the latency"
        )
        yield f"{repeats.made} repetitions: {reached}, asked for ±{repeats.target:.1%}"
    if repeats.processes > 1 and not cell.cold:
        few = repeats.processes < min_sessions(confidence)
        sure = sure_of(repeats.processes)
        doubt = (
            f"; where these differ more than their repetitions do, the interval is sure to "
            f"{percent(round(sure, 2))} only, not to {percent(confidence)}"
        )
        yield f"{repeats.processes} processes of the engine{doubt if few else ''}"
