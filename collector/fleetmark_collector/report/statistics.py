"""Medians, their intervals and ratios of medians: pure functions of numbers and a seed."""

import math
from dataclasses import dataclass
from enum import StrEnum

from fleetmark_collector.report.resampling import (
    Pair,
    Values,
    grid,
    interval,
    processes,
    quantile_of,
)

__all__ = [
    "Estimate",
    "Outcome",
    "Pair",
    "Ratio",
    "Values",
    "estimate",
    "min_sessions",
    "outcome",
    "ratio",
    "sure_of",
]


@dataclass(frozen=True)
class Estimate:
    """A median and how sure it is; `low` and `high` are None where the sessions are too few.

    Where another quantile was asked for, it is in `median`.
    """

    median: float
    low: float | None
    high: float | None
    minimum: float
    maximum: float
    count: int
    sessions: int
    processes: int = 1
    """Of the engine; with one, what differs between two starts is in no interval."""

    @property
    def relative_half_width(self) -> float | None:
        """Half the interval's width over the median: 0.02 reads as ±2 %."""
        if self.low is None or self.high is None or self.median == 0:
            return None
        return (self.high - self.low) / 2 / abs(self.median)


@dataclass(frozen=True)
class Ratio:
    """A ratio of two medians; without an interval where the sessions are too few."""

    ratio: float
    low: float | None
    high: float | None
    paired: bool
    """Whether the two sides were resampled together, session by session."""


class Outcome(StrEnum):
    """What a ratio shows, where above 1 is better."""

    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE = "no difference shown"
    TOO_FEW = "too few repetitions to tell"


def min_sessions(confidence: float, quantile: float = 0.5) -> int:
    """Return how many sessions the interval of a median, or of another quantile, needs at least.

    The lowest and the highest of n values enclose the true quantile q with probability
    1 - q^n - (1 - q)^n: with fewer than this, no two of the values make an interval of that
    confidence, and a resampling that claims one is wrong. 6 for the median at 95 %, 59 for the
    95th percentile.
    """
    rarer = max(quantile, 1 - quantile)
    least = math.ceil(math.log(1 - confidence) / math.log(rarer))
    while rarer**least + (1 - rarer) ** least > (1 - confidence) * (1 + 1e-9):
        least += 1
    return least


def sure_of(count: int) -> float:
    """Return how sure the extremes of so many values are to enclose their true median."""
    return 1 - 2.0 ** (1 - count)


def estimate(
    values: Values, *, confidence: float, seed: int, quantile: float = 0.5
) -> Estimate | None:
    """Return the median of `values` with its percentile bootstrap interval; None for no values.

    Args:
        values: to be resampled session by session, process by process.
        confidence: of the interval.
        seed: of the resampling.
        quantile: another one than the median.
    """
    import numpy as np

    if not values:
        return None
    whole = grid(values)
    flat = whole[~np.isnan(whole)]
    low, high = None, None
    if len(whole) >= min_sessions(confidence, quantile):
        low, high = interval(
            (values,),
            lambda rows: quantile_of(rows[0], quantile),
            confidence=confidence,
            seed=seed,
            paired=False,
        )
    return Estimate(
        median=float(np.quantile(flat, quantile) if quantile != 0.5 else np.median(flat)),
        low=low,
        high=high,
        minimum=float(flat.min()),
        maximum=float(flat.max()),
        count=len(flat),
        sessions=len(whole),
        processes=processes(values),
    )


def ratio(
    over: Values,
    under: Values,
    *,
    confidence: float,
    seed: int,
    same_processes: bool = False,
) -> Ratio | None:
    """Return median(over) / median(under) with its bootstrap interval.

    Where both sides were measured at the same places they are resampled together, so that a drift
    that both share (heat, a neighbour) cancels out.

    Args:
        over: values above the line.
        under: values below it.
        confidence: of the interval.
        seed: of the resampling.
        same_processes: whether a process is the same one on both sides (the begin and the end of a
            soak), so that it is drawn on both or on none; its sessions are not the same ones.

    Returns:
        None where a side has no values, or where `under` has a value that is not positive.
    """
    import numpy as np

    if not over or not under or min(under.values()) <= 0:
        return None
    paired = over.keys() == under.keys()
    low, high = None, None
    sessions = min(len({place.session for place in side}) for side in (over, under))
    if sessions >= min_sessions(confidence):
        low, high = interval(
            (over, under),
            lambda rows: quantile_of(rows[0], 0.5) / quantile_of(rows[1], 0.5),
            confidence=confidence,
            seed=seed,
            paired=paired,
            together=same_processes
            and {place.session[0] for place in over} == {place.session[0] for place in under},
        )
    value = float(np.median(list(over.values())) / np.median(list(under.values())))
    return Ratio(value, low, high, paired)


def outcome(gain: Ratio) -> Outcome:
    """Return what a ratio shows, where above 1 is better."""
    if gain.low is None or gain.high is None:
        return Outcome.TOO_FEW
    if gain.low > 1:
        return Outcome.BETTER
    return Outcome.WORSE if gain.high < 1 else Outcome.NO_DIFFERENCE
