"""Holds what is expected of a campaign against the limits in its file; what nobody knows, too."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fleetmark_collector.campaigns.duration import Span
from fleetmark_collector.campaigns.schema import Limits
from fleetmark_collector.campaigns.yaml_source import Problem


@dataclass(frozen=True)
class Unknown:
    """A job that nobody can tell the time of.

    Attributes:
        words: its cell and device.
        because: why there is no estimate.
        priced: whether its time costs anything.
    """

    words: str
    because: str
    priced: bool


def beyond_limits(
    limits: Limits, seconds: Span, usd: Span | None, unknown: Sequence[Unknown]
) -> Iterator[Problem]:
    """Find the limits that would likely be exceeded."""
    if _more(seconds, limits.duration_s):
        text = (
            f"would take about {seconds.likely:.0f} s ({seconds.low:.0f} to {seconds.high:.0f} s)"
            f"{_on_top(unknown)}, more than {limits.duration_s:g} s"
        )
        yield Problem(("limits", "duration_s"), text)
    if _more(usd, limits.cost_usd) and usd is not None:
        text = (
            f"would cost about {usd_text(usd.likely)} USD ({usd_text(usd.low)} to "
            f"{usd_text(usd.high)} USD){_on_top([one for one in unknown if one.priced])}, more "
            f"than {limits.cost_usd:g} USD"
        )
        yield Problem(("limits", "cost_usd"), text)


def unsure_limits(
    limits: Limits, seconds: Span, usd: Span | None, unknown: Sequence[Unknown]
) -> Iterator[Problem]:
    """Find the limits that what is known keeps, and that jobs without an estimate may exceed."""
    if limits.duration_s is not None and not _more(seconds, limits.duration_s) and unknown:
        yield Problem(("limits", "duration_s"), _unsure(unknown))
    priced = [one for one in unknown if one.priced]
    if limits.cost_usd is not None and not _more(usd, limits.cost_usd) and priced:
        yield Problem(("limits", "cost_usd"), _unsure(priced))


def usd_text(usd: float) -> str:
    """Return a sum of money; cents, or what is left of small sums."""
    return f"{usd:.2f}" if usd >= 1 or usd == 0 else f"{usd:.4f}"


def _more(expected: Span | None, limit: float | None) -> bool:
    return expected is not None and limit is not None and expected.likely > limit


def _on_top(unknown: Sequence[Unknown]) -> str:
    return f" and {len(unknown)} job(s) without an estimate on top" if unknown else ""


def _unsure(unknown: Sequence[Unknown]) -> str:
    reasons = "; ".join(dict.fromkeys(one.because for one in unknown))
    more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
    return (
        f"nobody knows whether it is kept: {len(unknown)} job(s) have no estimate "
        f"({unknown[0].words}{more}), {reasons}"
    )
