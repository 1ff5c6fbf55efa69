"""Refuses a job that asks for too much, whoever sends it, before anything is fetched or started."""

from fleetmark_agent.config import RunnerSettings
from fleetmark_protocol.errors import JobTimedOut, JobTooLarge
from fleetmark_protocol.joblimits import Allowed, excess
from fleetmark_protocol.messages import JobSpec

MAX_OPEN_JOBS = 32
"""A centre gives a device one job at a time; more are noise, and each may cost a megabyte."""


def check_size(spec: JobSpec, runner: RunnerSettings, cores: int) -> None:
    """Refuse a job that is too large for this device.

    Args:
        spec: the job.
        runner: what the device's owner allows.
        cores: logical ones of this device.

    Raises:
        JobTooLarge: says what it asks for, and how much is allowed.
    """
    too_much = excess(spec, Allowed(cores, runner.max_job_s, runner.max_context_tokens))
    if too_much is not None:
        raise JobTooLarge(too_much.message, hint=too_much.hint)


def held_too_long(limit_s: float) -> JobTimedOut:
    """Return what ends a job that has held the device as long as its owner lets one."""
    return JobTimedOut(
        f"the job has held the device for {limit_s:g} s, which is all that its owner allows",
        hint="the owner may raise runner.max_job_s",
    )
