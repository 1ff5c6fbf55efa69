"""Reads assignments, and refuses in words what this agent would not do as it is meant."""

import json
from dataclasses import dataclass

from pydantic import ValidationError

from fleetmark_protocol import codec
from fleetmark_protocol.errors import (
    ContractError,
    FleetmarkError,
    JobTooLarge,
    VersionMismatch,
)
from fleetmark_protocol.messages import Assignment, AssignmentHead, JobName, JobSpec
from fleetmark_protocol.version import __version__, objection

MAX_NAMED = 5


@dataclass(frozen=True)
class RefusedJob:
    """An assignment that is not gone by, and why."""

    head: AssignmentHead
    problem: FleetmarkError

    @property
    def job(self) -> JobName:
        """Which job it is about."""
        return self.head.job


def read(payload: bytes) -> Assignment | RefusedJob:
    """Return an assignment, or why there is none in it for this agent.

    A job is refused that comes from a collector whose version does not go with ours, that cannot
    be read, or that has keys which we do not know: left out they would change what is measured,
    and nobody would see it. To end a job is right whoever asks for it.

    Raises:
        ContractError: not even the job's name can be read.
    """
    try:
        assignment = codec.decode(Assignment, payload)
    except ContractError as error:
        return _refused(payload, error)
    if assignment.desired == "run":
        problem: FleetmarkError | None
        try:
            problem = _mismatch(assignment.collector_version) or _unknown(payload)
        except (ValueError, RecursionError) as error:
            # Python reads less than what read the message: no numbers of 5000 digits, say.
            problem = ContractError(f"the job cannot be read: {error}")
        if problem is not None:
            return _refused(payload, problem)
    return assignment


def too_many(assignment: Assignment, most: int) -> RefusedJob:
    """Refuse an assignment to a device that has more than enough of them already."""
    head = AssignmentHead(
        desired=assignment.desired,
        job=JobName(job_id=assignment.job.job_id, campaign_id=assignment.job.campaign_id),
        attempts_begun=assignment.attempts_begun,
        collector_version=assignment.collector_version,
    )
    return RefusedJob(head, JobTooLarge(f"{most} jobs wait on this device; it takes no more"))


def _refused(payload: bytes, problem: FleetmarkError) -> RefusedJob:
    try:
        head = codec.decode(AssignmentHead, payload)
    except ContractError as error:
        raise problem if isinstance(problem, ContractError) else error from problem
    return RefusedJob(head, _mismatch(head.collector_version) or problem)


def _mismatch(collector_version: str | None) -> VersionMismatch | None:
    reason = objection(agent=__version__, collector=collector_version)
    return None if reason is None else VersionMismatch(reason)


def _unknown(payload: bytes) -> VersionMismatch | None:
    """Say which keys of a job this version does not know."""
    spec = json.dumps(json.loads(payload)["job"])
    try:
        JobSpec.model_validate_json(spec, strict=True, extra="forbid")
    except ValidationError as error:
        names = sorted(
            {
                ascii(".".join(map(str, problem["loc"])))[1:60].rstrip("'")
                for problem in error.errors(include_url=False, include_input=False)
                if problem["type"] == "extra_forbidden"
            }
        )
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        return VersionMismatch(
            f"agent {__version__} does not know what the job says in"
            f" {', '.join(names[:MAX_NAMED])}{more}",
            hint="upgrade the agent, or leave it out of the campaign",
        )
    return None
