"""One attempt of one job: load the model, run the trials that are not recorded yet, record them."""

import time
from collections.abc import Callable
from typing import Any

import psutil

from fleetmark_agent.engine import Engine, Timed, Tools
from fleetmark_agent.models.stored import StoredModel
from fleetmark_agent.recorder import Recorder, failure_of
from fleetmark_agent.telemetry.sampler import Window
from fleetmark_agent.trials import PlannedTrial, measured_fields, plan
from fleetmark_agent.verdict import Observed, judge
from fleetmark_protocol.errors import BackendCrashed, Canceled, OutOfMemory
from fleetmark_protocol.messages import JobSpec, Options
from fleetmark_protocol.records import Failure, LoadRecord, TrialRecord

MEMORY_FIELDS = ("rss_bytes", "rss_file_bytes", "pss_bytes")
MAX_ENGINE_TEXT = 512
"""What a plain value of a record may hold."""


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
        stopped: Callable[[], bool],
    ) -> None:
        """Prepare.

        Args:
            tools: see `Tools`.
            recorder: takes loads and trials.
            spec: the job.
            attempt: its number, from 1.
            model: the file to load.
            quiet: whether the machine was quiet before the start.
            stopped: asked between trials; true after a cancel or at the agent's end.
        """
        self._tools = tools
        self._recorder = recorder
        self._spec = spec
        self._model = model
        self._quiet = quiet
        self._stopped = stopped
        self._options = _resolved(spec.options)
        self._engine: Engine | None = None
        self._load_s: float | None = None
        self._freq_hz_max: float | None = None
        self._deadline_s = time.monotonic() + spec.timeouts.job_s
        self._run: dict[str, Any] = {
            "campaign_id": spec.campaign_id,
            "job_id": spec.job_id,
            "attempt": attempt,
            "backend": spec.backend,
            "model": spec.model.name,
            "model_sha256": model.sha256,
            "model_origin_sha256": model.origin_sha256,
            "quantization": model.quantization,
            "options": spec.labels,
        }

    def run(self) -> Failure | None:
        """Run all trials that are left; return the first failure of a trial, or None.

        Raises:
            Canceled: asked to stop; the trial under way is not recorded.
            BackendTimeout, BackendError: the load failed, or the worker died.
            JobTimedOut: the job's own deadline passed.
        """
        done = self._recorder.joblog.marked_trials(self._spec.job_id)
        todo = [trial for trial in plan(self._spec) if trial.trial_id not in done]
        # All trials share one engine, unless each is to find it cold.
        rounds = [[trial] for trial in todo] if self._cold else [todo]
        failures = [failure for trials in rounds if trials for failure in self._round(trials)]
        return next((failure for failure in failures if failure is not None), None)

    def cancel(self) -> None:
        """Kill what is under way."""
        if self._engine is not None:
            self._engine.cancel()

    @property
    def _cold(self) -> bool:
        return self._options.start == "cold"

    def _round(self, trials: list[PlannedTrial]) -> list[Failure | None]:
        """Start an engine and run trials with it."""
        self._check_stopped()
        engine = Engine(self._tools, self._spec, self._options, self._model, self._deadline_s)
        self._engine = engine
        try:
            self._check_stopped()
            self._load(engine)
            return [self._trial(engine, trial) for trial in trials]
        finally:
            self._engine = None
            engine.close()

    def _check_stopped(self) -> None:
        if self._stopped():
            raise Canceled("canceled between trials")

    def _load(self, engine: Engine) -> None:
        done = engine.load()
        if done.error is not None:
            self._recorder.load(self._load_record({"failure": failure_of(done.error)}))
            raise done.error
        self._load_s = done.answer["load_s"]
        self._run["backend_version"] = done.answer["version"]
        memory: dict[str, Any] = {}
        if done.answer.get("service_port") is None:
            # An engine outside of our tree is followed once it is known, which is now.
            summary = done.window.summary()
            memory = {name: summary[name] for name in MEMORY_FIELDS if name in summary}
        told = {name: _short(value) for name, value in done.answer["details"].items()}
        self._recorder.load(self._load_record({"load_s": self._load_s, "engine": told, **memory}))

    def _load_record(self, fields: dict[str, Any]) -> LoadRecord:
        return LoadRecord.model_validate(
            {
                **self._run,
                "time_ns": time.time_ns(),
                "model_bytes": self._model.bytes,
                "model_bits_per_weight": self._model.bits_per_weight,
                **fields,
            }
        )

    def _trial(self, engine: Engine, trial: PlannedTrial) -> Failure | None:
        """Run one trial and record it; return its failure where the engine outlived it.

        Raises:
            BackendError: the engine did not.
        """
        self._check_stopped()
        time_ns = time.time_ns()
        done = engine.generate(trial.prompt, trial.workload.output_tokens, trial.trial_id)
        record = self._trial_record(trial, time_ns, self._fields(trial, done), done.window)
        self._recorder.trial(record)
        error = done.error
        if error is not None and (
            isinstance(error, (BackendCrashed, OutOfMemory)) or not engine.alive()
        ):
            raise error
        return record.failure

    def _fields(self, trial: PlannedTrial, done: Timed) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "cpu_percent_before": done.window.before.values.get("cpu_percent")
        }
        if done.error is not None:
            return {**fields, "failure": failure_of(done.error)}
        # Greedy output is the same in every repetition: the first one's ids tell where another
        # engine diverges, the digests of the others that they do not.
        with_ids = self._options.temperature == 0 and trial.repetition == 0
        fields.update(measured_fields(done.answer, with_ids=with_ids))
        if self._cold:
            fields["load_s"] = self._load_s
        if self._load_s is not None and fields.get("latency_s") is not None:
            fields["latency_cold_s"] = self._load_s + fields["latency_s"]
        # Only the first request after a load is cold.
        self._load_s = None
        return fields

    def _trial_record(
        self, trial: PlannedTrial, time_ns: int, fields: dict[str, Any], window: Window
    ) -> TrialRecord:
        summary = window.summary()
        verdict, reasons = judge(self._observed({**summary, **fields}, window, trial))
        return TrialRecord.model_validate(
            {
                **self._run,
                **summary,
                **fields,
                "time_ns": time_ns,
                **trial.fields(cold=self._cold),
                "verdict": verdict,
                "verdict_reasons": reasons,
            }
        )

    def _observed(self, seen: dict[str, Any], window: Window, trial: PlannedTrial) -> Observed:
        highest_hz = max(self._freq_hz_max or 0.0, window.cpu_freq_hz_max or 0.0)
        self._freq_hz_max = highest_hz or None
        throttled_before, throttled_after = window.throttled_change or (None, None)
        return Observed(
            failed="failure" in seen,
            prompt_tokens=seen.get("prompt_tokens"),
            prompt_tokens_evaluated=seen.get("prompt_tokens_evaluated"),
            output_tokens=seen.get("output_tokens"),
            output_tokens_requested=trial.workload.output_tokens,
            ignore_eos=self._options.ignore_eos,
            clock_step_s=window.clock_step_s,
            swap_in_bytes=seen.get("swap_in_bytes"),
            cpu_steal_percent_mean=seen.get("cpu_steal_percent_mean"),
            cpu_freq_hz_min=seen.get("cpu_freq_hz_min"),
            cpu_freq_hz_max_of_job=self._freq_hz_max,
            throttled_before=throttled_before,
            throttled_after=throttled_after,
            throttled_throughout=window.throttled_throughout,
            quiet_before=self._quiet,
            cores=psutil.cpu_count(),
            cpu_percent_mean=seen.get("cpu_percent_mean"),
            backend_cpu_percent_mean=seen.get("backend_cpu_percent_mean"),
            agent_cpu_percent=seen.get("agent_cpu_percent"),
        )


def _resolved(options: Options) -> Options:
    """Give every backend the same number of threads where the campaign leaves it open."""
    if options.threads is not None:
        return options
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    return options.model_copy(update={"threads": cores})


def _short(value: str | int | float | bool) -> str | int | float | bool:
    return value[:MAX_ENGINE_TEXT] if isinstance(value, str) else value
