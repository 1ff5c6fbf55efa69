"""Puts results in the outbox together with what the job log must know, and waits for a full disk.

A result and its mark are one transaction: a crash between them would lose a trial or run it twice.
"""

import time
from collections.abc import Callable, Sequence

from fleetmark_agent.adaptive import Outcome
from fleetmark_agent.assignments import RefusedJob
from fleetmark_agent.database import Database
from fleetmark_agent.joblog import JobLog
from fleetmark_agent.outbox import Outbox
from fleetmark_protocol import logs
from fleetmark_protocol.errors import Canceled, ContractError, FleetmarkError, StoreUnavailable
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.messages import JobSpec
from fleetmark_protocol.records import EventRecord, Failure, JobRecord, LoadRecord, TrialRecord
from fleetmark_protocol.values import clip

RETRY_S = 1.0
MAX_ANSWERS = 1000
"""Answers to assignments that are nothing to do any more, which may wait to be sent."""


class Recorder:
    """Used by the runner's thread; `stopped` lets it give up when the agent ends."""

    def __init__(
        self, database: Database, outbox: Outbox, joblog: JobLog, stopped: Callable[[], bool]
    ) -> None:
        """Prepare.

        Args:
            database: shared by the other two.
            outbox: takes the records.
            joblog: takes the marks.
            stopped: asked while the disk does not take a record.
        """
        self._database = database
        self._outbox = outbox
        self.joblog = joblog
        self._stopped = stopped
        self._log = logs.get("recorder")
        # Job id -> number of the record that answers for it.
        self._answers: dict[str, int] = {}

    def load(self, record: LoadRecord) -> None:
        """Record a model load."""
        self._patiently(lambda: self._outbox.append(record))

    def trial(self, record: TrialRecord) -> None:
        """Record a trial and mark it done."""
        self.trials([record])

    def trials(self, records: Sequence[TrialRecord], outcomes: Sequence[Outcome] = ()) -> None:
        """Record trials that were made together and mark them done: all of them, or none.

        Args:
            records: of one job.
            outcomes: what a later attempt has to know of them.
        """

        def write() -> None:
            for record in records:
                self._outbox.append(record)
                self.joblog.mark_trial(record.job_id, record.trial_id)
            self.joblog.note_outcomes(records[0].job_id, outcomes)

        self._patiently(write)

    def begin(self, spec: JobSpec, planned: int) -> int:
        """Record that a job is IN_PROGRESS; return the number of the attempt."""
        attempt = 0

        def write() -> None:
            nonlocal attempt
            attempt = self.joblog.begin(spec.job_id)
            done = len(self.joblog.marked_trials(spec.job_id))
            entry = self.joblog.get(spec.job_id)
            self._outbox.append(
                JobRecord.model_validate(
                    {
                        "time_ns": time.time_ns(),
                        "campaign_id": spec.campaign_id,
                        "job_id": spec.job_id,
                        "attempt": attempt,
                        "state": "IN_PROGRESS",
                        "trials_recorded": done,
                        "trials_planned": planned,
                        "since_attempt": entry.since_attempt if entry else None,
                    }
                )
            )

        self._patiently(write)
        return attempt

    def final(
        self, spec: JobSpec, state: JobState, failure: Failure | None, planned: int | None
    ) -> JobRecord:
        """Return the record of a job's terminal state, for `end`.

        Args:
            spec: the job.
            state: how it ended.
            failure: why, where it did not succeed.
            planned: how many trials it was to have; None where it has made all that it was to.
        """
        entry = self.joblog.get(spec.job_id)
        recorded = len(self.joblog.marked_trials(spec.job_id))
        return JobRecord(
            time_ns=time.time_ns(),
            campaign_id=spec.campaign_id,
            job_id=spec.job_id,
            # Of a job that never began here, the number of those that did elsewhere.
            attempt=(entry.attempt or entry.attempts_before) if entry else 0,
            state=state,
            trials_recorded=recorded,
            trials_planned=recorded if planned is None else planned,
            since_attempt=entry.since_attempt if entry else None,
            failure=failure,
        )

    def end(self, record: JobRecord) -> None:
        """Record a job's terminal state."""

        def write() -> None:
            self.joblog.end(record)
            self._outbox.append(record)

        self._patiently(write)

    def again(self, record: JobRecord) -> bool:
        """Say once more how a job ended, to a centre that asks as if it did not know.

        Returns:
            Whether there is a record of it more than before.

        Raises:
            StoreUnavailable: no room; whoever was asked (the network's thread) must not wait here.
        """
        return self._answer(record)

    def _answer(self, record: JobRecord) -> bool:
        """Put an answer in the outbox, unless the one of before still waits there.

        Whoever asks again and again and takes no answer must not fill the disk with them: they
        count as results, which have no bound.
        """
        before = self._answers.get(record.job_id)
        if before is not None and self._outbox.holds(before):
            return False
        if len(self._answers) >= MAX_ANSWERS:
            self._answers = {
                job: seq for job, seq in self._answers.items() if self._outbox.holds(seq)
            }
            if len(self._answers) >= MAX_ANSWERS:
                raise ContractError(f"{MAX_ANSWERS} answers to assignments wait; no more are given")
        self._answers[record.job_id] = self._outbox.append(record)
        return True

    def refuse(self, refused: RefusedJob) -> bool:
        """Say of an assignment that is not gone by how its job ends; one that is open here goes on.

        Returns:
            Whether there is a record of it more than before.

        Raises:
            StoreUnavailable: no room; whoever was asked (the network's thread) must not wait here.
        """
        entry = self.joblog.get(refused.job.job_id)
        if entry is not None:
            return entry.final is not None and self.again(entry.final)
        head = refused.head
        state = JobState.CANCELED if head.desired == "cancel" else JobState.REJECTED
        return self._answer(
            JobRecord(
                time_ns=time.time_ns(),
                campaign_id=head.job.campaign_id,
                job_id=head.job.job_id,
                attempt=head.attempts_begun,
                state=state,
                failure=failure_of(refused.problem),
            )
        )

    def event(
        self,
        severity: str,
        code: str,
        message: str,
        job_id: str | None = None,
        **data: str | float | bool,
    ) -> None:
        """Record something an operator should see; on a full disk it is logged only."""
        record = EventRecord.model_validate(
            {
                "time_ns": time.time_ns(),
                "severity": severity,
                "code": code,
                "message": message,
                "job_id": job_id,
                "data": data,
            }
        )
        try:
            self._outbox.append(record)
        except StoreUnavailable as error:
            self._log.warning("event_not_recorded", code=code, error=str(error))

    def _patiently(self, write: Callable[[], object]) -> None:
        told = False
        while True:
            try:
                with self._database.transaction(durable=True):
                    write()
            except StoreUnavailable as error:
                if not told:
                    self._log.error("result_waits_for_disk", error=str(error))
                    told = True
                if self._stopped():
                    raise Canceled("stopped while a result waited for the disk") from error
                time.sleep(RETRY_S)
            else:
                return


def failure_of(error: FleetmarkError) -> Failure:
    """Return an error as it goes on the wire."""
    return Failure(code=error.code, message=clip(str(error)), retryable=error.retryable)
