"""A worker with a model in it, watched while it works: one a job, or one a cold trial."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fleetmark_agent.backends.settings import EnginesSettings
from fleetmark_agent.models.stored import StoredModel
from fleetmark_agent.telemetry.listening import listener_pid
from fleetmark_agent.telemetry.sampler import Sampler, Window
from fleetmark_agent.workerprocess import WorkerProcess
from fleetmark_protocol.errors import BackendTimeout, Canceled, FleetmarkError, JobTimedOut
from fleetmark_protocol.messages import JobSpec, Options

KEPT_LOGS = 100


@dataclass(frozen=True)
class Tools:
    """What a session works with.

    Attributes:
        sampler: watches machine and worker.
        hold: entered around every timed window; nothing is sent inside.
        log_dir: takes what engines print.
        max_backend_bytes: bound of the worker's PSS, or None.
        engines: what the device's owner set for engines.
    """

    sampler: Sampler
    hold: Callable[[], AbstractContextManager[None]]
    log_dir: Path
    max_backend_bytes: int | None
    engines: EnginesSettings = field(default_factory=EnginesSettings)


@dataclass(frozen=True)
class Timed:
    """A command that is over.

    Attributes:
        answer: the worker's; empty after a failure.
        window: what was observed meanwhile.
        error: the failure, or None.
        prepared: whether the engine was made ready for it since its load, just before the window.
    """

    answer: dict[str, Any]
    window: Window
    error: FleetmarkError | None
    prepared: bool = False


def forget_old_logs(directory: Path) -> None:
    """Remove what engines of long ago printed; the outbox needs the disk, too."""
    logs = sorted(directory.glob("*.log"), key=lambda file: file.lstat().st_mtime_ns)
    for file in logs[:-KEPT_LOGS]:
        file.unlink(missing_ok=True)


class Engine:
    """Used by the runner's thread; `cancel` may be called from any."""

    def __init__(
        self, tools: Tools, spec: JobSpec, options: Options, model: StoredModel, deadline_s: float
    ) -> None:
        """Start the worker; no model is loaded yet.

        Args:
            tools: see `Tools`.
            spec: the job.
            options: the job's, resolved.
            model: what to load.
            deadline_s: of the job, on the monotonic clock.
        """
        self._tools = tools
        self._spec = spec
        self._options = options.model_dump()
        self._model = model
        self._deadline_s = deadline_s
        self._prepares = False
        self._prepares_rounds = False
        log_file = tools.log_dir / f"{spec.job_id}.log"
        forget_old_logs(tools.log_dir)
        self._worker = WorkerProcess(spec.backend, log_file, self._too_large)
        tools.sampler.follow(self._worker.pid)

    def load(self) -> Timed:
        """Load the model.

        Raises:
            Canceled: asked to stop.
        """
        command = {
            "do": "load",
            "model": str(self._model.path),
            "options": self._options,
            "engines": self._tools.engines.model_dump(mode="json"),
        }
        done = self._ask(command, self._spec.timeouts.load_s, None)
        self._prepares = done.answer.get("prepares", False)
        self._prepares_rounds = done.answer.get("prepares_rounds", False)
        port = done.answer.get("service_port")
        if port is not None:
            service = listener_pid(port)
            if service is not None:
                self._tools.sampler.follow(self._worker.pid, also=(service,))
        return done

    def generate(self, prompt: str, output_tokens: int, trial_id: str) -> Timed:
        """Run one request.

        Raises:
            Canceled: asked to stop.
        """
        asked = {"prompt": prompt, "options": self._options}
        command = {"do": "generate", "output_tokens": output_tokens, **asked}
        before = {"do": "prepare", **asked} if self._prepares else None
        return self._ask(command, self._spec.timeouts.trial_s, trial_id, before)

    def generate_round(
        self, prompts: Sequence[str], output_tokens: int, trial_ids: Sequence[str]
    ) -> list[Timed]:
        """Have a client for each prompt ask at the same time; return what became of each.

        All have the window of the round: what was observed is the machine's while all worked. The
        samples in it bear the id of the first one's trial. What ends the worker (a deadline, a
        crash) ends the round: it is everybody's failure then.

        Raises:
            Canceled: asked to stop.
        """
        asked = {"prompts": list(prompts), "options": self._options}
        command = {"do": "generate_round", "output_tokens": output_tokens, **asked}
        before = {"do": "prepare_round", **asked} if self._prepares_rounds else None
        done = self._ask(command, self._spec.timeouts.trial_s, trial_ids[0], before)
        done = replace(done, prepared=before is not None)
        if done.error is not None:
            return [done for _ in prompts]
        return [self._of_client(answer, done) for answer in done.answer["clients"]]

    def alive(self) -> bool:
        """Whether its worker can be asked again."""
        return self._worker.alive()

    def cancel(self) -> None:
        """Kill what is under way."""
        self._worker.cancel()

    def close(self) -> None:
        """End the worker and all that it started."""
        self._tools.sampler.follow(None)
        self._worker.close()

    def _of_client(self, answer: dict[str, Any], done: Timed) -> Timed:
        failure = answer.get("failure")
        if failure is not None:
            return replace(done, answer={}, error=self._worker.error_of(failure))
        return replace(done, answer=answer)

    def _ask(
        self,
        command: dict[str, Any],
        limit_s: float,
        trial_id: str | None,
        before: dict[str, Any] | None = None,
    ) -> Timed:
        """Ask the worker inside a window, and `before` it something that nobody watches.

        Raises:
            Canceled: asked to stop.
        """
        answer: dict[str, Any] = {}
        failed: FleetmarkError | None = None
        with self._tools.hold():
            if before is not None:
                _, failed = self._answer(before, limit_s)
            self._tools.sampler.open_window(self._worker.pid, self._spec.job_id, trial_id)
            try:
                if failed is None:
                    answer, failed = self._answer(command, limit_s)
            finally:
                window = self._tools.sampler.close_window()
        return Timed(answer, window, failed)

    def _answer(
        self, command: dict[str, Any], limit_s: float
    ) -> tuple[dict[str, Any], FleetmarkError | None]:
        left_s = self._deadline_s - time.monotonic()
        try:
            return self._worker.ask(command, max(0.0, min(limit_s, left_s))), None
        except Canceled:
            raise
        except BackendTimeout as error:
            return {}, error if limit_s < left_s else self._timed_out()
        except FleetmarkError as error:
            return {}, error

    def _timed_out(self) -> JobTimedOut:
        return JobTimedOut(f"the job took longer than {self._spec.timeouts.job_s:g} s")

    def _too_large(self, _pid: int) -> str | None:
        cap = self._tools.max_backend_bytes
        sample = self._tools.sampler.latest()
        if cap is None or sample is None:
            return None
        held = sample.values.get("pss_bytes", sample.values.get("rss_bytes"))
        if not isinstance(held, int) or held <= cap:
            return None
        return f"the backend held {held} bytes; runner.max_backend_bytes allows {cap}"
