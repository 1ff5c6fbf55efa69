"""How often a cell was measured: repetitions made, what they were to reach, engine processes."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from fleetmark_collector.report.cells import Cell
from fleetmark_collector.report.figures import latency_of
from fleetmark_collector.report.labels import percent
from fleetmark_collector.report.statistics import estimate, min_sessions, sure_of
from fleetmark_collector.report.superseded import origin_of


@dataclass(frozen=True)
class Repeats:
    """A cell's repetitions.

    Attributes:
        made: repetitions that have a trial in the figures.
        most: repetitions that are made at most; None where the plan is not known.
        processes: runs of the engine that they come from, one an attempt of a job; in a cold cell
            each trial has its own.
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
    asked = cell.asked
    target = _target(cell)
    reached = None
    if target is not None:
        found = estimate(cell.values(latency_of(cell)), confidence=confidence, seed=seed)
        reached = found.relative_half_width if found else None
    return Repeats(
        made=len({(origin_of(one.record.job_id), one.record.repetition) for one in cell.measured}),
        most=asked.repetitions if asked and len(cell.jobs) == 1 else None,
        processes=len({(t.record.job_id, t.record.attempt) for t in cell.measured}),
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
    if cell.workload_kind == "soak":
        soaks = len(cell.soaks())
        if soaks > 1:
            yield f"{soaks} soaks{doubt(soaks, 'requests', confidence)}"
    elif repeats.processes > 1 and not cell.cold:
        among = doubt(repeats.processes, "repetitions", confidence)
        yield f"{repeats.processes} processes of the engine{among}"


def doubt(count: int, parts: str, confidence: float) -> str:
    """Return what is to be said of an interval that draws from so few; empty where they suffice.

    Args:
        count: processes, or soaks.
        parts: what each of them consists of.
        confidence: that the interval claims.
    """
    if count >= min_sessions(confidence):
        return ""
    return (
        f"; where these differ more than their {parts} do, the interval is sure to "
        f"{percent(round(sure_of(count), 2))} only, not to {percent(confidence)}"
    )


def _target(cell: Cell) -> float | None:
    """Return the half width that the campaign file asks for; None without, or where it is lost.

    Each of K blocks is asked for √K times as much, and for 100 % at most.
    """
    asked = cell.asked
    if asked is None or asked.adaptive is None:
        return None
    own = asked.adaptive.half_width_percent / 100
    if cell.blocks == 1:
        return own
    return round(own / math.sqrt(cell.blocks), 6) if own < 1 else None
