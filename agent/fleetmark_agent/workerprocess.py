"""The agent's handle on a worker: start it, ask it with a deadline, kill it as a tree."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from fleetmark_agent.backends.base import ran_out_of_memory
from fleetmark_agent.oomkills import kernel_oom_kills
from fleetmark_protocol.errors import (
    BackendCrashed,
    BackendError,
    BackendTimeout,
    Canceled,
    FleetmarkError,
    ModelRejected,
    OutOfMemory,
    SourceNotAllowed,
    all_errors,
)

POLL_S = 1.0
"""How often the memory cap is looked at while an answer is waited for."""
LOG_TAIL_BYTES = 600
SAID_BYTES = 64 * 1024
"""How much of what an engine printed during one command is searched for a lack of memory."""


class WorkerProcess:
    """One worker; used by the runner's thread, but `cancel` may come from any."""

    def __init__(
        self,
        backend: str,
        log_file: Path,
        too_large: Callable[[int], str | None] = lambda _pid: None,
    ) -> None:
        """Start the process.

        Args:
            backend: name in the registry.
            log_file: takes what the engine prints; overwritten.
            too_large: called with the pid about once a second; says why the tree holds too much
                memory, or None.
        """
        self._too_large = too_large
        self._log_file = log_file
        self._log_start = 0
        self._oom_kills = kernel_oom_kills()
        self._cancel_r, self._cancel_w = os.pipe()
        answers_r, answers_w = os.pipe()
        log_file.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "fleetmark_agent.worker", "--backend", backend]
        command += ["--answers-fd", str(answers_w), "--parent-pid", str(os.getpid())]
        with log_file.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(answers_w,),
                # A dying llama.cpp starts a debugger where there is one; it takes minutes on a
                # small machine, and its words bury the engine's own.
                env={**os.environ, "GGML_NO_BACKTRACE": "1"},
                # Its own group, so that a Ctrl-C at the agent leaves the ending to the agent.
                start_new_session=True,
            )
        os.close(answers_w)
        self._answers = os.fdopen(answers_r, "rb", buffering=0)
        self._partial = b""
        self.pid = self._process.pid

    def ask(self, command: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send a command and return its answer.

        Raises:
            BackendTimeout, OutOfMemory, BackendCrashed, Canceled: the worker is killed then.
            BackendError: the engine said no; the worker lives.
        """
        deadline_s = time.monotonic() + timeout_s
        self._log_start = self._log_file.stat().st_size
        if self._process.stdin is None:
            raise BackendCrashed("the worker has no standard input")
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._why_it_died() from None
        answer = json.loads(self._read_line(deadline_s, timeout_s, str(command["do"])))
        failure = answer.get("failure")
        if failure is not None:
            raise self.error_of(failure)
        return dict(answer)

    def error_of(self, failure: dict[str, Any]) -> FleetmarkError:
        """Return a failure of the command that was asked last as the error that it is."""
        return _typed(failure, self._no_memory_line())

    def alive(self) -> bool:
        """Whether it can be asked again."""
        return self._process.poll() is None

    def cancel(self) -> None:
        """Make the `ask` under way, or the next one, raise Canceled."""
        with contextlib.suppress(OSError):
            os.write(self._cancel_w, b"x")

    def close(self, grace_s: float = 5.0) -> None:
        """Let it end by itself, then kill what is left of it; may be called twice."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        if self._process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)
        self.kill()
        if not self._answers.closed:
            self._answers.close()
            os.close(self._cancel_r)
            os.close(self._cancel_w)

    def kill(self) -> None:
        """Kill the worker, all its descendants, and what is left in its process group."""
        descendants: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            descendants = psutil.Process(self.pid).children(recursive=True)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        for process in descendants:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()

    def _read_line(self, deadline_s: float, timeout_s: float, what: str) -> bytes:
        while b"\n" not in self._partial:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                self.kill()
                raise BackendTimeout(f"{what} took longer than {timeout_s:g} s and was killed")
            watched: list[Any] = [self._answers, self._cancel_r]
            ready, _, _ = select.select(watched, [], [], min(left_s, POLL_S))
            if self._cancel_r in ready:
                self.kill()
                raise Canceled(f"{what} was canceled")
            if self._answers in ready:
                chunk = self._answers.read(1 << 20)
                if not chunk:
                    raise self._why_it_died()
                self._partial += chunk
                continue
            why = self._too_large(self.pid)
            if why is not None:
                self.kill()
                raise OutOfMemory(why)
        line, _, self._partial = self._partial.partition(b"\n")
        return line

    def _why_it_died(self) -> BackendError:
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()
            return BackendCrashed("the worker closed its answers and did not end")
        self.kill()
        if code == -signal.SIGKILL and kernel_oom_kills() > self._oom_kills:
            return OutOfMemory("the kernel killed the worker: the machine is out of memory")
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        line = self._no_memory_line()
        if line is not None:
            return OutOfMemory(f"the worker died ({how}): {line}")
        tail = self._log_tail()
        return BackendCrashed(f"the worker died ({how})" + (f": {tail}" if tail else ""))

    def _no_memory_line(self) -> str | None:
        """Return what the engine printed during this command about memory it did not get."""
        with self._log_file.open("rb") as log:
            log.seek(self._log_start)
            raw = log.read(SAID_BYTES)
        lines = raw.decode("utf-8", "replace").splitlines()
        return next((line.strip() for line in lines if ran_out_of_memory(line)), None)

    def _log_tail(self) -> str:
        raw = self._log_file.read_bytes()[-LOG_TAIL_BYTES:]
        lines = [line.strip() for line in raw.decode("utf-8", "replace").splitlines()]
        return " | ".join(line for line in lines[-3:] if line)


def _typed(failure: dict[str, Any], no_memory_line: str | None) -> FleetmarkError:
    kind = all_errors().get(str(failure.get("code")), BackendError)
    if not issubclass(kind, (BackendError, SourceNotAllowed)):
        kind = BackendError
    message = str(failure.get("message", "no reason given"))
    # Bindings that only say "failed" leave the reason to what their engine printed.
    if no_memory_line is not None and kind in (BackendError, ModelRejected):
        return OutOfMemory(f"{message} ({no_memory_line})")
    return kind(message, hint=failure.get("hint"))
