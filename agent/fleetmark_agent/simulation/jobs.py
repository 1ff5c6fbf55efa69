"""Jobs on a simulated device: the real job log and recorder, and results that are made up.

What the agent's runner does in a thread is told here as a script that says how long each step
takes, so that one loop plays it for a thousand devices. Gates, locks, model files and the limits of
single loads and trials belong to engines and are left out.
"""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from fleetmark_agent.joblog import Entry
from fleetmark_agent.recorder import Recorder, failure_of
from fleetmark_agent.simulation.figures import Figures
from fleetmark_agent.simulation.loop import Loop
from fleetmark_agent.simulation.results import load_record, run_fields, trial_record
from fleetmark_agent.trials import plan
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
Script = Generator[float, None, T]
"""Yields how many seconds its next step takes."""


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
        entry = self._joblog.accept(assignment.job)
        if entry.final is not None:
            try:
                self._recorder.again(entry.final)
            except Canceled:
                return  # No room now; the centre asks again.
            self._on_record("job")
        elif assignment.desired == "cancel":
            self._cancel(job_id)
        self._next()

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
        state, failure = JobState.SUCCEEDED, None
        try:
            if started:
                self._check_interrupted(entry)
            self._check(spec)
            attempt = yield from self._write(lambda: self._recorder.begin(spec, len(plan(spec))))
            self._on_record("job")
            started = True
            self._on_change()
            yield from self._measure(spec, attempt)
        except FleetmarkError as error:
            state, failure = _ending(error, started), failure_of(error)
        yield from self._end(spec, state, failure)

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

    def _measure(self, spec: JobSpec, attempt: int) -> Script[None]:
        deadline_s = self._loop.clock_s() + spec.timeouts.job_s
        done = self._joblog.marked_trials(spec.job_id)
        todo = [trial for trial in plan(spec) if trial.trial_id not in done]
        run = run_fields(spec, attempt)
        # All trials share one load, unless each is to find the engine cold.
        for trials in [[one] for one in todo] if spec.options.start == "cold" else [todo]:
            load_s: float | None = yield from self._load(spec, run)
            for trial in trials:
                self.now = (spec.job_id, trial.trial_id)
                time_ns = time.time_ns()
                duration_s = self._figures.duration_s(spec, self._offer.trial_s)
                yield from self._wait(spec, duration_s, deadline_s)
                answer = self._figures.answer(
                    spec, trial.prompt, trial.workload.output_tokens, duration_s
                )
                window = self._figures.window(duration_s)
                record = trial_record(run, spec, trial, answer, window, time_ns, load_s)
                yield from self._write(partial(self._recorder.trial, record))
                self._on_record("trial")
                load_s = None

    def _load(self, spec: JobSpec, run: dict[str, Any]) -> Script[float]:
        self._check(spec)
        load_s = self._figures.load_s(spec, self._offer.trial_s)
        yield load_s
        self._check(spec)
        record = load_record(run, load_s, time.time_ns())
        yield from self._write(partial(self._recorder.load, record))
        self._on_record("load")
        return load_s

    def _wait(self, spec: JobSpec, duration_s: float, deadline_s: float) -> Script[None]:
        self._check(spec)
        yield duration_s
        self._check(spec)
        if self._loop.clock_s() > deadline_s:
            raise JobTimedOut(f"the job took longer than {spec.timeouts.job_s:g} s")

    def _end(self, spec: JobSpec, state: JobState, failure: Failure | None) -> Script[None]:
        planned = len(plan(spec))
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
