"""How much one job may ask for, whoever sends it: said before anything is fetched or started; pure.

The contract bounds each number; this bounds what they come to together, and what the device's owner
bounds further.
"""

from fleetmark_agent.backends.base import slots
from fleetmark_agent.config import RunnerSettings
from fleetmark_agent.trials import planned_count
from fleetmark_protocol.errors import JobTimedOut, JobTooLarge
from fleetmark_protocol.messages import JobSpec

MAX_TRIALS = 100_000
"""All are planned, in memory, before the first begins."""
MAX_WORKLOADS = 1000
MAX_OPEN_JOBS = 32
"""A centre gives a device one job at a time; more are noise, and each may cost a megabyte."""
THREADS_PER_CORE = 4
FEW_THREADS = 16
"""So many are harmless on any machine."""


def check_size(spec: JobSpec, runner: RunnerSettings, cores: int) -> None:
    """Refuse a job that is too large for this device.

    Args:
        spec: the job, with as many slots as its workloads ask for.
        runner: what the device's owner allows.
        cores: logical ones of this device.

    Raises:
        JobTooLarge: says what it asks for, and how much is allowed.
    """
    workloads, trials = len(spec.workloads), planned_count(spec)
    if workloads > MAX_WORKLOADS:
        raise JobTooLarge(f"the job has {workloads} workloads; an agent takes {MAX_WORKLOADS}")
    if trials > MAX_TRIALS:
        raise JobTooLarge(
            f"the job has {trials:,} trials; an agent takes {MAX_TRIALS:,}",
            hint="ask for fewer repetitions or prompts, or make several jobs of it",
        )
    if spec.timeouts.job_s > runner.max_job_s:
        raise JobTooLarge(
            f"the job may take {spec.timeouts.job_s:g} s; this device's owner allows"
            f" {runner.max_job_s:g} s",
            hint="set a smaller timeouts.job_s, or let the owner raise runner.max_job_s",
        )
    threads, most = spec.options.threads or 1, max(FEW_THREADS, THREADS_PER_CORE * cores)
    if threads > most:
        raise JobTooLarge(
            f"the job asks for {threads} threads; this device has {cores} cores and takes {most}"
        )
    asked, allowed = spec.options.context_tokens * slots(spec.options), runner.max_context_tokens
    if allowed is not None and asked > allowed:
        raise JobTooLarge(
            f"the job asks for contexts of {asked:,} tokens; this device's owner allows"
            f" {allowed:,}",
            hint="set a smaller context_tokens or fewer clients, or let the owner raise"
            " runner.max_context_tokens",
        )


def held_too_long(limit_s: float) -> JobTimedOut:
    """Return what ends a job that has held the device as long as its owner lets one."""
    return JobTimedOut(
        f"the job has held the device for {limit_s:g} s, which is all that its owner allows",
        hint="the owner may raise runner.max_job_s",
    )
