"""The tables of campaigns and jobs: their columns, their rows, and what a campaign's state is."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Literal

from fleetmark_collector.campaigns.apart import readable
from fleetmark_collector.campaigns.bounds import MAX_S
from fleetmark_collector.campaigns.policy import Policy
from fleetmark_collector.campaigns.selection import Selection
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.records import Failure, JobRecord

NS = 1_000_000_000
SCHEMA_VERSION = 3

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS campaign_schema (version INTEGER NOT NULL)",
    """CREATE TABLE IF NOT EXISTS campaigns (
        campaign_id TEXT PRIMARY KEY, name TEXT NOT NULL, description TEXT NOT NULL,
        file_name TEXT NOT NULL, file_text TEXT NOT NULL, campaign_s REAL NOT NULL,
        created_ns INTEGER NOT NULL, state TEXT NOT NULL, stop_reason TEXT, stop_ns INTEGER,
        finished_ns INTEGER, retry_of TEXT, policy TEXT NOT NULL DEFAULT '{}',
        selection TEXT NOT NULL DEFAULT 'snapshot', inlined TEXT, failure TEXT, paused_ns INTEGER,
        paused_before_ns INTEGER NOT NULL DEFAULT 0, schedule TEXT) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS jobs (
        job_id TEXT PRIMARY KEY, campaign_id TEXT NOT NULL REFERENCES campaigns,
        position INTEGER NOT NULL, fleet TEXT NOT NULL, device TEXT NOT NULL, cell TEXT NOT NULL,
        job_s REAL NOT NULL, trials_planned INTEGER NOT NULL, spec TEXT NOT NULL,
        state TEXT NOT NULL, attempt INTEGER NOT NULL, failure TEXT, trials_recorded INTEGER,
        assigned_ns INTEGER, started_ns INTEGER, cleared_ns INTEGER, updated_ns INTEGER NOT NULL,
        retry_of TEXT, superseded_by TEXT, retries INTEGER NOT NULL DEFAULT 0,
        not_before_ns INTEGER, estimate_s REAL, stop_reason TEXT, stop_ns INTEGER,
        recalls INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID""",
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

# SQLite takes an index of a part of the rows only for a query that says the same in the same words.
OPEN = "state IN ('QUEUED', 'IN_PROGRESS') AND superseded_by IS NULL"
"""Jobs that have not ended, in SQL."""
TO_CLEAR = (
    "cleared_ns IS NULL AND (assigned_ns IS NOT NULL OR recalls > 0) "
    "AND state NOT IN ('QUEUED', 'IN_PROGRESS')"
)
"""Jobs that have ended and whose assignment may still be on the broker, in SQL."""

INDEXES = (
    f"CREATE INDEX IF NOT EXISTS jobs_open ON jobs (campaign_id) WHERE {OPEN}",
    f"CREATE INDEX IF NOT EXISTS jobs_to_clear ON jobs (campaign_id, position) WHERE {TO_CLEAR}",
    "CREATE INDEX IF NOT EXISTS jobs_cleared ON jobs (cleared_ns) WHERE cleared_ns IS NOT NULL",
)
"""On columns that the tables of an older fleetmark get first."""

MIGRATIONS: dict[int, tuple[str, ...]] = {
    1: (
        "ALTER TABLE campaigns ADD COLUMN retry_of TEXT",
        "ALTER TABLE jobs ADD COLUMN retry_of TEXT",
    ),
    2: (
        "ALTER TABLE campaigns ADD COLUMN policy TEXT NOT NULL DEFAULT '{}'",
        "ALTER TABLE campaigns ADD COLUMN selection TEXT NOT NULL DEFAULT 'snapshot'",
        "ALTER TABLE campaigns ADD COLUMN inlined TEXT",
        "ALTER TABLE campaigns ADD COLUMN failure TEXT",
        "ALTER TABLE campaigns ADD COLUMN paused_ns INTEGER",
        "ALTER TABLE campaigns ADD COLUMN paused_before_ns INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE campaigns ADD COLUMN schedule TEXT",
        "ALTER TABLE jobs ADD COLUMN superseded_by TEXT",
        "ALTER TABLE jobs ADD COLUMN retries INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE jobs ADD COLUMN not_before_ns INTEGER",
        "ALTER TABLE jobs ADD COLUMN estimate_s REAL",
        "ALTER TABLE jobs ADD COLUMN stop_reason TEXT",
        "ALTER TABLE jobs ADD COLUMN stop_ns INTEGER",
        "ALTER TABLE jobs ADD COLUMN recalls INTEGER NOT NULL DEFAULT 0",
    ),
}
"""Version -> what makes the tables of the next one of it; tables that are new are made anyway."""

StopReason = Literal["cancel", "timeout", "abort"]
JobStop = Literal["cancel", "window"]
"""Why a device is asked to stop one job: somebody wants it so, or its window has closed."""


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
        policy: what the dispatcher goes by.
        selection: whether devices that join later take part.
        failure: why it stopped by itself, if it did.
        paused_ns: since when no job is sent; None while jobs are.
        paused_before_ns: how long it was paused in all before that.
        schedule: what started it, if a schedule did.
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
    policy: Policy = field(default_factory=Policy)
    selection: Selection = "snapshot"
    failure: Failure | None = None
    paused_ns: int | None = None
    paused_before_ns: int = 0
    schedule: str | None = None

    @property
    def joinable(self) -> bool:
        """Whether devices that join now get jobs of it."""
        return (
            self.selection == "continuous" and not self.state.terminal and self.stop_reason is None
        )

    def deadline_ns(self, now_ns: int) -> int:
        """Return when its time is up; while it is paused that moves on."""
        paused_ns = self.paused_before_ns
        if self.paused_ns is not None:
            paused_ns += max(0, now_ns - self.paused_ns)
        # An older version took any number.
        return self.created_ns + int(min(self.campaign_s, MAX_S) * NS) + paused_ns


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
        retry_of: the job that this one runs again, of an earlier campaign or of its own.
        superseded_by: the job of its own campaign that runs it again; that one's end counts.
        retries: how often it was run again because it went wrong, up to this one.
        not_before_ns: when it may be sent at the earliest.
        estimate_s: how long it likely takes; None where nothing told.
        stop_reason: why its device is asked to stop it, apart from its campaign.
        stop_ns: since when.
        recalls: how often it was taken back before it had begun.
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
    superseded_by: str | None = None
    retries: int = 0
    not_before_ns: int | None = None
    estimate_s: float | None = None
    stop_reason: JobStop | None = None
    stop_ns: int | None = None
    recalls: int = 0


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
_STATE, _FAILURE = (JOB_COLUMNS.split(", ").index(name) for name in ("state", "failure"))


def derive(
    states: Sequence[JobState], stop_reason: StopReason | None, *, joinable: bool = False
) -> CampaignState:
    """Return a campaign's state from those of its jobs, of each chain of retries the last.

    Args:
        states: of its jobs.
        stop_reason: why no more jobs are sent, if so.
        joinable: whether devices that are not there yet may still bring jobs.
    """
    if joinable or not all(state.terminal for state in states):
        return CampaignState.RUNNING
    if states and all(state is JobState.SUCCEEDED for state in states):
        return CampaignState.SUCCEEDED
    # Of a campaign that no device ever joined there is no job whose state could tell.
    unfinished = {JobState.CANCELED, JobState.TIMED_OUT} & set(states) or not states
    if unfinished and stop_reason == "timeout":
        return CampaignState.TIMED_OUT
    if stop_reason == "cancel" and (not states or JobState.CANCELED in states):
        return CampaignState.CANCELED
    return CampaignState.FAILED


def campaign_row(row: tuple[Any, ...]) -> CampaignRow:
    """Return a campaign from its `CAMPAIGN_COLUMNS`.

    Raises:
        StoreError: this version cannot read it.
    """
    campaign = CampaignRow(*row)
    with readable(f"campaign {campaign.campaign_id}"):
        return replace(
            campaign,
            state=CampaignState(campaign.state),
            policy=Policy.model_validate_json(str(campaign.policy)),
            failure=_failure(campaign.failure),
        )


def job_row(row: tuple[Any, ...]) -> JobRow:
    """Return a job from its `JOB_COLUMNS`.

    Raises:
        StoreError: this version cannot read it.
    """
    # Very many at each look, so each is made once: with the values that it shall have.
    values = list(row)
    try:
        values[_STATE] = JobState(values[_STATE])
        values[_FAILURE] = _failure(values[_FAILURE])
    except ValueError:
        with readable(f"campaign {row[1]}, job {row[0]}"):
            raise
    return JobRow(*values)


def move_row(row: tuple[Any, ...]) -> Move:
    """Return a change of state from its `MOVE_COLUMNS`."""
    move = Move(*row)
    return replace(move, state=JobState(move.state), failure=_failure(move.failure))


def _failure(text: object) -> Failure | None:
    return None if text is None else Failure.model_validate_json(str(text))
