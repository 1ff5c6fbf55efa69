"""Medians, their intervals and ratios of medians: pure functions of numbers and a seed."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

RESAMPLES = 4000
BATCH_VALUES = 2_000_000
"""Resampled values held at a time; more of them would fill a small machine's memory."""


class Pair(NamedTuple):
    """Where a value was measured; equal places of two cells belong together.

    Attributes:
        session: which of the cell's sessions (job after job, repetition after repetition).
        prompt_index: which prompt of the session.
    """

    session: tuple[int, int]
    prompt_index: int


Values = Mapping[Pair, float]


@dataclass(frozen=True)
class Estimate:
    """A median and how sure it is; `low` and `high` are None where the sessions are too few."""

    median: float
    low: float | None
    high: float | None
    minimum: float
    maximum: float
    count: int
    sessions: int

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


def min_sessions(confidence: float) -> int:
    """Return how many sessions a median's interval needs at least.

    The lowest and the highest of n values enclose the true median with probability
    1 - 2^(1 - n): with fewer than this, no two of the values make an interval of that confidence,
    and a resampling that claims one is wrong. 6 at 95 %.
    """
    return math.ceil(1 + math.log2(1 / (1 - confidence)))


def estimate(values: Values, *, confidence: float, seed: int) -> Estimate | None:
    """Return the median of `values` with its percentile bootstrap interval; None for no values.

    Whole sessions are resampled: the prompts of one session share the machine's mood, and counting
    them as independent would promise more than was measured. Percentile, not BCa: the jackknife
    that BCa leans on fails for medians.
    """
    import numpy as np

    if not values:
        return None
    grid = _grid(values)
    flat = grid[~np.isnan(grid)]
    low, high = None, None
    if len(grid) >= min_sessions(confidence):
        low, high = _interval(
            (grid,), lambda rows: _median(rows[0]), confidence=confidence, seed=seed, paired=False
        )
    return Estimate(
        median=float(np.median(flat)),
        low=low,
        high=high,
        minimum=float(flat.min()),
        maximum=float(flat.max()),
        count=len(flat),
        sessions=len(grid),
    )


def ratio(over: Values, under: Values, *, confidence: float, seed: int) -> Ratio | None:
    """Return median(over) / median(under) with its bootstrap interval.

    Where both sides were measured at the same places they are resampled together, so that a drift
    that both share (heat, a neighbour) cancels out.

    Returns:
        None where a side has no values, or where `under` has a value that is not positive.
    """
    import numpy as np

    if not over or not under or min(under.values()) <= 0:
        return None
    paired = over.keys() == under.keys()
    grids = (_grid(over), _grid(under))
    low, high = None, None
    if min(len(grid) for grid in grids) >= min_sessions(confidence):
        low, high = _interval(
            grids,
            lambda rows: _median(rows[0]) / _median(rows[1]),
            confidence=confidence,
            seed=seed,
            paired=paired,
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


def _grid(values: Values) -> Any:
    """Return sessions x prompts, NaN where a prompt of a session has no value."""
    import numpy as np

    sessions = sorted({place.session for place in values})
    prompts = sorted({place.prompt_index for place in values})
    grid = np.full((len(sessions), len(prompts)), np.nan)
    row = {session: index for index, session in enumerate(sessions)}
    column = {prompt: index for index, prompt in enumerate(prompts)}
    for place, value in values.items():
        grid[row[place.session], column[place.prompt_index]] = value
    return grid


def _median(rows: Any) -> Any:
    import numpy as np

    flat = rows.reshape(*rows.shape[:-2], -1)
    # nanmedian is many times slower than median, and most grids are full.
    return np.nanmedian(flat, axis=-1) if np.isnan(flat).any() else np.median(flat, axis=-1)


def _interval(
    grids: tuple[Any, ...],
    statistic: Callable[[list[Any]], Any],
    *,
    confidence: float,
    seed: int,
    paired: bool,
) -> tuple[float, float]:
    """Resample rows of the grids and return the percentile interval of the statistic."""
    import numpy as np
    from scipy.stats import bootstrap

    def of_rows(*picked: Any, axis: int = -1) -> Any:
        del axis  # always the last: rows are picked by number
        return statistic([grid[rows] for grid, rows in zip(grids, picked, strict=True)])

    # Of one sample the batches draw what all at once would draw; of two they would not.
    batch = max(1, BATCH_VALUES // grids[0].size) if len(grids) == 1 else None
    result = bootstrap(
        tuple(np.arange(len(grid)) for grid in grids),
        of_rows,
        paired=paired,
        vectorized=True,
        batch=batch,
        n_resamples=RESAMPLES,
        confidence_level=confidence,
        method="percentile",
        random_state=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return float(low), float(high)
