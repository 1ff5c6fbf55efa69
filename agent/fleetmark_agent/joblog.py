"""What the device knows of its jobs: survives restarts, so that work is neither lost nor redone."""

from collections.abc import Iterable
from dataclasses import dataclass

from fleetmark_agent.adaptive import Outcome
from fleetmark_agent.course import Past
from fleetmark_agent.database import Database
from fleetmark_protocol.errors import ContractError, Interrupted
from fleetmark_protocol.jobs import JobState, move
from fleetmark_protocol.messages import JobSpec, KnownJob
from fleetmark_protocol.records import JobRecord

KEPT_TERMINAL_JOBS = 200
"""Finished jobs are remembered so long that a late or repeated assignment can't run them again."""

_OF_TRIALS = ("trials", "outcomes")
_TERMINAL = tuple(state for state in JobState if state.terminal)
_IS_TERMINAL = f"state IN ({', '.join('?' * len(_TERMINAL))})"
_SELECT = (
    "SELECT spec, state, attempt, final, coalesce(attempts_before, 0), coalesce(attempts, 0)"
    " FROM jobs LEFT JOIN heard USING (job_id)"
)

MAX_ATTEMPTS = 5
"""A job that takes the agent down with it each time must not do so for ever."""


@dataclass(frozen=True)
class Entry:
    """One job.

    Attributes:
        spec: what is to be done.
        state: what became of it so far.
        attempt: the newest one that began here; 0 before the first.
        final: the record that ended it.
        attempts_before: how many the centre had heard of when the job came here: this device has
            forgotten them, if it knew of them.
        attempts_heard: how many the centre has heard of, theirs and ours.
    """

    spec: JobSpec
    state: JobState
    attempt: int
    final: JobRecord | None
    attempts_before: int = 0
    attempts_heard: int = 0

    @property
    def since_attempt(self) -> int | None:
        """The attempt that began the job from its start; None for the first of all."""
        if self.spec.resume == "restart" and self.attempt > 1:
            return self.attempt
        return self.attempts_before + 1 if self.attempts_before else None

    def check_resumable(self) -> None:
        """Let another attempt pass.

        Raises:
            Interrupted: the job may not go on.
        """
        begun = max(self.attempt, self.attempts_heard)
        if not self.spec.resume:
            raise Interrupted(f"attempt {begun} was interrupted; the job may not resume")
        if begun >= MAX_ATTEMPTS:
            raise Interrupted(f"interrupted {begun} times")


