"""When repetitions are enough: the median is known well enough, or its time is spent. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import median
from typing import Literal

from fleetmark_protocol.workloads import Workload

CONFIDENCE = 0.95

Reason = Literal["target", "budget", "most"]
"""Why no further repetition is made: the interval is narrow enough, the time for them is spent, or
there were as many as the campaign allows."""


@dataclass(frozen=True)
class Outcome:
    """What an interrupted job must still know of what it has done.

    Attributes:
        of: a trial's id, or that of a soak as a whole.
        latency_s: None where it is not to be counted in.
        spent_s: time that went into it, a load included where it had one of its own.
    """

    of: str
    latency_s: float | None
    spent_s: float


@dataclass(frozen=True)
class Ending:
    """The repetitions of a workload are over.

    Attributes:
        workload: its name.
        repetitions: how many were made.
        reason: why there are no more.
        half_width_percent: see the function of that name.
    """

    workload: str
    repetitions: int
    reason: Reason
    half_width_percent: float | None


def median_interval(
    values: Sequence[float], confidence: float = CONFIDENCE
) -> tuple[float, float] | None:
    """Return an interval for the median, whatever the values' distribution; None for too few.

    The k-th smallest and the k-th largest of n independent values enclose the median of what they
    were drawn from unless fewer than k of them lie on one side of it, and how many do is binomial
    (n, 1/2). So with the largest k for which P(Bin(n, 1/2) < k) <= (1 - confidence) / 2 the
    interval holds with at least that confidence. At 95 % that takes 6 values.

    Source: H. A. David, H. N. Nagaraja, Order Statistics, 3rd ed. (2003), section 7.1; the same in
    W. J. Conover, Practical Nonparametric Statistics, 3rd ed. (1999), section 3.2.
    """
    ordered, n = sorted(values), len(values)
    # P(Bin(n, 1/2) = k) = ways / 2**n, in whole numbers: floats would underflow for many values.
    ways, tail, k = 1, 0, 0
    limit = Fraction((1 - confidence) / 2) * 2**n
    while tail + ways <= limit:
        tail += ways
        ways = ways * (n - k) // (k + 1)
        k += 1
    return (ordered[k - 1], ordered[n - k]) if k else None


def half_width_percent(values: Sequence[float]) -> float | None:
    """Return half the width of the median's 95 % interval, in percent of the median.

    None for fewer values than the interval needs, or a median of 0.
    """
    interval = median_interval(values)
    middle = median(values) if interval else 0.0
    if interval is None or middle <= 0:
        return None
    return 100 * (interval[1] - interval[0]) / 2 / middle


def ending(
    workload: Workload, latencies_s: Sequence[float | None], spent_s: float
) -> Ending | None:
    """Return how the repetitions of a workload end; None where another is due.

    Args:
        workload: one with `adaptive`, else it ends at its number of repetitions.
        latencies_s: of each repetition made, over its prompts; None of one that may not be
            compared, which counts as made and is not looked at.
        spent_s: time that went into them.
    """
    made = len(latencies_s)
    width = half_width_percent([one for one in latencies_s if one is not None])
    rules = workload.adaptive
    reason: Reason | None = None
    if rules is not None and made >= rules.min:
        if width is not None and width <= rules.half_width_percent:
            reason = "target"
        elif made < workload.repetitions and rules.budget_s is not None:
            reason = "budget" if spent_s >= rules.budget_s else None
    if reason is None and made >= workload.repetitions:
        reason = "most"
    return None if reason is None else Ending(workload.name, made, reason, width)
