"""What the device knows of its jobs: survives restarts, so that work is neither lost nor redone."""

from dataclasses import dataclass

from fleetmark_agent.database import Database
from fleetmark_protocol.errors import ContractError, Interrupted
from fleetmark_protocol.jobs import JobState, move
from fleetmark_protocol.messages import JobSpec, KnownJob
from fleetmark_protocol.records import JobRecord

KEPT_TERMINAL_JOBS = 200
"""Finished jobs are remembered so long that a late or repeated assignment can't run them again."""

MAX_ATTEMPTS = 5
"""A job that takes the agent down with it each time must not do so for ever."""


@dataclass(frozen=True)
class Entry:
    """One job; `final` is the record that ended it."""

    spec: JobSpec
    state: JobState
    attempt: int
    final: JobRecord | None

    def check_resumable(self) -> None:
        """Let another attempt pass.

        Raises:
            Interrupted: the job may not go on.
        """
        if not self.spec.resume:
            raise Interrupted(f"attempt {self.attempt} was interrupted; the job may not resume")
        if self.attempt >= MAX_ATTEMPTS:
            raise Interrupted(f"interrupted {self.attempt} times")


class JobLog:
    """Jobs in order of arrival, and which of their trials are in the outbox already."""

    def __init__(self, database: Database) -> None:
        """Use the agent's file."""
        self._database = database

    def accept(self, spec: JobSpec) -> Entry:
        """Note a job, QUEUED, unless it is known; return what is known of it."""
        with self._database.transaction(durable=True) as connection:
            connection.execute(
                "INSERT OR IGNORE INTO jobs VALUES"
                " (?, (SELECT coalesce(max(position), 0) + 1 FROM jobs), ?, ?, 0, NULL)",
                (spec.job_id, spec.model_dump_json(), JobState.QUEUED),
            )
            entry = self.get(spec.job_id)
        if entry is None:
            raise ContractError(f"job {spec.job_id} vanished while it was noted")
        return entry

    def get(self, job_id: str) -> Entry | None:
        """Return a job, or None if it is not known."""
        with self._database.transaction() as connection:
            row = connection.execute(
                "SELECT spec, state, attempt, final FROM jobs WHERE job_id = ?", (job_id,)
            ).fetchone()
        return None if row is None else _entry(row)

    def open_jobs(self) -> list[Entry]:
        """Return the jobs that are not terminal: what was begun first, then in order of arrival."""
        return [entry for entry in self._all() if not entry.state.terminal]

    def known(self) -> tuple[KnownJob, ...]:
        """Return what the inventory says of jobs."""
        return tuple(
            KnownJob(job_id=entry.spec.job_id, attempt=entry.attempt, state=entry.state)
            for entry in self._all()[-KEPT_TERMINAL_JOBS:]
        )

    def begin(self, job_id: str) -> int:
        """Move a job to IN_PROGRESS and return the number of this attempt, from 1."""
        with self._database.transaction(durable=True) as connection:
            entry = self._must(job_id)
            state = move(entry.state, JobState.IN_PROGRESS)
            attempt = entry.attempt + 1
            connection.execute(
                "UPDATE jobs SET state = ?, attempt = ? WHERE job_id = ?", (state, attempt, job_id)
            )
        return attempt

    def end(self, record: JobRecord) -> None:
        """Move a job to the terminal state of `record` and forget the oldest ended ones."""
        with self._database.transaction(durable=True) as connection:
            state = move(self._must(record.job_id).state, record.state)
            connection.execute(
                "UPDATE jobs SET state = ?, final = ? WHERE job_id = ?",
                (state, record.model_dump_json(), record.job_id),
            )
            terminal = [s for s in JobState if s.terminal]
            marks = ", ".join("?" * len(terminal))
            old = connection.execute(
                f"SELECT job_id FROM jobs WHERE state IN ({marks})"  # noqa: S608
                " ORDER BY position DESC LIMIT -1 OFFSET ?",
                (*terminal, KEPT_TERMINAL_JOBS),
            ).fetchall()
            connection.executemany("DELETE FROM jobs WHERE job_id = ?", old)
            connection.executemany("DELETE FROM trials WHERE job_id = ?", old)

    def mark_trial(self, job_id: str, trial_id: str) -> None:
        """Note that a trial's record is in the outbox; call it in the transaction that puts it."""
        with self._database.transaction(durable=True) as connection:
            connection.execute("INSERT OR IGNORE INTO trials VALUES (?, ?)", (job_id, trial_id))

    def marked_trials(self, job_id: str) -> set[str]:
        """Return the ids of the trials that are recorded, over all attempts."""
        with self._database.transaction() as connection:
            rows = connection.execute(
                "SELECT trial_id FROM trials WHERE job_id = ?", (job_id,)
            ).fetchall()
        return {trial_id for (trial_id,) in rows}

    def _all(self) -> list[Entry]:
        with self._database.transaction() as connection:
            rows = connection.execute(
                "SELECT spec, state, attempt, final FROM jobs ORDER BY state != ?, position",
                (JobState.IN_PROGRESS,),
            ).fetchall()
        return [_entry(row) for row in rows]

    def _must(self, job_id: str) -> Entry:
        entry = self.get(job_id)
        if entry is None:
            raise ContractError(f"job {job_id} is not known here")
        return entry


def _entry(row: tuple[str, str, int, str | None]) -> Entry:
    spec, state, attempt, final = row
    return Entry(
        JobSpec.model_validate_json(spec),
        JobState(state),
        attempt,
        None if final is None else JobRecord.model_validate_json(final),
    )
