"""One attempt of one job: load the model, run the trials that are not recorded yet, record them."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from fleetmark_agent.models.stored import StoredModel
from fleetmark_agent.recorder import Recorder, failure_of
from fleetmark_agent.telemetry.sampler import Sampler, Window
from fleetmark_agent.trials import PlannedTrial, measured_fields, plan, sha256_text
from fleetmark_agent.verdict import Observed, judge
from fleetmark_agent.workerprocess import WorkerProcess
from fleetmark_protocol.errors import BackendTimeout, Canceled, FleetmarkError, JobTimedOut
from fleetmark_protocol.messages import JobSpec, Options
from fleetmark_protocol.records import Failure, LoadRecord, TrialRecord

MEMORY_FIELDS = ("rss_bytes", "rss_file_bytes", "pss_bytes")


@dataclass(frozen=True)
class Tools:
    """What a session works with.

    Attributes:
        sampler: watches machine and worker.
        hold: entered around every timed window; nothing is sent inside.
        log_dir: takes what engines print.
        max_backend_bytes: bound of the worker's PSS, or None.
    """

    sampler: Sampler
    hold: Callable[[], AbstractContextManager[None]]
    log_dir: Path
    max_backend_bytes: int | None


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
        self._worker: WorkerProcess | None = None
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
        if not todo:
            return None
        log_file = self._tools.log_dir / f"{self._spec.job_id}.log"
        worker = WorkerProcess(self._spec.backend, log_file, self._too_large)
        self._worker = worker
        try:
            self._tools.sampler.follow(worker.pid)
            self._check_stopped()
            self._load(worker)
            failures = [self._trial(worker, trial) for trial in todo]
        finally:
            self._tools.sampler.follow(None)
            worker.close()
        return next((failure for failure in failures if failure is not None), None)

    def cancel(self) -> None:
        """Kill what is under way."""
        if self._worker is not None:
            self._worker.cancel()

    def _check_stopped(self) -> None:
        if self._stopped():
            raise Canceled("canceled between trials")

    def _load(self, worker: WorkerProcess) -> None:
        command = {
            "do": "load",
            "model": str(self._model.path),
            "options": self._options.model_dump(),
        }
        answer, window, error = self._timed(worker, command, self._spec.timeouts.load_s, None)
        if error is not None:
            self._recorder.load(self._load_record({"failure": failure_of(error)}))
            raise error
        self._load_s = answer["load_s"]
        self._run["backend_version"] = answer["version"]
        summary = window.summary()
        memory = {name: summary[name] for name in MEMORY_FIELDS if name in summary}
        self._recorder.load(self._load_record({"load_s": self._load_s, **memory}))

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

    def _trial(self, worker: WorkerProcess, trial: PlannedTrial) -> Failure | None:
        """Run one trial and record it; return its failure where the worker outlived it.

        Raises:
            BackendError: the worker did not.
        """
        self._check_stopped()
        command = {
            "do": "generate",
            "prompt": trial.prompt,
            "output_tokens": trial.workload.output_tokens,
            "options": self._options.model_dump(),
        }
        time_ns = time.time_ns()
        answer, window, error = self._timed(
            worker, command, self._spec.timeouts.trial_s, trial.trial_id
        )
        fields: dict[str, Any]
        fields = measured_fields(answer) if error is None else {"failure": failure_of(error)}
        fields["cpu_percent_before"] = window.before.values.get("cpu_percent")
        record = self._trial_record(trial, time_ns, fields, window)
        self._recorder.trial(record)
        if error is not None and not worker.alive():
            raise error
        return record.failure

    def _timed(
        self, worker: WorkerProcess, command: dict[str, Any], limit_s: float, trial_id: str | None
    ) -> tuple[dict[str, Any], Window, FleetmarkError | None]:
        """Ask the worker inside a window; return its answer or the failure, and the window.

        Raises:
            Canceled: asked to stop.
        """
        left_s = self._deadline_s - time.monotonic()
        answer: dict[str, Any] = {}
        failed: FleetmarkError | None = None
        with self._tools.hold():
            self._tools.sampler.open_window(worker.pid, self._spec.job_id, trial_id)
            try:
                answer = worker.ask(command, max(0.0, min(limit_s, left_s)))
            except Canceled:
                raise
            except BackendTimeout as error:
                failed = error if limit_s < left_s else self._timed_out()
            except FleetmarkError as error:
                failed = error
            finally:
                window = self._tools.sampler.close_window()
        return answer, window, failed

    def _timed_out(self) -> JobTimedOut:
        return JobTimedOut(f"the job took longer than {self._spec.timeouts.job_s:g} s")

    def _trial_record(
        self, trial: PlannedTrial, time_ns: int, fields: dict[str, Any], window: Window
    ) -> TrialRecord:
        summary = window.summary()
        if self._load_s is not None and fields.get("latency_s") is not None:
            fields["latency_cold_s"] = self._load_s + fields["latency_s"]
            # Only the first request after a load is cold.
            self._load_s = None
        verdict, reasons = judge(self._observed({**summary, **fields}, window, trial))
        return TrialRecord.model_validate(
            {
                **self._run,
                **summary,
                **fields,
                "time_ns": time_ns,
                "trial_id": trial.trial_id,
                "trial_index": trial.index,
                "workload": trial.workload.name,
                "workload_kind": trial.workload.kind,
                "repetition": trial.repetition,
                "prompt_index": trial.prompt_index,
                "warmup": trial.warmup,
                "prompt_sha256": sha256_text(trial.prompt),
                "output_tokens_requested": trial.workload.output_tokens,
                "verdict": verdict,
                "verdict_reasons": reasons,
            }
        )

    def _observed(self, seen: dict[str, Any], window: Window, trial: PlannedTrial) -> Observed:
        highest_hz = max(self._freq_hz_max or 0.0, window.cpu_freq_hz_max or 0.0)
        self._freq_hz_max = highest_hz or None
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
            quiet_before=self._quiet,
            cores=psutil.cpu_count(),
            cpu_percent_mean=seen.get("cpu_percent_mean"),
            backend_cpu_percent_mean=seen.get("backend_cpu_percent_mean"),
            agent_cpu_percent=seen.get("agent_cpu_percent"),
        )

    def _too_large(self, _pid: int) -> str | None:
        cap = self._tools.max_backend_bytes
        sample = self._tools.sampler.latest()
        if cap is None or sample is None:
            return None
        held = sample.values.get("pss_bytes", sample.values.get("rss_bytes"))
        if not isinstance(held, int) or held <= cap:
            return None
        return f"the backend held {held} bytes; runner.max_backend_bytes allows {cap}"


def _resolved(options: Options) -> Options:
    """Give every backend the same number of threads where the campaign leaves it open."""
    if options.threads is not None:
        return options
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    return options.model_copy(update={"threads": cores})
