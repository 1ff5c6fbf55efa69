"""The tables of schedules and of what became of each time they came due."""

from dataclasses import dataclass, fields
from typing import Literal

SCHEDULE_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS schedules (
        name TEXT PRIMARY KEY, file_name TEXT NOT NULL, file_text TEXT NOT NULL,
        keys TEXT NOT NULL, created_ns INTEGER NOT NULL, next_ns INTEGER,
        waiting_ns INTEGER) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS schedule_runs (
        schedule TEXT NOT NULL, due_ns INTEGER NOT NULL, noted_ns INTEGER NOT NULL,
        outcome TEXT NOT NULL, campaign_id TEXT, reason TEXT NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS runs_by_schedule ON schedule_runs (schedule)",
)

Outcome = Literal["started", "queued", "skipped", "missed", "failed"]


@dataclass(frozen=True)
class ScheduleRow:
    """A schedule as it stands; times are the centre's clock.

    Attributes:
        file_text: the campaign file with its prompts in it, so that nothing else is needed.
        keys: `schedule_keys.ScheduleKeys` as JSON.
        next_ns: when it comes due next; None when it never will again.
        waiting_ns: the time that came due and waits for the run before to end; None for none.
    """

    name: str
    file_name: str
    file_text: str
    keys: str
    created_ns: int
    next_ns: int | None
    waiting_ns: int | None


@dataclass(frozen=True)
class RunRow:
    """What became of one time that a schedule came due.

    Attributes:
        due_ns: the time; the last one where several were missed.
        noted_ns: when it was dealt with.
        campaign_id: of the run, if it was started.
        reason: why it was not, or what else is to be said.
    """

    schedule: str
    due_ns: int
    noted_ns: int
    outcome: Outcome
    campaign_id: str | None
    reason: str


SCHEDULE_COLUMNS = ", ".join(field.name for field in fields(ScheduleRow))
RUN_COLUMNS = ", ".join(field.name for field in fields(RunRow))
