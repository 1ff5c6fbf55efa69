"""How long a job takes at a pace: what each kind of workload asks, how often, with what between."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from fleetmark_collector.campaigns.cells import INTERVAL_TAKES, fewest_repetitions
from fleetmark_collector.campaigns.pace import Pace
from fleetmark_protocol.messages import JobSpec
from fleetmark_protocol.workloads import Workload

DISPATCH_S = 2.0
"""Between two jobs of a device: the end is reported, the next one is sent."""
CHARACTERS_PER_TOKEN = 4.0
"""Of a prompt that no earlier trial has counted."""
MEDIAN_HALF_WIDTH = 1.2533 * 1.96
"""Half the width of a median's 95 % interval, in standard deviations over the root of n."""
DEVIATIONS_IN_NINE_OF_TEN = 2 * 1.2816
"""Width of what lies between the first and the last tenth, in standard deviations."""

PromptTokens = Mapping[tuple[str, str], int]
"""(model, digest of a prompt) -> its tokens."""


@dataclass(frozen=True)
class Span:
    """A quantity that is not known well: at least, most likely, at most."""

    low: float = 0.0
    likely: float = 0.0
    high: float = 0.0

    def __add__(self, other: "Span") -> "Span":
        return Span(self.low + other.low, self.likely + other.likely, self.high + other.high)

    def times(self, factor: float) -> "Span":
        """Return so many of it."""
        return Span(self.low * factor, self.likely * factor, self.high * factor)


@dataclass(frozen=True)
class JobTime:
    """How long a job takes if a pace holds; waiting for a temperature comes on top.

    Attributes:
        paced: what goes by the pace; a span where something repeats until enough is known.
        fixed_s: what lasts as long as the file says, whatever the pace.
    """

    paced: Span
    fixed_s: float


def job_time(spec: JobSpec, pace: Pace, prompt_tokens: PromptTokens) -> JobTime:
    """Return how long a job takes at a pace."""
    start_s = pace.start_s + pace.load_s
    anew_s = start_s if pace.cold_load_s is None else pace.start_s + pace.cold_load_s
    cold = spec.options.start == "cold"
    total = Span()
    warm = False
    for workload in spec.workloads:
        anew = cold or workload.kind == "coldstart"
        between_s = anew_s if anew else pace.gap_s
        warm = warm or not anew
        tokens = _tokens(spec.model.name, workload, prompt_tokens)
        total += _workload_seconds(workload, pace, tokens, between_s)
    once_s = start_s - pace.gap_s if warm else 0.0  # before the first trial there is no gap
    extra = DISPATCH_S + once_s
    return JobTime(total + Span(extra, extra, extra), soaks_s(spec))


def soaks_s(spec: JobSpec) -> float:
    """Return how long a job's soaks last: as long as the file says, at any pace."""
    soaks = (one for one in spec.workloads if one.kind == "soak")
    return sum((one.repetitions * (one.duration_s or 0.0) for one in soaks), 0.0)


def _workload_seconds(
    workload: Workload, pace: Pace, tokens: Sequence[float], between_s: float
) -> Span:
    """Return how long a workload takes beside what is fixed of it.

    Args:
        workload: what is asked.
        pace: how fast.
        tokens: of each of its prompts.
        between_s: before each request, or before each soak.
    """
    if workload.kind == "concurrency":
        round_s = between_s + pace.round_s(fmean(tokens), workload.output_tokens, workload.clients)
        warmup_s, repetition_s = workload.warmup * round_s, round_s
    else:
        requests_s = [between_s + pace.trial_s(one, workload.output_tokens) for one in tokens]
        warmup_s, repetition_s = workload.warmup * requests_s[0], sum(requests_s)
    if workload.kind == "soak":
        repetition_s = between_s
    often = _repetitions(workload, repetition_s, pace)
    return often.times(repetition_s) + Span(warmup_s, warmup_s, warmup_s)


def _repetitions(workload: Workload, repetition_s: float, pace: Pace) -> Span:
    """Return how many repetitions are made.

    How many an adaptive workload needs follows from how much the trials varied that were seen;
    where nobody has seen any, something between the fewest and the most.
    """
    most = float(workload.repetitions)
    adaptive = workload.adaptive
    if adaptive is None:
        return Span(most, most, most)
    fewest = float(fewest_repetitions(workload))
    if adaptive.budget_s is not None and repetition_s > 0:
        # The last one may begin just before the time is over.
        most = max(fewest, min(most, math.ceil(adaptive.budget_s / repetition_s)))
    deviation = (pace.high - pace.low) / DEVIATIONS_IN_NINE_OF_TEN
    if deviation > 0:
        needed = (100 * MEDIAN_HALF_WIDTH * deviation / adaptive.half_width_percent) ** 2
        likely = max(fewest, min(most, max(INTERVAL_TAKES, math.ceil(needed))))
    else:
        likely = math.sqrt(fewest * most)
    return Span(fewest, likely, most)


def _tokens(model: str, workload: Workload, counted: PromptTokens) -> list[float]:
    return [_prompt_tokens(model, workload, prompt, counted) for prompt in workload.prompts]


def _prompt_tokens(model: str, workload: Workload, prompt: str, counted: PromptTokens) -> float:
    tokens = counted.get((model, hashlib.sha256(prompt.encode()).hexdigest()))
    if tokens is not None:
        return tokens
    if workload.kind == "context_sweep":
        return len(prompt.split())  # it was made so
    return 1 + len(prompt) / CHARACTERS_PER_TOKEN
