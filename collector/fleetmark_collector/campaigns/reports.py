"""What a device's reports of a job amount to, whatever their order and however often they came."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from fleetmark_collector.campaigns.tables import JobRow
from fleetmark_collector.sinks.base import Stored
from fleetmark_protocol.errors import CampaignTimedOut, DeviceSilent, FleetmarkError, PartialWrite
from fleetmark_protocol.jobs import JobState, may_move
from fleetmark_protocol.records import Failure, JobRecord


@dataclass(frozen=True)
class Reported:
    """All that a device has said of one job.

    Attributes:
        attempt: the newest attempt that it has begun; 0 if none.
        final: its last word; None while the job goes on there.
    """

    attempt: int
    final: JobRecord | None

    @property
    def since_attempt(self) -> int:
        """The attempt from which trials count; 0 for all."""
        return (self.final.since_attempt or 0) if self.final is not None else 0


def by_job(reports: Iterable[Stored[JobRecord]]) -> defaultdict[str, list[Stored[JobRecord]]]:
    """Return job id -> what was reported of it."""
    found: defaultdict[str, list[Stored[JobRecord]]] = defaultdict(list)
    for one in reports:
        found[one.record.job_id].append(one)
    return found


def fold(job: JobRow, reports: Iterable[Stored[JobRecord]]) -> Reported:
    """Return what the reports of a job amount to; the order they come in does not matter."""
    ours = [one for one in reports if (one.fleet, one.device) == (job.fleet, job.device)]
    begun = [one.record.attempt for one in ours if one.record.state is JobState.IN_PROGRESS]
    ends = [one for one in ours if one.record.state.terminal]
    # One end is all a device should report; of several the first it said counts.
    first = min(ends, key=lambda one: (one.record.time_ns, one.epoch, one.seq), default=None)
    return Reported(max(begun, default=0), first.record if first else None)


def ending(final: JobRecord, begun: bool) -> tuple[JobState, Failure | None]:
    """Return the state in which a job ends here, given the device's last word.

    Args:
        final: what the device said.
        begun: whether the job is IN_PROGRESS here.
    """
    if begun and not may_move(JobState.IN_PROGRESS, final.state):
        # The device rejects what it had begun: to us that job ran and failed.
        return JobState.FAILED, final.failure
    return final.state, final.failure


def failure_of(error: FleetmarkError) -> Failure:
    """Return an error of the centre as the failure of a job."""
    return Failure(code=error.code, message=error.message, retryable=error.retryable)


def missing_trials(final: JobRecord, stored: int) -> Failure:
    """Return the failure of a job whose trials did not all reach the store."""
    return Failure(
        code=PartialWrite.code,
        message=f"the device says {final.state} with {final.trials_recorded} trials recorded, but "
        f"only {stored} of them reached the store (see its dead letters)",
        retryable=PartialWrite.retryable,
    )


def not_heard_of(job: JobRow) -> Failure:
    """Return the failure of a job whose device has been gone for too long."""
    text = f"offline, and not heard of within {job.job_s:g} s of the job's start"
    return failure_of(DeviceSilent(text))


def is_late(job: JobRow, report: Stored[JobRecord]) -> bool:
    """Whether a report tells something that a terminal job cannot take in any more."""
    record = report.record
    if (report.fleet, report.device) != (job.fleet, job.device) or not job.state.terminal:
        return False
    if record.state.terminal and job.trials_recorded is None:
        # Nobody waited for its last word: the job was ended here before it came.
        return True
    if record.state is JobState.CANCELED and job.state is JobState.TIMED_OUT:
        # The answer of a device that was asked to stop because the campaign's time was up.
        return job.failure is None or job.failure.code != CampaignTimedOut.code
    if record.state.terminal:
        return record.state is not job.state
    return record.attempt > job.attempt
