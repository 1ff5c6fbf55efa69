"""Gives a job that has to be run again a successor, in the transaction that ended it.

A state that is final never changes, so what runs again is another job: of the same device, with the
same specification, in the same place of the order. The end of the last of such a chain is what
counts for the campaign.
"""

from dataclasses import dataclass

from fleetmark_collector.campaigns.apart import readable
from fleetmark_collector.campaigns.policy import Policy
from fleetmark_collector.campaigns.retries import next_id
from fleetmark_collector.campaigns.statefile import Connection
from fleetmark_collector.campaigns.tables import JobStop, StopReason
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.messages import JobSpec
from fleetmark_protocol.records import Failure


@dataclass(frozen=True)
class Ended:
    """A job that has just ended, and what decides whether it is run again.

    Attributes:
        retries: how often it was run again already because it went wrong.
        stop_reason: why its device was asked to stop it, if it was.
        recalls: how often it was taken back before it had begun.
        campaign_stop: why its campaign stops, if it does.
    """

    job_id: str
    state: JobState
    failure: Failure | None
    retries: int
    stop_reason: JobStop | None
    recalls: int
    campaign_stop: StopReason | None


@dataclass(frozen=True)
class Again:
    """A job that runs another one again."""

    job_id: str
    retries: int
    not_before_ns: int | None


def again(ended: Ended, policy: Policy, now_ns: int) -> Again | None:
    """Return what runs a job again, if anything does; pure.

    A job that was canceled only because its window closed, or because it was taken back, did
    nothing wrong: that costs none of its retries.
    """
    if ended.campaign_stop is not None or ended.stop_reason == "cancel":
        return None
    job_id = next_id(ended.job_id)
    if ended.state is JobState.CANCELED:
        ours = ended.stop_reason == "window" or ended.recalls > 0
        return Again(job_id, ended.retries, None) if ours else None
    rules = policy.retries
    if rules is None or ended.retries >= rules.max or not rules.worth(ended.state, ended.failure):
        return None
    number = ended.retries + 1
    return Again(job_id, number, now_ns + rules.wait_ns(number, job_id))


def succeed(
    db: Connection, job_id: str, state: JobState, failure: Failure | None, now_ns: int
) -> Again | None:
    """Put the successor of a job that has just ended into the file, if it is to have one."""
    row = db.execute(
        "SELECT retries, jobs.stop_reason, recalls, campaigns.stop_reason, policy, spec "
        "FROM jobs JOIN campaigns USING (campaign_id) WHERE job_id = ?",
        (job_id,),
    ).fetchone()
    *facts, policy, spec = row
    with readable(f"campaign of {job_id}"):
        rules = Policy.model_validate_json(policy)
    made = again(Ended(job_id, state, failure, *facts), rules, now_ns)
    if made is None:
        return None
    with readable(f"job {job_id}"):
        changed = JobSpec.model_validate_json(spec).model_copy(update={"job_id": made.job_id})
    db.execute(
        "INSERT INTO jobs (job_id, campaign_id, position, fleet, device, cell, job_s, "
        "trials_planned, spec, state, attempt, updated_ns, retry_of, retries, not_before_ns, "
        "estimate_s) SELECT ?, campaign_id, position, fleet, device, cell, job_s, "
        "trials_planned, ?, ?, 0, ?, job_id, ?, ?, estimate_s FROM jobs WHERE job_id = ?",
        (
            made.job_id,
            changed.model_dump_json(),
            JobState.QUEUED,
            now_ns,
            made.retries,
            made.not_before_ns,
            job_id,
        ),
    )
    db.execute("UPDATE jobs SET superseded_by = ? WHERE job_id = ?", (made.job_id, job_id))
    return made
