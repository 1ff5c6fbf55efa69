"""Child processes that never outlive their parent, each with its log file."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from fleetmark_protocol.errors import ProcessFailed

PR_SET_PDEATHSIG = 1
STOP_S = 15.0

# Found before any fork: a child of a process with threads should do as little as it can.
_LIBC = ctypes.CDLL(None)


class Processes:
    """Starts Python modules of ours and stops them in the reverse order."""

    def __init__(self, log_dir: Path) -> None:
        """Keep one log for each process in `log_dir`."""
        self._log_dir = log_dir
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def start(self, name: str, module: str, arguments: Sequence[str]) -> None:
        """Start `python -m module arguments`; its output goes to NAME.log."""
        with _interrupted_afterwards():
            self._running.append((name, self._spawn(name, module, arguments)))

    def run(self, name: str, module: str, arguments: Sequence[str]) -> None:
        """Run a module to its end.

        Raises:
            ProcessFailed: it exited with another code than 0.
        """
        with _interrupted_afterwards():
            process = self._spawn(name, module, arguments)
            self._running.append((name, process))
        try:
            code = process.wait()
        finally:
            self._running.remove((name, process))
            self._end(process)
        if code != 0:
            raise self._failed(name, code)

    def check(self) -> None:
        """See that all are running.

        Raises:
            ProcessFailed: one has ended.
        """
        for name, process in self._running:
            code = process.poll()
            if code is not None:
                raise self._failed(name, code)

    def stop(self) -> None:
        """End all, the last one started first; kill what does not end."""
        while self._running:
            _, process = self._running.pop()
            self._end(process)

    def _spawn(self, name: str, module: str, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        self._log_dir.mkdir(parents=True, exist_ok=True)
        parent = os.getpid()

        def die_with_parent() -> None:
            _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)

        with (self._log_dir / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A Ctrl-C is for us: we end them, in order.
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _failed(self, name: str, code: int) -> ProcessFailed:
        log = self._log_dir / f"{name}.log"
        tail = log.read_text("utf-8", "replace").strip().splitlines()[-5:]
        return ProcessFailed(
            f"{name} ended with exit code {code}:\n  " + "\n  ".join(tail),
            hint=f"the whole log is {log}",
        )


@contextlib.contextmanager
def _interrupted_afterwards() -> Iterator[None]:
    """Hold a Ctrl-C back until the end of the block.

    Around a fork Python runs hooks (of `logging`, for one), and swallows what they raise: an
    interrupt that comes just then would be lost.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # where no Ctrl-C ever arrives
        return
    held: list[int] = []
    usual = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
    if held:
        signal.raise_signal(signal.SIGINT)


def wait_until_listening(host: str, port: int, processes: Processes, timeout_s: float) -> None:
    """Wait for somebody to listen.

    Raises:
        ProcessFailed: a process ended meanwhile, or nobody listens in time.
    """
    import socket

    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
            return
        processes.check()
        time.sleep(0.1)
    raise ProcessFailed(f"nobody listens on {host} port {port} after {timeout_s:g} s")
