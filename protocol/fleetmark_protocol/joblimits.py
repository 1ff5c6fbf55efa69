"""How much one job may ask for, in one place: agents refuse by it, plans foretell by it; pure.

The contract bounds each number; this bounds what they come to together, and what a device's owner
bounds further.
"""

from dataclasses import dataclass

from fleetmark_protocol.messages import JobSpec
from fleetmark_protocol.workloads import Workload

MAX_TRIALS = 100_000
"""All are planned, in memory, before the first begins."""
MAX_WORKLOADS = 1000
THREADS_PER_CORE = 4
FEW_THREADS = 16
"""So many are harmless on any machine."""


@dataclass(frozen=True)
class Allowed:
    """What a device lets one job take; None where that is unknown, or without a limit.

    Attributes:
        cores: logical ones of the device.
        max_job_s: longest that a job may hold it.
        max_context_tokens: over all contexts of an engine.
    """

    cores: int | None = None
    max_job_s: float | None = None
    max_context_tokens: int | None = None


@dataclass(frozen=True)
class Excess:
    """What a job asks for too much, and what to do about it."""

    message: str
    hint: str | None = None


def excess(spec: JobSpec, allowed: Allowed) -> Excess | None:
    """Return what a job asks for more than a device takes; None if it asks for no more."""
    workloads, trials = len(spec.workloads), trials_at_most(spec.workloads)
    if workloads > MAX_WORKLOADS:
        return Excess(f"the job has {workloads} workloads; an agent takes {MAX_WORKLOADS}")
    if trials > MAX_TRIALS:
        return Excess(
            f"the job has {trials:,} trials; an agent takes {MAX_TRIALS:,}",
            "ask for fewer repetitions or prompts, or make several jobs of it",
        )
    job_s, most_s = spec.timeouts.job_s, allowed.max_job_s
    if most_s is not None and job_s > most_s:
        return Excess(
            f"the job may take {job_s:g} s; this device's owner allows {most_s:g} s",
            "set a smaller timeouts.job_s, or let the owner raise runner.max_job_s",
        )
    return _many_threads(spec, allowed.cores) or _large_contexts(spec, allowed.max_context_tokens)


def _many_threads(spec: JobSpec, cores: int | None) -> Excess | None:
    if cores is None:
        return None
    threads, most = spec.options.threads or 1, max(FEW_THREADS, THREADS_PER_CORE * cores)
    if threads <= most:
        return None
    return Excess(
        f"the job asks for {threads} threads; this device has {cores} cores and takes {most}"
    )


def _large_contexts(spec: JobSpec, most: int | None) -> Excess | None:
    asked = spec.options.context_tokens * served_at_once(spec)
    if most is None or asked <= most:
        return None
    return Excess(
        f"the job asks for contexts of {asked:,} tokens; this device's owner allows {most:,}",
        "set a smaller context_tokens or fewer clients, or let the owner raise"
        " runner.max_context_tokens",
    )


def served_at_once(spec: JobSpec) -> int:
    """Return how many requests an engine must be able to serve at once for a job."""
    clients = (one.clients for one in spec.workloads if one.kind == "concurrency")
    return max(spec.options.parallel or 1, *clients, 1)


def trials_at_most(workloads: tuple[Workload, ...]) -> int:
    """Return how many trials workloads make at most; a soak counts as one a repetition.

    Counted, not planned: somebody may ask for billions.
    """
    return sum(trials_of(one, one.repetitions) for one in workloads)


def trials_of(workload: Workload, repetitions: int) -> int:
    """Return how many trials a workload makes with so many repetitions, warm-ups included.

    A warm-up asks the first prompt only, a repetition all of them; where several clients ask at the
    same time, each of their requests is a trial.
    """
    if workload.kind == "concurrency":
        return workload.clients * (workload.warmup + repetitions)
    each = 1 if workload.kind == "soak" else len(workload.prompts)
    return workload.warmup + repetitions * each
