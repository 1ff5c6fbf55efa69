"""Whether a trial may be compared with others, by rules on what was observed. Pure: no I/O.

A rule applies only where all that it looks at was observed; what a device cannot see never speaks
against a trial.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from fleetmark_protocol.records import Verdict

_MIB = 2**20


class Reason(StrEnum):
    """Why a trial is not VALID; the values go on the wire as `verdict_reasons`."""

    FAILURE = "failure"
    """INVALID: the request failed, so there is nothing to compare."""
    CACHED_PREFIX = "cached_prefix"
    """INVALID: the engine did not evaluate the whole prompt; that is another measurement."""
    FEWER_TOKENS_THAN_ASKED = "fewer_tokens_than_asked"
    """INVALID where the engine was told to ignore the end of text, else SUSPECT: less work."""
    INCOMPLETE_ROUND = "incomplete_round"
    """INVALID: a client failed of those that asked at the same time, or stopped early although it
    was told not to: fewer asked than it says, at least at the end."""
    CLOCK_STEP = "clock_step"
    """SUSPECT: the wall clock was set during the trial, so its telemetry may be misplaced."""
    SWAP_IN = "swap_in"
    """INVALID: the machine read memory back from swap; it measured the disk."""
    CPU_STEAL = "cpu_steal"
    """SUSPECT or, for much of it, INVALID: the hypervisor gave the CPU to somebody else."""
    FREQUENCY_DROP = "frequency_drop"
    """SUSPECT: the CPU ran well below the highest frequency seen in the same job."""
    THROTTLED = "throttled"
    """INVALID: throttling or under-voltage began or ended during the trial. SUSPECT: there was
    one all the time, so the figures are those of a slowed machine; or it was a soak, which is to
    find out just that."""
    COMPETING_LOAD = "competing_load"
    """SUSPECT: the machine was not quiet before the job, or something else used it meanwhile."""
    NOT_COOLED = "not_cooled"
    """SUSPECT: the machine was hotter at the beginning than the campaign wants it."""


@dataclass(frozen=True)
class Observed:
    """What is known of one trial; None where it was not or could not be observed.

    Attributes:
        failed: the request ended in a failure.
        round_incomplete: another request of those that were made at the same time failed, or
            generated fewer tokens than it had to.
        prompt_tokens: the engine's count of the prompt.
        prompt_tokens_evaluated: how many of them it worked on.
        output_tokens: how many it generated.
        output_tokens_requested: how many were asked.
        ignore_eos: whether the engine was told to generate all of them in any case.
        clock_step_s: by how much the wall clock moved against the monotonic one.
        swap_in_bytes: read from swap by the machine during the trial.
        cpu_steal_percent_mean: of the machine, during the trial.
        cpu_freq_hz_min: lowest sample of the trial.
        cpu_freq_hz_max_of_job: highest sample of the job so far, this trial included.
        throttled_before: the bits for throttling and under-voltage before they first changed, in
            the trial or since the sample just before it.
        throttled_after: the same bits after that; where they did not change, the same.
        throttled_throughout: whether all samples of the trial found the machine throttled.
        quiet_before: whether the quiet gate passed; False when it timed out.
        cooled_before: whether the machine had cooled down; False when it did not in time.
        soak: whether the trial is part of a soak.
        cores: logical cores of the machine.
        cpu_percent_mean: of the whole machine (0 to 100, steal not included).
        backend_cpu_percent_mean: of the backend's process tree; 100 = one core.
        agent_cpu_percent: of the agent; 100 = one core.
    """

    failed: bool = False
    round_incomplete: bool = False
    prompt_tokens: int | None = None
    prompt_tokens_evaluated: int | None = None
    output_tokens: int | None = None
    output_tokens_requested: int | None = None
    ignore_eos: bool = True
    clock_step_s: float | None = None
    swap_in_bytes: int | None = None
    cpu_steal_percent_mean: float | None = None
    cpu_freq_hz_min: float | None = None
    cpu_freq_hz_max_of_job: float | None = None
    throttled_before: int | None = None
    throttled_after: int | None = None
    throttled_throughout: bool | None = None
    quiet_before: bool | None = None
    cooled_before: bool | None = None
    soak: bool = False
    cores: int | None = None
    cpu_percent_mean: float | None = None
    backend_cpu_percent_mean: float | None = None
    agent_cpu_percent: float | None = None


@dataclass(frozen=True)
class Thresholds:
    """Where the rules draw their lines; at the line itself a trial still passes.

    Attributes:
        clock_step_s: SUSPECT beyond it, in either direction.
        swap_in_bytes: INVALID beyond it; a few pages of an idle daemon do no harm.
        steal_suspect_percent: SUSPECT beyond it.
        steal_invalid_percent: INVALID beyond it.
        frequency_share: SUSPECT where the lowest sample is below this share of the job's highest.
        unexplained_cpu_percent: SUSPECT where neither backend nor agent used this much CPU;
            100 = one core. Above what an idle system and clock ticks of 10 ms make up.
    """

    clock_step_s: float = 0.05
    swap_in_bytes: int = 4 * _MIB
    steal_suspect_percent: float = 2.0
    steal_invalid_percent: float = 10.0
    frequency_share: float = 0.8
    unexplained_cpu_percent: float = 25.0


DEFAULT = Thresholds()

_Finding = tuple[Verdict, Reason]


def judge(observed: Observed, limits: Thresholds = DEFAULT) -> tuple[Verdict, tuple[str, ...]]:
    """Return the worst verdict that any rule gives, and every reason, in the order of `Reason`."""
    findings = [*_work_done(observed), *_machine(observed, limits)]
    verdicts = {verdict for verdict, _ in findings}
    worst = Verdict.VALID
    if verdicts:
        worst = Verdict.INVALID if Verdict.INVALID in verdicts else Verdict.SUSPECT
    reasons = {reason for _, reason in findings}
    return worst, tuple(reason.value for reason in Reason if reason in reasons)


def _work_done(seen: Observed) -> Iterator[_Finding]:
    """Rules on what the engine did."""
    if seen.failed:
        yield Verdict.INVALID, Reason.FAILURE
    if seen.round_incomplete:
        yield Verdict.INVALID, Reason.INCOMPLETE_ROUND
    if _below(seen.prompt_tokens_evaluated, seen.prompt_tokens):
        yield Verdict.INVALID, Reason.CACHED_PREFIX
    if _below(seen.output_tokens, seen.output_tokens_requested):
        verdict = Verdict.INVALID if seen.ignore_eos else Verdict.SUSPECT
        yield verdict, Reason.FEWER_TOKENS_THAN_ASKED


def _machine(seen: Observed, limits: Thresholds) -> Iterator[_Finding]:
    """Rules on what the machine was doing meanwhile."""
    if seen.clock_step_s is not None and abs(seen.clock_step_s) > limits.clock_step_s:
        yield Verdict.SUSPECT, Reason.CLOCK_STEP
    if _below(limits.swap_in_bytes, seen.swap_in_bytes):
        yield Verdict.INVALID, Reason.SWAP_IN
    if _below(limits.steal_invalid_percent, seen.cpu_steal_percent_mean):
        yield Verdict.INVALID, Reason.CPU_STEAL
    elif _below(limits.steal_suspect_percent, seen.cpu_steal_percent_mean):
        yield Verdict.SUSPECT, Reason.CPU_STEAL
    highest_hz = seen.cpu_freq_hz_max_of_job
    if highest_hz is not None and _below(seen.cpu_freq_hz_min, limits.frequency_share * highest_hz):
        yield Verdict.SUSPECT, Reason.FREQUENCY_DROP
    bits = (seen.throttled_before, seen.throttled_after)
    if None not in bits and bits[0] != bits[1]:
        yield Verdict.SUSPECT if seen.soak else Verdict.INVALID, Reason.THROTTLED
    if seen.throttled_throughout:
        yield Verdict.SUSPECT, Reason.THROTTLED
    if seen.quiet_before is False or _below(
        limits.unexplained_cpu_percent, unexplained_cpu_percent(seen)
    ):
        yield Verdict.SUSPECT, Reason.COMPETING_LOAD
    if seen.cooled_before is False:
        yield Verdict.SUSPECT, Reason.NOT_COOLED


def unexplained_cpu_percent(seen: Observed) -> float | None:
    """Return what neither backend nor agent used (100 = one core); None where any is unknown.

    Formula: cpu_percent_mean x cores - backend_cpu_percent_mean - agent_cpu_percent
    """
    if (
        seen.cpu_percent_mean is None
        or seen.cores is None
        or seen.backend_cpu_percent_mean is None
        or seen.agent_cpu_percent is None
    ):
        return None
    return (
        seen.cpu_percent_mean * seen.cores - seen.backend_cpu_percent_mean - seen.agent_cpu_percent
    )


def _below(value: float | None, limit: float | None) -> bool:
    return value is not None and limit is not None and value < limit
