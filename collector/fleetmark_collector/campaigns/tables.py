"""The tables of campaigns and jobs: their columns, their rows, and what a campaign's state is."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, Literal

from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.records import Failure, JobRecord

SCHEMA_VERSION = 2

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS campaign_schema (version INTEGER NOT NULL)",
    """CREATE TABLE IF NOT EXISTS campaigns (
        campaign_id TEXT PRIMARY KEY, name TEXT NOT NULL, description TEXT NOT NULL,
        file_name TEXT NOT NULL, file_text TEXT NOT NULL, campaign_s REAL NOT NULL,
        created_ns INTEGER NOT NULL, state TEXT NOT NULL, stop_reason TEXT, stop_ns INTEGER,
        finished_ns INTEGER, retry_of TEXT) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS jobs (
        job_id TEXT PRIMARY KEY, campaign_id TEXT NOT NULL REFERENCES campaigns,
        position INTEGER NOT NULL, fleet TEXT NOT NULL, device TEXT NOT NULL, cell TEXT NOT NULL,
        job_s REAL NOT NULL, trials_planned INTEGER NOT NULL, spec TEXT NOT NULL,
        state TEXT NOT NULL, attempt INTEGER NOT NULL, failure TEXT, trials_recorded INTEGER,
        assigned_ns INTEGER, started_ns INTEGER, cleared_ns INTEGER, updated_ns INTEGER NOT NULL,
        retry_of TEXT) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS jobs_by_campaign ON jobs (campaign_id, position)",
    """CREATE TABLE IF NOT EXISTS late_reports (
        fleet TEXT NOT NULL, device TEXT NOT NULL, epoch TEXT NOT NULL, seq INTEGER NOT NULL,
        job_id TEXT NOT NULL, noted_ns INTEGER NOT NULL, record TEXT NOT NULL,
        PRIMARY KEY (fleet, device, epoch, seq)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS job_moves (
        job_id TEXT NOT NULL, time_ns INTEGER NOT NULL, state TEXT NOT NULL,
        attempt INTEGER NOT NULL, failure TEXT)""",
    "CREATE INDEX IF NOT EXISTS moves_by_job ON job_moves (job_id)",
)

MIGRATIONS: dict[int, tuple[str, ...]] = {
    1: (
        "ALTER TABLE campaigns ADD COLUMN retry_of TEXT",
        "ALTER TABLE jobs ADD COLUMN retry_of TEXT",
    ),
}
"""Version -> what makes the tables of the next one of it; tables that are new are made anyway."""

StopReason = Literal["cancel", "timeout"]


class CampaignState(StrEnum):
    """States of a campaign; all but RUNNING are final."""

    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    TIMED_OUT = "TIMED_OUT"

    @property
    def terminal(self) -> bool:
        """Whether the state never changes again."""
        return self is not CampaignState.RUNNING


@dataclass(frozen=True)
class CampaignRow:
    """A campaign as it stands; times are the centre's clock.

    Attributes:
        stop_reason: why no more jobs are sent, if so.
        finished_ns: when its last job became terminal; None while RUNNING.
        retry_of: the campaign whose jobs it runs again, if it is a retry.
    """

    campaign_id: str
    name: str
    description: str
    file_name: str
    campaign_s: float
    created_ns: int
    state: CampaignState
    stop_reason: StopReason | None
    stop_ns: int | None
    finished_ns: int | None
    retry_of: str | None = None


@dataclass(frozen=True)
class JobRow:
    """A job as it stands; times are the centre's clock.

    Attributes:
        cell: what it measures, in words.
        attempt: the newest that the device has begun; 0 before.
        trials_recorded: what the device says it delivered; None until terminal.
        assigned_ns: when it was first sent to the device; None before.
        started_ns: when the centre learned that this attempt had begun.
        cleared_ns: when its assignment was taken off the broker.
        retry_of: the job of an earlier campaign that this one runs again, if it is one.
    """

    job_id: str
    campaign_id: str
    fleet: str
    device: str
    cell: str
    job_s: float
    trials_planned: int
    state: JobState
    attempt: int
    failure: Failure | None
    trials_recorded: int | None
    assigned_ns: int | None
    started_ns: int | None
    cleared_ns: int | None
    updated_ns: int
    retry_of: str | None = None


@dataclass(frozen=True)
class Move:
    """A change of a job's state, at the time of the centre's clock."""

    job_id: str
    time_ns: int
    state: JobState
    attempt: int
    failure: Failure | None


@dataclass(frozen=True)
class LateReport:
    """What a device said of a job whose state here could not change any more."""

    job_id: str
    noted_ns: int
    record: JobRecord


CAMPAIGN_COLUMNS = ", ".join(field.name for field in fields(CampaignRow))
JOB_COLUMNS = ", ".join(field.name for field in fields(JobRow))
MOVE_COLUMNS = ", ".join(field.name for field in fields(Move))


def derive(states: Sequence[JobState], stop_reason: StopReason | None) -> CampaignState:
    """Return a campaign's state from those of its jobs."""
    if not all(state.terminal for state in states):
        return CampaignState.RUNNING
    if all(state is JobState.SUCCEEDED for state in states):
        return CampaignState.SUCCEEDED
    unfinished = {JobState.CANCELED, JobState.TIMED_OUT} & set(states)
    if unfinished and stop_reason == "timeout":
        return CampaignState.TIMED_OUT
    if JobState.CANCELED in unfinished and stop_reason == "cancel":
        return CampaignState.CANCELED
    return CampaignState.FAILED


def campaign_row(row: tuple[Any, ...]) -> CampaignRow:
    """Return a campaign from its `CAMPAIGN_COLUMNS`."""
    campaign = CampaignRow(*row)
    return replace(campaign, state=CampaignState(campaign.state))


def job_row(row: tuple[Any, ...]) -> JobRow:
    """Return a job from its `JOB_COLUMNS`."""
    job = JobRow(*row)
    failure = None if job.failure is None else Failure.model_validate_json(str(job.failure))
    return replace(job, state=JobState(job.state), failure=failure)


def move_row(row: tuple[Any, ...]) -> Move:
    """Return a change of state from its `MOVE_COLUMNS`."""
    move = Move(*row)
    failure = None if move.failure is None else Failure.model_validate_json(str(move.failure))
    return replace(move, state=JobState(move.state), failure=failure)
