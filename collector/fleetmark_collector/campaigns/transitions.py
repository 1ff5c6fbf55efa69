"""Changes the states of jobs and campaigns so that no file ever holds one that cannot be.

Each change is one transaction together with all that follows from it, so that a process that
dies, or another that changes the same at once, leaves nothing half done.
"""

import sqlite3
from collections.abc import Sequence

from fleetmark_collector.campaigns.statefile import StateFile
from fleetmark_collector.campaigns.succession import succeed
from fleetmark_collector.campaigns.tables import (
    MOVE_COLUMNS,
    OPEN,
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
    counts as having passed through it. Where its campaign's rules have it run again, the job that
    does so is there at once; else the campaign ends with its last job.

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
            succeed(db, job_id, state, failure, now_ns)
            settle(db, row[2], now_ns)
    return True


def assign_job(file: StateFile, job_id: str, now_ns: int) -> bool:
    """Mark a QUEUED job as sent; False if it was before, or its campaign stops or is paused."""
    with file.transaction() as db:
        done = db.execute(
            "UPDATE jobs SET assigned_ns = ?, updated_ns = ? WHERE job_id = ? AND state = ? "
            "AND assigned_ns IS NULL AND stop_reason IS NULL "
            "AND (SELECT coalesce(stop_reason, paused_ns) FROM campaigns "
            "WHERE campaign_id = jobs.campaign_id) IS NULL",
            (now_ns, now_ns, job_id, JobState.QUEUED),
        )
        return done.rowcount == 1


def stop_campaign(
    file: StateFile, campaign_id: str, reason: StopReason, failure: Failure | None, now_ns: int
) -> None:
    """Let no more jobs be sent, and end those that never were; the first reason stays."""
    with file.transaction() as db:
        put_stop(db, campaign_id, reason, failure, now_ns)


def put_stop(
    db: sqlite3.Connection,
    campaign_id: str,
    reason: StopReason,
    failure: Failure | None,
    now_ns: int,
) -> None:
    """Do what `stop_campaign` does, as part of a transaction."""
    ended = JobState.TIMED_OUT if reason == "timeout" else JobState.CANCELED
    done = db.execute(
        "UPDATE campaigns SET stop_reason = ?, stop_ns = ?, failure = ?, paused_ns = NULL "
        "WHERE campaign_id = ? AND state = ? AND stop_reason IS NULL",
        (
            reason,
            now_ns,
            _json(failure) if reason == "abort" else None,
            campaign_id,
            CampaignState.RUNNING,
        ),
    )
    if done.rowcount == 0:
        return
    never_sent = "campaign_id = ? AND state = ? AND assigned_ns IS NULL"
    end_jobs(db, never_sent, (campaign_id, JobState.QUEUED), ended, failure, now_ns)
    settle(db, campaign_id, now_ns)


def end_jobs(
    db: sqlite3.Connection,
    where: str,
    those: Sequence[object],
    state: JobState,
    failure: Failure | None,
    now_ns: int,
) -> None:
    """End jobs that are QUEUED or IN_PROGRESS, without successors; `settle` comes after it.

    Args:
        db: in a transaction.
        where: names them, in SQL.
        those: parameters of it.
        state: which they end in; lawful from either.
        failure: why.
        now_ns: the centre's clock.
    """
    for job_id, attempt in db.execute(
        f"SELECT job_id, attempt FROM jobs WHERE {where}",  # noqa: S608
        those,
    ).fetchall():
        _note(db, job_id, now_ns, state, attempt, failure)
    db.execute(
        f"UPDATE jobs SET state = ?, failure = ?, updated_ns = ? WHERE {where}",  # noqa: S608
        (state, _json(failure), now_ns, *those),
    )


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


def settle(db: sqlite3.Connection, campaign_id: str, now_ns: int) -> None:
    """End the campaign if its last job has ended; in the transaction that ended the job."""
    # Asked for each job that ends, so it must not cost more the more jobs there are.
    an_open_one = (
        "SELECT 1 FROM jobs INDEXED BY jobs_open "  # noqa: S608
        f"WHERE campaign_id = ? AND {OPEN} LIMIT 1"
    )
    if db.execute(an_open_one, (campaign_id,)).fetchone() is not None:
        return
    rows = db.execute(
        "SELECT state FROM jobs WHERE campaign_id = ? AND superseded_by IS NULL", (campaign_id,)
    ).fetchall()
    reason, selection = db.execute(
        "SELECT stop_reason, selection FROM campaigns WHERE campaign_id = ?", (campaign_id,)
    ).fetchone()
    joinable = selection == "continuous" and reason is None
    state = derive([JobState(row[0]) for row in rows], reason, joinable=joinable)
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