class JobLog:
    """Jobs in order of arrival, and which of their trials are in the outbox already."""

    def __init__(self, database: Database) -> None:
        """Use the agent's file."""
        self._database = database

    def accept(self, spec: JobSpec, attempts_begun: int = 0) -> Entry:
        """Note a job, QUEUED, unless it is known; return what is known of it.

        Args:
            spec: the job.
            attempts_begun: how many the centre has heard of.
        """
        with self._database.transaction(durable=True) as connection:
            added = connection.execute(
                "INSERT OR IGNORE INTO jobs VALUES"
                " (?, (SELECT coalesce(max(position), 0) + 1 FROM jobs), ?, ?, 0, NULL)",
                (spec.job_id, spec.model_dump_json(), JobState.QUEUED),
            ).rowcount
            if attempts_begun:
                connection.execute(
                    "INSERT INTO heard VALUES (?, ?, ?) ON CONFLICT (job_id)"
                    " DO UPDATE SET attempts = max(attempts, excluded.attempts)",
                    (spec.job_id, attempts_begun if added else 0, attempts_begun),
                )
            entry = self.get(spec.job_id)
        if entry is None:
            raise ContractError(f"job {spec.job_id} vanished while it was noted")
        return entry

    def get(self, job_id: str) -> Entry | None:
        """Return a job, or None if it is not known."""
        with self._database.transaction() as connection:
            row = connection.execute(f"{_SELECT} WHERE job_id = ?", (job_id,)).fetchone()
        return None if row is None else _entry(row)

    def open_jobs(self) -> list[Entry]:
        """Return the jobs that are not terminal: what was begun first, then in order of arrival."""
        return self._select(
            f"WHERE NOT {_IS_TERMINAL} ORDER BY state != ?, position",
            (*_TERMINAL, JobState.IN_PROGRESS),
        )

    def open_count(self) -> int:
        """Return how many jobs are not terminal."""
        with self._database.transaction() as connection:
            found = connection.execute(
                f"SELECT count(*) FROM jobs WHERE NOT {_IS_TERMINAL}",  # noqa: S608
                _TERMINAL,
            ).fetchone()
        return int(found[0])

    def known(self) -> tuple[KnownJob, ...]:
        """Return what the inventory says of jobs: all that are open, and those that ended last."""
        with self._database.transaction():
            ended = self._select(
                f"WHERE {_IS_TERMINAL} ORDER BY position DESC LIMIT ?",
                (*_TERMINAL, KEPT_TERMINAL_JOBS),
            )
            entries = (*reversed(ended), *self.open_jobs())
        return tuple(
            KnownJob(
                job_id=entry.spec.job_id,
                attempt=entry.attempt,
                state=entry.state,
                centre=entry.spec.centre,
            )
            for entry in entries
        )

    def begin(self, job_id: str) -> int:
        """Move a job to IN_PROGRESS and return the number of this attempt, from 1.

        No two attempts of a job have one number, not even where this device has lost its memory.
        """
        with self._database.transaction(durable=True) as connection:
            entry = self._must(job_id)
            state = move(entry.state, JobState.IN_PROGRESS)
            if entry.spec.resume == "restart":
                for table in _OF_TRIALS:
                    connection.execute(f"DELETE FROM {table} WHERE job_id = ?", (job_id,))  # noqa: S608
            attempt = max(entry.attempt, entry.attempts_heard) + 1
            connection.execute(
                "UPDATE jobs SET state = ?, attempt = ? WHERE job_id = ?", (state, attempt, job_id)
            )
        return attempt

    def end(self, record: JobRecord) -> None:
        """Move a job to the terminal state of `record` and forget the oldest ended ones."""
        with self._database.transaction(durable=True) as connection:
            entry = self._must(record.job_id)
            state = move(entry.state, record.state)
            connection.execute(
                "UPDATE jobs SET state = ?, final = ?, spec = ? WHERE job_id = ?",
                (
                    state,
                    record.model_dump_json(),
                    _without_content(entry.spec).model_dump_json(),
                    record.job_id,
                ),
            )
            old = connection.execute(
                f"SELECT job_id FROM jobs WHERE {_IS_TERMINAL}"  # noqa: S608
                " ORDER BY position DESC LIMIT -1 OFFSET ?",
                (*_TERMINAL, KEPT_TERMINAL_JOBS),
            ).fetchall()
            for table in ("jobs", "heard", *_OF_TRIALS):
                connection.executemany(f"DELETE FROM {table} WHERE job_id = ?", old)  # noqa: S608

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

    def note_outcomes(self, job_id: str, outcomes: Iterable[Outcome]) -> None:
        """Note what a later attempt has to know; call it in the transaction that marks trials."""
        rows = [(job_id, one.of, one.latency_s, one.spent_s) for one in outcomes]
        if rows:
            with self._database.transaction(durable=True) as connection:
                connection.executemany("INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?, ?)", rows)

    def past(self, job_id: str) -> Past:
        """Return what earlier attempts of a job have left."""
        with self._database.transaction() as connection:
            rows = connection.execute(
                "SELECT of, latency_s, spent_s FROM outcomes WHERE job_id = ?", (job_id,)
            ).fetchall()
            done = frozenset(self.marked_trials(job_id))
        return Past(done, {row[0]: Outcome(*row) for row in rows})

    def _select(self, which: str, values: tuple[object, ...]) -> list[Entry]:
        with self._database.transaction() as connection:
            rows = connection.execute(f"{_SELECT} {which}", values).fetchall()
        return [_entry(row) for row in rows]

    def _must(self, job_id: str) -> Entry:
        entry = self.get(job_id)
        if entry is None:
            raise ContractError(f"job {job_id} is not known here")
        return entry


def _without_content(spec: JobSpec) -> JobSpec:
    """Return a job that has ended without its prompts: hundreds are kept, and read all at once."""
    work = spec.workloads[0].model_copy(update={"prompts": ("",)})
    return spec.model_copy(update={"workloads": (work,), "labels": {}})


def _entry(row: tuple[str, str, int, str | None, int, int]) -> Entry:
    spec, state, attempt, final, before, heard = row
    return Entry(
        JobSpec.model_validate_json(spec),
        JobState(state),
        attempt,
        None if final is None else JobRecord.model_validate_json(final),
        before,
        heard,
    )
