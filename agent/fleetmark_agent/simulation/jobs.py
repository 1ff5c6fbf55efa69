"""Jobs on a simulated device: the real job log and recorder, and results that are made up.

What the agent's runner does in a thread is told here as a script that says how long each step
takes, so that one loop plays it for a thousand devices. Gates, locks, model files and the limits of
single loads and trials belong to engines and are left out.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from fleetmark_agent.assignments import RefusedJob
from fleetmark_agent.joblog import Entry
from fleetmark_agent.recorder import Recorder, failure_of
from fleetmark_agent.simulation.figures import Figures
from fleetmark_agent.simulation.loop import Loop
from fleetmark_agent.simulation.measuring import Bench, Measurement, Script
from fleetmark_agent.trials import planned_count
from fleetmark_protocol.errors import (
    BackendUnavailable,
    Canceled,
    FleetmarkError,
    JobTimedOut,
    StoreUnavailable,
)
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.messages import Assignment, JobSpec
from fleetmark_protocol.records import EventRecord, Failure

RETRY_S = 1.0

T = TypeVar("T")


@dataclass(frozen=True)
class Offer:
    """What a simulated device does with jobs.

    Attributes:
        backends: names that it takes jobs for; any other is REJECTED.
        trial_s: how long a trial takes, roughly.
    """

    backends: frozenset[str]
    trial_s: float


class SimulatedRunner:
    """Used by the loop's thread alone; `recorder.stopped` must say yes: nothing here may wait."""

    def __init__(
        self,
        recorder: Recorder,
        figures: Figures,
        loop: Loop,
        offer: Offer,
        *,
        on_event: Callable[[EventRecord], None],
        on_record: Callable[[str], None],
        on_change: Callable[[], None],
    ) -> None:
        """Prepare.

        Args:
            recorder: takes what happens to jobs.
            figures: makes results up.
            loop: plays the script.
            offer: which jobs are taken, and how long they take.
            on_event: takes an event for the outbox.
            on_record: called with the kind of each other record that is in the outbox now.
            on_change: called when the jobs of the inventory have changed.
        """
        self._recorder = recorder
        self._joblog = recorder.joblog
        self._figures = figures
        self._loop = loop
        self._offer = offer
        self._on_event = on_event
        self._on_record = on_record
        self._on_change = on_change
        self._script: Script[None] | None = None
        self._step_number = 0
        self._stopped = False
        self._canceled: set[str] = set()
        self._interrupted: set[str] = set()
        self.now: tuple[str, str | None] | None = None
        """Ids of the job and the trial under way."""

    def start(self) -> None:
        """Go on with what was open when the simulation last ended."""
        for entry in self._joblog.open_jobs():
            if entry.state is JobState.IN_PROGRESS:
                self._interrupted.add(entry.spec.job_id)
        self._next()

    def stop(self) -> None:
        """End now; the job under way is resumed by a simulation that goes on with this outbox."""
        self._stopped = True
        self._script = self.now = None

    def assign(self, assignment: Assignment) -> None:
        """Take an assignment; the same one may come any number of times."""
        job_id = assignment.job.job_id
        entry = self._joblog.accept(assignment.job, assignment.attempts_begun)
        if entry.final is not None:
            if self._recorder.again(entry.final):
                self._on_record("job")
        elif assignment.desired == "cancel":
            self._cancel(job_id)
        self._next()

    def refuse(self, refused: RefusedJob) -> None:
        """Answer an assignment that is not gone by; a job that is open here goes on."""
        if self._recorder.refuse(refused):
            self._on_record("job")
        if refused.head.desired == "cancel":
            self.withdraw(refused.job.job_id)

    def withdraw(self, job_id: str) -> None:
        """Stop a job whose assignment the centre has cleared."""
        entry = self._joblog.get(job_id)
        if entry is not None and not entry.state.terminal:
            self._cancel(job_id)
            self._next()

    def _cancel(self, job_id: str) -> None:
        self._canceled.add(job_id)
        if self.now is not None and self.now[0] == job_id:
            # What it waits for is over.
            self._loop.soon(self._step)

    # --- the loop's part -----------------------------------------------------------------------

    def _next(self) -> None:
        if self._script is not None or self._stopped:
            return
        try:
            entries = self._joblog.open_jobs()
        except StoreUnavailable:
            self._loop.after(RETRY_S, self._next)
            return
        for entry in entries[:1]:
            self._script = self._job(entry)
            self._step()

    def _step(self, number: int | None = None) -> None:
        """Take the script's next step; a number is of a wait that may have been cut short."""
        if self._script is None or number not in (None, self._step_number):
            return
        self._step_number += 1
        try:
            wait_s = next(self._script)
        except StopIteration:
            self._script = self.now = None
            self._loop.soon(self._next)
        else:
            self._loop.after(wait_s, partial(self._step, self._step_number))

    # --- the script ----------------------------------------------------------------------------

    def _job(self, entry: Entry) -> Script[None]:
        spec, started = entry.spec, entry.state is JobState.IN_PROGRESS
        self.now = (spec.job_id, None)
        state, failure, whole = JobState.SUCCEEDED, None, True
        try:
            if started or entry.attempts_before:
                self._check_interrupted(entry)
            self._check(spec)
            attempt = yield from self._write(
                lambda: self._recorder.begin(spec, planned_count(spec))
            )
            self._on_record("job")
            started = True
            self._on_change()
            yield from self._measurement(spec, attempt).script()
        except FleetmarkError as error:
            state, failure, whole = _ending(error, started), failure_of(error), False
        yield from self._end(spec, state, failure, None if whole else planned_count(spec))

    def _check_interrupted(self, entry: Entry) -> None:
        job_id = entry.spec.job_id
        if job_id in self._interrupted:
            self._interrupted.discard(job_id)
            self._on_event(
                EventRecord(
                    time_ns=time.time_ns(),
                    severity="warning",
                    code="job_interrupted",
                    message=f"attempt {entry.attempt} of {job_id} was interrupted",
                    job_id=job_id,
                    data={"attempt": entry.attempt},
                )
            )
        entry.check_resumable()

    def _check(self, spec: JobSpec) -> None:
        """Let a job begin or go on.

        Raises:
            Canceled: somebody wants it to stop.
            BackendUnavailable: its backend is none that is simulated.
        """
        if spec.job_id in self._canceled:
            raise Canceled("canceled between trials")
        if spec.backend not in self._offer.backends:
            raise BackendUnavailable(f"backend {spec.backend!r} is not simulated here")

    def _measurement(self, spec: JobSpec, attempt: int) -> Measurement:
        bench = Bench(
            self._recorder,
            self._figures,
            self._loop.clock_s,
            self._offer.trial_s,
            check=lambda: self._check(spec),
            write=self._write,
            on_event=self._on_event,
            on_record=self._on_record,
            on_trial=partial(self._asking, spec.job_id),
        )
        return Measurement(bench, spec, attempt)

    def _asking(self, job_id: str, trial_id: str) -> None:
        self.now = (job_id, trial_id)

    def _end(
        self, spec: JobSpec, state: JobState, failure: Failure | None, planned: int | None
    ) -> Script[None]:
        yield from self._write(
            lambda: self._recorder.end(self._recorder.final(spec, state, failure, planned))
        )
        self._canceled.discard(spec.job_id)
        self._on_record("end")
        self._on_change()

    def _write(self, write: Callable[[], T]) -> Script[T]:
        """Write until the disk takes it."""
        while True:
            try:
                return write()
            except (Canceled, StoreUnavailable):
                # The recorder does not wait for room here, because the whole loop would.
                yield RETRY_S


def _ending(error: FleetmarkError, started: bool) -> JobState:
    if isinstance(error, Canceled):
        return JobState.CANCELED
    if isinstance(error, JobTimedOut):
        return JobState.TIMED_OUT
    return JobState.FAILED if started else JobState.REJECTED
