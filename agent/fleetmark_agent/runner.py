"""Takes assignments, runs one job at a time, and reports every change of its state."""

import math
import threading
import time
from collections.abc import Callable

from fleetmark_agent import gate
from fleetmark_agent.assignments import RefusedJob, too_many
from fleetmark_agent.backends.base import Backend, Unpacks, formats_of, slots
from fleetmark_agent.config import AgentSettings
from fleetmark_agent.cooling import Cooler
from fleetmark_agent.engine import Tools
from fleetmark_agent.joblog import Entry
from fleetmark_agent.limits import MAX_OPEN_JOBS, held_too_long
from fleetmark_agent.models.store import ModelStore
from fleetmark_agent.models.stored import StoredModel
from fleetmark_agent.preflight import check_job, check_model, with_slots
from fleetmark_agent.recorder import Recorder, failure_of
from fleetmark_agent.session import Session
from fleetmark_agent.trials import planned_count
from fleetmark_protocol import logs
from fleetmark_protocol.errors import Canceled, FleetmarkError, JobTimedOut
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.messages import Assignment, JobSpec
from fleetmark_protocol.records import Failure

RETRY_S = 1.0


class Runner:
    """Owns the runner thread; `assign`, `withdraw` and `stop` come from others."""

    def __init__(
        self,
        settings: AgentSettings,
        tools: Tools,
        recorder: Recorder,
        models: ModelStore,
        create: Callable[[str], Backend],
        on_change: Callable[[], None],
    ) -> None:
        """Prepare; nothing runs before `start`.

        Args:
            settings: what the device's owner allows.
            tools: passed on to sessions.
            recorder: takes what happens to jobs.
            models: finds, fetches and converts models.
            create: returns the backend of a name, to be asked about itself.
            on_change: called when the inventory has changed (models, jobs).
        """
        self._settings = settings
        self._tools = tools
        self._recorder = recorder
        self._joblog = recorder.joblog
        self._models = models
        self._create = create
        self._on_change = on_change
        self._log = logs.get("runner")
        self._wake = threading.Condition()
        self._stopping = False
        self._hold_until_s = math.inf
        self._current: str | None = None
        self._session: Session | None = None
        self._canceled: set[str] = set()
        self._interrupted: set[str] = set()
        self._thread = threading.Thread(target=self._run_forever, name="runner", daemon=True)

    def start(self) -> None:
        """Go on with what was open when the agent last ended."""
        for entry in self._joblog.open_jobs():
            if entry.state is JobState.IN_PROGRESS:
                self._interrupted.add(entry.spec.job_id)
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """End now; the job under way goes on with its next trial after a restart."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
            if self._session is not None:
                self._session.cancel()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    @property
    def alive(self) -> bool:
        """Whether its thread still takes jobs."""
        return self._thread.is_alive()

    def assign(self, assignment: Assignment) -> None:
        """Take an assignment; the same one may come any number of times."""
        job_id = assignment.job.job_id
        if self._joblog.get(job_id) is None and self._joblog.open_count() >= MAX_OPEN_JOBS:
            self.refuse(too_many(assignment, MAX_OPEN_JOBS))
            return
        entry = self._joblog.accept(assignment.job, assignment.attempts_begun)
        if entry.final is not None:
            # The centre asks although the job has ended here: it has not heard, or has forgotten.
            self._recorder.again(entry.final)
        elif assignment.desired == "cancel":
            self._cancel(job_id)
        else:
            with self._wake:
                self._wake.notify()

    def refuse(self, refused: RefusedJob) -> None:
        """Answer an assignment that is not gone by; a job that is open here goes on."""
        self._recorder.refuse(refused)
        self._log.error("job_refused", job_id=refused.job.job_id, reason=refused.problem.message)
        if refused.head.desired == "cancel":
            self.withdraw(refused.job.job_id)

    def withdraw(self, job_id: str) -> None:
        """Stop a job whose assignment the centre has cleared; nobody waits for it any more."""
        entry = self._joblog.get(job_id)
        if entry is not None and not entry.state.terminal:
            self._cancel(job_id)

    def current_job(self) -> str | None:
        """Return the job under way."""
        return self._current

    def _cancel(self, job_id: str) -> None:
        with self._wake:
            self._canceled.add(job_id)
            if self._current == job_id and self._session is not None:
                self._session.cancel()
            self._wake.notify()

    # --- the runner's thread -------------------------------------------------------------------

    def _run_forever(self) -> None:
        while True:
            jobs = self._joblog.open_jobs()
            with self._wake:
                if self._stopping:
                    return
                if not jobs:
                    self._wake.wait(timeout=1.0)
                    continue
            entry = jobs[0]
            self._current = entry.spec.job_id
            try:
                self._run_job(entry)
            except Canceled:
                # Only when the agent ends: the job is left as it is, and resumed.
                self._log.info("job_parked", job_id=entry.spec.job_id)
            except Exception:  # noqa: BLE001 - the thread must outlive it
                self._log.exception("job_not_ended", job_id=entry.spec.job_id)
                time.sleep(RETRY_S)
            finally:
                self._current, self._hold_until_s = None, math.inf
                self._canceled.discard(entry.spec.job_id)

    def _run_job(self, entry: Entry) -> None:
        spec, started = with_slots(entry.spec), entry.state is JobState.IN_PROGRESS
        self._log.info("job_started", job_id=spec.job_id, backend=spec.backend)
        try:
            if started or entry.attempts_before:
                self._check_interrupted(entry)
            self._stop_if_asked(spec.job_id)
            lock_file = self._settings.runner.lock_file or gate.default_lock_file()
            with gate.machine_lock(
                lock_file, lambda: self._stopped(spec.job_id), lambda: self._waiting(spec.job_id)
            ):
                self._hold_until_s = time.monotonic() + self._settings.runner.max_job_s
                model = self._prepare(spec)
                attempt = self._recorder.begin(spec, planned_count(spec))
                started = True
                failure = self._measure(spec, attempt, model)
        except Canceled as error:
            if self._stopping:
                raise
            self._end(spec, JobState.CANCELED, failure_of(error))
        except JobTimedOut as error:
            self._end(spec, JobState.TIMED_OUT, failure_of(error))
        except FleetmarkError as error:
            self._end(spec, JobState.FAILED if started else JobState.REJECTED, failure_of(error))
        except Exception as error:  # noqa: BLE001
            # A mistake of ours ends this job, not every job after it.
            self._log.exception("job_broke", job_id=spec.job_id)
            broken = FleetmarkError(f"the agent made a mistake: {type(error).__name__}: {error}")
            self._end(spec, JobState.FAILED if started else JobState.REJECTED, failure_of(broken))
        else:
            state = JobState.FAILED if failure else JobState.SUCCEEDED
            self._end(spec, state, failure, whole=True)

    def _check_interrupted(self, entry: Entry) -> None:
        """Report an attempt that the agent did not survive, and whether another is due.

        Raises:
            Interrupted: the job may not go on.
        """
        job_id = entry.spec.job_id
        if job_id in self._interrupted:
            self._interrupted.discard(job_id)
            self._recorder.event(
                "warning",
                "job_interrupted",
                f"attempt {entry.attempt} of {job_id} was interrupted",
                job_id,
                attempt=entry.attempt,
            )
        entry.check_resumable()

    def _prepare(self, spec: JobSpec) -> StoredModel:
        backend = check_job(spec, self._settings, self._create)
        model = self._models.ensure(
            spec.model,
            formats=formats_of(backend, spec.options),
            context_tokens=spec.options.context_tokens,
            contexts=slots(spec.options),
            held_bits=backend.held_bits_per_weight(spec.options)
            if isinstance(backend, Unpacks)
            else None,
            cancelled=lambda: self._stopped(spec.job_id),
        )
        check_model(spec, model.facts, self._create)
        self._on_change()
        return model

    def _measure(self, spec: JobSpec, attempt: int, model: StoredModel) -> Failure | None:
        sampler = self._tools.sampler
        sampler.set_job(spec.job_id)

        def stopped() -> bool:
            return self._stopped(spec.job_id)

        cooler = Cooler(
            spec.cool_down, sampler.latest, stopped, lambda: self._no_temperature(spec.job_id)
        )
        try:
            cooler.before("job")
            quiet = gate.wait_until_quiet(spec.quiet_gate, sampler.latest, stopped)
            session = Session(
                self._tools,
                self._recorder,
                spec,
                attempt,
                model,
                quiet=quiet,
                cooler=cooler,
                stopped=stopped,
                check_model=lambda: self._models.check_unchanged(model, cancelled=stopped),
                still_good=lambda: self._models.check_looks_same(model),
            )
            with self._wake:
                self._session = session
            return session.run()
        finally:
            sampler.set_job(None)
            with self._wake:
                self._session = None

    def _end(
        self, spec: JobSpec, state: JobState, failure: Failure | None, *, whole: bool = False
    ) -> None:
        planned = None if whole else planned_count(spec)
        self._recorder.end(self._recorder.final(spec, state, failure, planned))
        self._log.info(
            "job_ended",
            job_id=spec.job_id,
            state=str(state),
            reason=failure.message if failure else None,
        )
        self._on_change()

    def _stopped(self, job_id: str) -> bool:
        """Whether to stop; asked by whatever a job waits for.

        Raises:
            JobTimedOut: the job has held the device as long as its owner lets one.
        """
        if time.monotonic() > self._hold_until_s:
            raise held_too_long(self._settings.runner.max_job_s)
        return self._stopping or job_id in self._canceled

    def _stop_if_asked(self, job_id: str) -> None:
        if self._stopped(job_id):
            raise Canceled("canceled before it began")

    def _no_temperature(self, job_id: str) -> None:
        self._recorder.event(
            "info",
            "no_temperature",
            f"{job_id} does not wait for the device to cool down: it tells no temperature",
            job_id,
        )

    def _waiting(self, job_id: str) -> None:
        self._recorder.event(
            "info",
            "waiting_for_machine",
            f"{job_id} waits: another agent is measuring on this machine",
            job_id,
        )
        self._log.info("waiting_for_machine", job_id=job_id)
