"""Turns the times of one request's tokens into latencies and rates. Pure: no clock, no I/O."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

_NS = 1e9


@dataclass(frozen=True)
class Timing:
    """What one request took; a quantity that its tokens do not define is None.

    Attributes:
        latency_s: the whole request.
        ttft_s: until the first token was out; None when none came.
        tpot_s: per token after the first; None for fewer than two tokens, or where all came at
            once, so that no time passed between them.
        prefill_tps: prompt tokens evaluated per second until the first token.
        decode_tps: 1 / `tpot_s`.
        itl_p50_s: median time between two tokens; this and the next two only where the engine
            streamed its tokens one by one.
        itl_p95_s: 95th percentile of the same.
        itl_p99_s: 99th percentile of the same.
    """

    latency_s: float
    ttft_s: float | None = None
    tpot_s: float | None = None
    prefill_tps: float | None = None
    decode_tps: float | None = None
    itl_p50_s: float | None = None
    itl_p95_s: float | None = None
    itl_p99_s: float | None = None

    def as_fields(self) -> dict[str, float]:
        """Return what is defined, under the names of a trial record."""
        named = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in named if value is not None}


def measure(
    *,
    start_ns: int,
    token_times_ns: Sequence[int],
    token_counts: Sequence[int],
    end_ns: int,
    prompt_tokens_evaluated: int | None,
    output_tokens: int,
) -> Timing:
    """Return the timing of one request.

    All times are of one monotonic clock. An engine may send several tokens in one step:
    `tpot_s` = (t_last - t_first) / (output_tokens - tokens of the first step), which is the usual
    (t_last - t_first) / (output_tokens - 1) where the first step carried one token.

    Args:
        start_ns: when the prompt was handed over.
        token_times_ns: when each step of the stream was out.
        token_counts: tokens in each step; a step without any (a part of a character, a flush) does
            not count.
        end_ns: when the stream ended.
        prompt_tokens_evaluated: by the engine's count; None where it does not say.
        output_tokens: by the engine's count, which chunks do not replace.

    Raises:
        ValueError: the times go backwards, or there are not as many counts as times.
    """
    if len(token_times_ns) != len(token_counts):
        raise ValueError(f"{len(token_times_ns)} times for {len(token_counts)} token counts")
    if output_tokens < 0 or any(count < 0 for count in token_counts):
        raise ValueError("a negative number of tokens")
    if any(later < earlier for earlier, later in pairwise((start_ns, *token_times_ns, end_ns))):
        raise ValueError("token times go backwards")
    steps = [
        (time_ns, count)
        for time_ns, count in zip(token_times_ns, token_counts, strict=True)
        if count
    ]
    latency_s = (end_ns - start_ns) / _NS
    if not steps or output_tokens == 0:
        return Timing(latency_s)
    first_ns, first_count = steps[0]
    ttft_s = (first_ns - start_ns) / _NS
    prefill_tps = None
    if prompt_tokens_evaluated and ttft_s > 0:
        prefill_tps = prompt_tokens_evaluated / ttft_s
    tpot_s = None
    decode_ns, decoded = steps[-1][0] - first_ns, output_tokens - first_count
    if decode_ns > 0 and decoded > 0:
        tpot_s = decode_ns / decoded / _NS
    gaps_s: list[float] = []
    if len(steps) == output_tokens and all(count == 1 for _, count in steps):
        gaps_s = [(later[0] - earlier[0]) / _NS for earlier, later in pairwise(steps)]
    return Timing(
        latency_s=latency_s,
        ttft_s=ttft_s,
        tpot_s=tpot_s,
        prefill_tps=prefill_tps,
        decode_tps=None if tpot_s is None else 1 / tpot_s,
        itl_p50_s=percentile(gaps_s, 50),
        itl_p95_s=percentile(gaps_s, 95),
        itl_p99_s=percentile(gaps_s, 99),
    )


def percentile(values: Sequence[float], percent: int) -> float | None:
    """Return a percentile (0 to 100), interpolated between its neighbours; None of nothing.

    Unlike `statistics.quantiles` it never leaves the range of the values by rounding: a record
    takes no 100.00000000000001 %.
    """
    if not values:
        return None
    ordered = sorted(values)
    place, rest = divmod(percent * (len(ordered) - 1), 100)
    low = ordered[place]
    high = ordered[min(place + 1, len(ordered) - 1)]
    return min(high, low + (high - low) * rest / 100)
