"""Changes the states of jobs and campaigns so that no file ever holds one that cannot be.

Each change is one transaction together with all that follows from it, so that a process that
dies, or another that changes the same at once, leaves nothing half done.
"""

import sqlite3

from fleetmark_collector.campaigns.statefile import StateFile
from fleetmark_collector.campaigns.tables import (
    MOVE_COLUMNS,
    CampaignState,
    StopReason,
    derive,
)
from fleetmark_protocol.errors import StoreError
from fleetmark_protocol.jobs import JobState, may_move
from fleetmark_protocol.records import Failure


def move_job(
    file: StateFile,
    job_id: str,
    state: JobState,
    now_ns: int,
    *,
    attempt: int | None,
    failure: Failure | None,
    trials_recorded: int | None,
) -> bool:
    """Move a job if the state machine lets it; return whether it moved.

    A device's last word may overtake its first: an end that needs IN_PROGRESS before it
    counts as having passed through it. The campaign ends with its last job.

    Raises:
        StoreError: there is no such job, or the file cannot be used.
    """
    with file.transaction() as db:
        row = db.execute(
            "SELECT state, attempt, campaign_id FROM jobs WHERE job_id = ?", (job_id,)
        ).fetchone()
        if row is None:
            raise StoreError(f"{file.path}: no job {job_id!r}")
        old, old_attempt = JobState(row[0]), int(row[1])
        attempt = old_attempt if attempt is None else max(attempt, old_attempt)
        if not _reachable(old, state):
            return False
        if state is old and attempt == old_attempt:
            return False
        db.execute(
            "UPDATE jobs SET state = ?, attempt = ?, failure = ?, trials_recorded = ?, "
            "started_ns = CASE WHEN ? THEN ? ELSE started_ns END, updated_ns = ? "
            "WHERE job_id = ?",
            (
                state,
                attempt,
                _json(failure),
                trials_recorded,
                state is JobState.IN_PROGRESS,
                now_ns,
                now_ns,
                job_id,
            ),
        )
        _note(db, job_id, now_ns, state, attempt, failure)
        if state.terminal:
            _settle(db, row[2], now_ns)
    return True


def assign_job(file: StateFile, job_id: str, now_ns: int) -> bool:
    """Mark a QUEUED job as sent; return False if it was sent before or its campaign stops."""
    with file.transaction() as db:
        done = db.execute(
            "UPDATE jobs SET assigned_ns = ?, updated_ns = ? WHERE job_id = ? AND state = ? "
            "AND assigned_ns IS NULL AND (SELECT stop_reason FROM campaigns "
            "WHERE campaign_id = jobs.campaign_id) IS NULL",
            (now_ns, now_ns, job_id, JobState.QUEUED),
        )
        return done.rowcount == 1


def stop_campaign(
    file: StateFile, campaign_id: str, reason: StopReason, failure: Failure | None, now_ns: int
) -> None:
    """Let no more jobs be sent, and end those that never were; the first reason stays."""
    ended = JobState.CANCELED if reason == "cancel" else JobState.TIMED_OUT
    with file.transaction() as db:
        done = db.execute(
            "UPDATE campaigns SET stop_reason = ?, stop_ns = ? "
            "WHERE campaign_id = ? AND state = ? AND stop_reason IS NULL",
            (reason, now_ns, campaign_id, CampaignState.RUNNING),
        )
        if done.rowcount == 0:
            return
        never_sent = "campaign_id = ? AND state = ? AND assigned_ns IS NULL"
        those = (campaign_id, JobState.QUEUED)
        for job_id, attempt in db.execute(
            f"SELECT job_id, attempt FROM jobs WHERE {never_sent}",  # noqa: S608
            those,
        ).fetchall():
            _note(db, job_id, now_ns, ended, attempt, failure)
        db.execute(
            f"UPDATE jobs SET state = ?, failure = ?, updated_ns = ? WHERE {never_sent}",  # noqa: S608
            (ended, _json(failure), now_ns, *those),
        )
        _settle(db, campaign_id, now_ns)


def _note(
    db: sqlite3.Connection,
    job_id: str,
    now_ns: int,
    state: JobState,
    attempt: int,
    failure: Failure | None,
) -> None:
    """Keep the change itself: the row of the job shows the newest only."""
    db.execute(
        f"INSERT INTO job_moves ({MOVE_COLUMNS}) VALUES (?, ?, ?, ?, ?)",  # noqa: S608
        (job_id, now_ns, state, attempt, _json(failure)),
    )


def _settle(db: sqlite3.Connection, campaign_id: str, now_ns: int) -> None:
    """End the campaign if its last job has ended; in the transaction that ended the job."""
    rows = db.execute("SELECT state FROM jobs WHERE campaign_id = ?", (campaign_id,)).fetchall()
    (reason,) = db.execute(
        "SELECT stop_reason FROM campaigns WHERE campaign_id = ?", (campaign_id,)
    ).fetchone()
    state = derive([JobState(row[0]) for row in rows], reason)
    if state.terminal:
        db.execute(
            "UPDATE campaigns SET state = ?, finished_ns = ? WHERE campaign_id = ? AND state = ?",
            (state, now_ns, campaign_id, CampaignState.RUNNING),
        )


def _reachable(old: JobState, new: JobState) -> bool:
    return may_move(old, new) or (
        may_move(old, JobState.IN_PROGRESS) and may_move(JobState.IN_PROGRESS, new)
    )


def _json(failure: Failure | None) -> str | None:
    return None if failure is None else failure.model_dump_json(exclude_none=True)
