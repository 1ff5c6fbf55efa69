"""One attempt of one job: start engines, ask what is left to ask, record what came of it."""

import threading
import time
from collections.abc import Callable

import psutil

from fleetmark_agent import pagecache
from fleetmark_agent.adaptive import Ending, Outcome
from fleetmark_agent.behind import Behind
from fleetmark_agent.cooling import Cooler
from fleetmark_agent.course import Course, Round
from fleetmark_agent.engine import Engine, Timed, Tools
from fleetmark_agent.models.stored import StoredModel
from fleetmark_agent.recorder import Recorder
from fleetmark_agent.results import Results, Start, counted_latency_s
from fleetmark_protocol.errors import BackendCrashed, Canceled, JobTimedOut, OutOfMemory
from fleetmark_protocol.messages import JobSpec, Options
from fleetmark_protocol.records import Failure, TrialRecord


class Session:
    """Runs in the runner's thread; `cancel` may be called from any."""

    def __init__(
        self,
        tools: Tools,
        recorder: Recorder,
        spec: JobSpec,
        attempt: int,
        model: StoredModel,
        *,
        quiet: bool,
        cooler: Cooler,
        stopped: Callable[[], bool],
        check_model: Callable[[], None] = lambda: None,
        still_good: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare.

        Args:
            tools: see `Tools`.
            recorder: takes loads and trials.
            spec: the job.
            attempt: its number, from 1.
            model: the file to load.
            quiet: whether the machine was quiet before the start.
            cooler: waits for it to cool down.
            stopped: asked between trials; true after a cancel or at the agent's end.
            check_model: called before each load; may read the whole model if it looks changed.
            still_good: called after each load, with the engine waiting; does no more than look.
                Both raise where the model is not what was checked.
        """
        self._tools = tools
        self._recorder = recorder
        self._spec = spec
        self._attempt = attempt
        self._model = model
        self._cooler = cooler
        self._stopped = stopped
        self._check_model, self._still_good = check_model, still_good
        self._options = _resolved(spec.options)
        self._results = Results(spec, self._options, attempt, model, quiet=quiet)
        self._behind = Behind()
        self._engine: Engine | None = None
        self._closing = threading.Lock()
        self._load_s: float | None = None
        self._requests = 0
        self._deadline_s = time.monotonic() + spec.timeouts.job_s

    def run(self) -> Failure | None:
        """Run all trials that are left; return the first failure of a trial, or None.

        Raises:
            Canceled: asked to stop; the trial under way is not recorded.
            BackendTimeout, BackendError: the load failed, or the worker died.
            JobTimedOut: the job's own deadline passed.
        """
        course = Course(self._spec, self._attempt, self._recorder.joblog.past(self._spec.job_id))
        failures: list[Failure] = []
        try:
            while (asked := course.next()) is not None:
                self._tell(course.endings())
                failures += self._round(course, asked)
            self._tell(course.endings())
            self._behind.catch_up()
        finally:
            self._close_engine()
            self._behind.close()
        return failures[0] if failures else None

    def cancel(self) -> None:
        """Kill what is under way."""
        with self._closing:
            if self._engine is not None:
                self._engine.cancel()

    def _round(self, course: Course, asked: Round) -> list[Failure]:
        """Ask for a round and record it; return the failures that the engine outlived.

        Raises:
            BackendError: the engine did not.
        """
        self._check_stopped()
        if asked.cold:
            # Before anything is dropped from memory: what an engine has mapped stays there.
            self._close_engine()
        elif self._engine is None:
            self._check_model()
            self._start_engine()
        self._cool(asked)
        course.begin(time.monotonic())
        cached_percent = self._restart_engine(asked) if asked.cold else None
        self._check_stopped()
        dones = self._ask(asked)
        opened = dones[0].window.opened
        soak_s = course.opened(opened.mono_ns / 1e9)
        start = Start(opened.time_ns, self._load_s, soak_s, self._cooler.cooled, cached_percent)
        # Only what is asked first after a load finds the engine cold.
        self._load_s = None
        records = self._results.trials(asked, dones, start)
        errors = [done.error for done in dones if done.error is not None]
        latencies_s = [counted_latency_s(record) for record in records]
        outcomes = course.took(asked, latencies_s, time.monotonic(), failed=bool(errors))
        self._record(asked, records, outcomes)
        for error in errors:
            alive = self._engine is not None and self._engine.alive()
            if isinstance(error, (BackendCrashed, OutOfMemory)) or not alive:
                raise error
        if asked.cold:
            self._close_engine()
        return [record.failure for record in records if record.failure is not None]

    def _ask(self, asked: Round) -> list[Timed]:
        engine, trials = self._engine, asked.trials
        if engine is None:
            raise BackendCrashed("the engine was closed before it was asked")
        if trials[0].client is None:
            (trial,) = trials
            return [engine.generate(trial.prompt, trial.workload.output_tokens, trial.trial_id)]
        return engine.generate_round(
            [trial.prompt for trial in trials],
            asked.workload.output_tokens,
            [trial.trial_id for trial in trials],
        )

    def _record(
        self, asked: Round, records: list[TrialRecord], outcomes: tuple[Outcome, ...]
    ) -> None:
        if asked.workload.kind != "soak" or asked.trials[0].warmup:
            self._recorder.trials(records, outcomes)
            return
        self._requests = 1 if asked.opens else self._requests + 1
        self._behind.do(lambda: self._recorder.trials(records, outcomes))
        if outcomes:
            self._behind.catch_up()
            self._tell_soak(asked, outcomes[0].spent_s)

    # --- the engine ----------------------------------------------------------------------------

    def _start_engine(self) -> None:
        """Start an engine and load the model.

        Raises:
            BackendError: it said no, or died.
        """
        engine = Engine(self._tools, self._spec, self._options, self._model, self._deadline_s)
        self._engine = engine
        # A cancel may have come just before there was anything to cancel.
        self._check_stopped()
        done = engine.load()
        self._recorder.load(self._results.load(done))
        if done.error is not None:
            raise done.error
        self._still_good()
        self._load_s = done.answer["load_s"]

    def _restart_engine(self, asked: Round) -> float | None:
        """Start an engine for a round alone; return how much of the weights was in memory then."""
        # Before anything is dropped from memory: it may bring it back.
        self._check_model()
        files = [] if self._model.format == "remote" else pagecache.model_files(self._model.path)
        if asked.workload.kind == "coldstart" and asked.workload.page_cache == "drop":
            pagecache.drop(files)
        cached_percent = pagecache.cached_percent(files)
        self._start_engine()
        return cached_percent

    def _close_engine(self) -> None:
        # Whoever cancels has done so before it is closed, or does not find it any more.
        with self._closing:
            engine, self._engine = self._engine, None
        self._load_s = None
        if engine is not None:
            engine.close()

    # --- between requests ----------------------------------------------------------------------

    def _check_stopped(self) -> None:
        if self._stopped():
            raise Canceled("canceled between trials")

    def _cool(self, asked: Round) -> None:
        """Wait until the machine has cooled down, where each repetition is to begin so.

        Raises:
            JobTimedOut: the job's own deadline passed meanwhile.
        """
        if asked.trials[0].warmup:
            self._cooler.skip()
        elif asked.opens:
            self._cooler.before("repetition", self._deadline_s - time.monotonic())
        if time.monotonic() >= self._deadline_s:
            raise JobTimedOut(f"the job took longer than {self._spec.timeouts.job_s:g} s")

    def _tell(self, endings: list[Ending]) -> None:
        for end in endings:
            width = end.half_width_percent
            known = {} if width is None else {"half_width_percent": width}
            self._recorder.event(
                "info",
                "repetitions_ended",
                f"{end.workload}: {end.repetitions} repetitions, {end.reason}",
                self._spec.job_id,
                workload=end.workload,
                repetitions=end.repetitions,
                reason=end.reason,
                attempt=self._attempt,
                **known,
            )

    def _tell_soak(self, asked: Round, soak_s: float) -> None:
        trial = asked.trials[0]
        self._recorder.event(
            "info",
            "soak_ended",
            f"{trial.workload.name}: {self._requests} requests in {soak_s:.1f} s",
            self._spec.job_id,
            workload=trial.workload.name,
            repetition=trial.repetition,
            attempt=self._attempt,
            requests=self._requests,
            soak_s=soak_s,
            duration_s=trial.workload.duration_s or 0.0,
        )


def _resolved(options: Options) -> Options:
    """Give every backend the same number of threads where the campaign leaves it open."""
    if options.threads is not None:
        return options
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    return options.model_copy(update={"threads": cores})
