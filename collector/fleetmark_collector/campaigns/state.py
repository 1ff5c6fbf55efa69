"""Keeps campaigns and jobs in a file, so that whoever restarts goes on where things stand."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fleetmark_collector.campaigns.file import Campaign
from fleetmark_collector.campaigns.plan import Plan
from fleetmark_collector.campaigns.tables import (
    CAMPAIGN_COLUMNS,
    JOB_COLUMNS,
    SCHEMA,
    SCHEMA_VERSION,
    CampaignRow,
    CampaignState,
    JobRow,
    LateReport,
    StopReason,
    campaign_row,
    derive,
    job_row,
)
from fleetmark_collector.sinks.base import Stored
from fleetmark_collector.sqlitefile import connect, transaction, translated
from fleetmark_protocol.errors import ConfigError, StoreError
from fleetmark_protocol.jobs import JobState, may_move
from fleetmark_protocol.messages import JobSpec
from fleetmark_protocol.records import Failure, JobRecord
from fleetmark_protocol.settings import suggestion

_NEVER_NS = 2**63 - 1


class CampaignStore:
    """Campaigns and jobs in a SQLite file, for any number of processes and threads at once."""

    def __init__(self, file: Path, clock: Callable[[], int] = time.time_ns) -> None:
        """Open the file, and make it if need be.

        Args:
            file: shared with the registry of devices.
            clock: nanoseconds since the epoch.

        Raises:
            StoreUnavailable: it cannot be opened now.
            StoreError: it is no SQLite file, or of another version of fleetmark.
        """
        self._file = file
        self._clock = clock
        self._lock = threading.Lock()
        self._db = connect(file, "rwc")
        with self._transaction() as db:
            for statement in SCHEMA:
                db.execute(statement)
            row = db.execute("SELECT version FROM campaign_schema").fetchone()
            if row is None:
                db.execute("INSERT INTO campaign_schema VALUES (?)", (SCHEMA_VERSION,))
            elif row[0] != SCHEMA_VERSION:
                raise StoreError(
                    f"{file}: campaigns of schema {row[0]}; this fleetmark knows {SCHEMA_VERSION}"
                )

    def close(self) -> None:
        """Release the file."""
        with self._lock:
            self._db.close()

    # --- what the operator asks ----------------------------------------------------------------

    def create(self, campaign: Campaign, plan: Plan) -> None:
        """Keep a campaign and its jobs, all QUEUED; the dispatcher takes it from here.

        Raises:
            ConfigError: the plan has problems or no jobs, or the id is taken.
        """
        plan.check()
        if not plan.jobs:
            raise ConfigError(f"{campaign.file}: no job to run")
        now = self._clock()
        with self._transaction() as db:
            taken = db.execute(
                "SELECT 1 FROM campaigns WHERE campaign_id = ?", (plan.campaign_id,)
            ).fetchone()
            if taken:
                raise ConfigError(f"campaign {plan.campaign_id} exists already")
            db.execute(
                "INSERT INTO campaigns VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL, NULL)",
                (
                    plan.campaign_id,
                    campaign.name,
                    campaign.description,
                    str(campaign.file),
                    campaign.text,
                    campaign.campaign_s,
                    now,
                    CampaignState.RUNNING,
                ),
            )
            db.executemany(
                "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, NULL, NULL, NULL, NULL,"
                " NULL, ?)",
                [
                    (
                        job.spec.job_id,
                        plan.campaign_id,
                        position,
                        job.fleet,
                        job.device,
                        str(job.cell),
                        job.spec.timeouts.job_s,
                        job.trials,
                        job.spec.model_dump_json(),
                        JobState.QUEUED,
                        now,
                    )
                    for position, job in enumerate(plan.jobs)
                ],
            )

    def request_cancel(self, campaign_id: str) -> CampaignRow:
        """Stop a campaign: jobs never sent are CANCELED now, the dispatcher asks for the others.

        A campaign that has ended stays as it is.

        Raises:
            ConfigError: there is no such campaign.
        """
        self.stop(campaign_id, "cancel")
        return self.campaign(campaign_id)

    def campaigns(self) -> list[CampaignRow]:
        """Return all campaigns, oldest first."""
        return self._campaigns("ORDER BY created_ns, campaign_id")

    def campaign(self, campaign_id: str) -> CampaignRow:
        """Return one campaign.

        Raises:
            ConfigError: there is no such campaign.
        """
        found = self._campaigns("WHERE campaign_id = ?", (campaign_id,))
        if not found:
            known = [row.campaign_id for row in self.campaigns()]
            raise ConfigError(
                f"no campaign {campaign_id!r}{suggestion(campaign_id, known[-10:])}",
                hint="`fleetmark campaign list` lists all",
            )
        return found[0]

    def has(self, campaign_id: str) -> bool:
        """Whether there is such a campaign."""
        return bool(self._campaigns("WHERE campaign_id = ?", (campaign_id,)))

    def newest(self) -> CampaignRow | None:
        """Return the campaign begun last, if there is any."""
        found = self._campaigns("ORDER BY created_ns DESC, campaign_id DESC LIMIT 1")
        return found[0] if found else None

    def file_text(self, campaign_id: str) -> str:
        """Return the campaign file as it was when the campaign began.

        Raises:
            ConfigError: there is no such campaign.
        """
        rows = self._rows("SELECT file_text FROM campaigns WHERE campaign_id = ?", (campaign_id,))
        if not rows:
            raise ConfigError(f"no campaign {campaign_id!r}")
        return str(rows[0][0])

    def jobs(self, campaign_id: str) -> list[JobRow]:
        """Return the jobs of a campaign in the order of its plan."""
        rows = self._rows(
            f"SELECT {JOB_COLUMNS} FROM jobs WHERE campaign_id = ? ORDER BY position",  # noqa: S608
            (campaign_id,),
        )
        return [job_row(row) for row in rows]

    def spec(self, job_id: str) -> JobSpec:
        """Return what a job asks for; apart from its row, because prompts may be large.

        Raises:
            StoreError: there is no such job.
        """
        rows = self._rows("SELECT spec FROM jobs WHERE job_id = ?", (job_id,))
        if not rows:
            raise StoreError(f"{self._file}: no job {job_id!r}")
        return JobSpec.model_validate_json(rows[0][0])

    def late_reports(self, campaign_id: str) -> list[LateReport]:
        """Return what devices said too late, in the order it was noticed."""
        rows = self._rows(
            "SELECT job_id, noted_ns, record FROM late_reports JOIN jobs USING (job_id) "
            "WHERE campaign_id = ? ORDER BY noted_ns, seq",
            (campaign_id,),
        )
        return [LateReport(row[0], row[1], JobRecord.model_validate_json(row[2])) for row in rows]

    # --- what the dispatcher does --------------------------------------------------------------

    def recent(self, since_ns: int) -> list[CampaignRow]:
        """Return campaigns that run, or ended at or after a time; oldest first."""
        return self._campaigns(
            "WHERE finished_ns IS NULL OR finished_ns >= ? ORDER BY created_ns, campaign_id",
            (since_ns,),
        )

    def set_job_state(
        self,
        job_id: str,
        state: JobState,
        *,
        attempt: int | None = None,
        failure: Failure | None = None,
        trials_recorded: int | None = None,
    ) -> bool:
        """Move a job if the state machine lets it; return whether it moved.

        A device's last word may overtake its first: an end that needs IN_PROGRESS before it
        counts as having passed through it. The campaign ends with its last job.
        """
        now = self._clock()
        with self._transaction() as db:
            row = db.execute(
                "SELECT state, attempt, campaign_id FROM jobs WHERE job_id = ?", (job_id,)
            ).fetchone()
            if row is None:
                raise StoreError(f"{self._file}: no job {job_id!r}")
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
                    None if failure is None else failure.model_dump_json(exclude_none=True),
                    trials_recorded,
                    state is JobState.IN_PROGRESS,
                    now,
                    now,
                    job_id,
                ),
            )
            if state.terminal:
                _settle(db, row[2], now)
        return True

    def assign(self, job_id: str) -> bool:
        """Mark a QUEUED job as sent; return False if it was canceled in the meantime."""
        now = self._clock()
        with self._transaction() as db:
            done = db.execute(
                "UPDATE jobs SET assigned_ns = ?, updated_ns = ? WHERE job_id = ? AND state = ? "
                "AND assigned_ns IS NULL AND (SELECT stop_reason FROM campaigns "
                "WHERE campaign_id = jobs.campaign_id) IS NULL",
                (now, now, job_id, JobState.QUEUED),
            )
            return done.rowcount == 1

    def mark_cleared(self, job_id: str) -> None:
        """Note that a job's assignment was taken off the broker."""
        with self._transaction() as db:
            db.execute("UPDATE jobs SET cleared_ns = ? WHERE job_id = ?", (self._clock(), job_id))

    def to_clear(self, again_since_ns: int | None = None) -> list[JobRow]:
        """Return terminal jobs, of any campaign, whose assignment may still be on the broker.

        Args:
            again_since_ns: return those, too, that were cleared at or after this time.
        """
        rows = self._rows(
            f"SELECT {JOB_COLUMNS} FROM jobs WHERE assigned_ns IS NOT NULL "  # noqa: S608
            "AND (cleared_ns IS NULL OR cleared_ns >= ?) AND state NOT IN (?, ?) "
            "ORDER BY campaign_id, position",
            (
                _NEVER_NS if again_since_ns is None else again_since_ns,
                JobState.QUEUED,
                JobState.IN_PROGRESS,
            ),
        )
        return [job_row(row) for row in rows]

    def stop(self, campaign_id: str, reason: StopReason, failure: Failure | None = None) -> None:
        """Let no more jobs be sent, and end those that never were; the first reason stays."""
        now = self._clock()
        ended = JobState.CANCELED if reason == "cancel" else JobState.TIMED_OUT
        with self._transaction() as db:
            done = db.execute(
                "UPDATE campaigns SET stop_reason = ?, stop_ns = ? "
                "WHERE campaign_id = ? AND state = ? AND stop_reason IS NULL",
                (reason, now, campaign_id, CampaignState.RUNNING),
            )
            if done.rowcount == 0:
                return
            db.execute(
                "UPDATE jobs SET state = ?, failure = ?, updated_ns = ? "
                "WHERE campaign_id = ? AND state = ? AND assigned_ns IS NULL",
                (
                    ended,
                    None if failure is None else failure.model_dump_json(exclude_none=True),
                    now,
                    campaign_id,
                    JobState.QUEUED,
                ),
            )
            _settle(db, campaign_id, now)

    def note_late(self, report: Stored[JobRecord]) -> None:
        """Keep what a device said too late; the same report once."""
        with self._transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO late_reports VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    report.fleet,
                    report.device,
                    report.epoch,
                    report.seq,
                    report.record.job_id,
                    self._clock(),
                    report.record.model_dump_json(exclude_none=True),
                ),
            )

    # --- inside --------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, translated(self._file), transaction(self._db) as db:
            yield db

    def _rows(self, sql: str, args: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._lock, translated(self._file):
            return self._db.execute(sql, args).fetchall()

    def _campaigns(self, rest: str, args: Sequence[object] = ()) -> list[CampaignRow]:
        rows = self._rows(f"SELECT {CAMPAIGN_COLUMNS} FROM campaigns {rest}", args)  # noqa: S608
        return [campaign_row(row) for row in rows]


def _settle(db: sqlite3.Connection, campaign_id: str, now: int) -> None:
    """End the campaign if its last job has ended; in the transaction that ended the job."""
    rows = db.execute("SELECT state FROM jobs WHERE campaign_id = ?", (campaign_id,)).fetchall()
    (reason,) = db.execute(
        "SELECT stop_reason FROM campaigns WHERE campaign_id = ?", (campaign_id,)
    ).fetchone()
    state = derive([JobState(row[0]) for row in rows], reason)
    if state.terminal:
        db.execute(
            "UPDATE campaigns SET state = ?, finished_ns = ? WHERE campaign_id = ? AND state = ?",
            (state, now, campaign_id, CampaignState.RUNNING),
        )


def _reachable(old: JobState, new: JobState) -> bool:
    return may_move(old, new) or (
        may_move(old, JobState.IN_PROGRESS) and may_move(JobState.IN_PROGRESS, new)
    )
