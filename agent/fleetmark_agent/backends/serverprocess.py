"""An engine's own program under a worker: started, waited for, explained when it dies, stopped."""

import contextlib
import ctypes
import os
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from fleetmark_agent.backends.base import ran_out_of_memory
from fleetmark_agent.oomkills import kernel_oom_kills
from fleetmark_protocol.errors import (
    BackendCrashed,
    BackendError,
    BackendTimeout,
    BackendUnavailable,
    OutOfMemory,
)

PR_SET_PDEATHSIG = 1
READY_POLL_S = 0.01
"""How often a server is asked whether it is ready: the resolution of a measured load."""
STOP_GRACE_S = 5.0
EXPLAIN_WAIT_S = 2.0
"""A process whose connection broke is dead within this time, or it lives."""
TAIL_BYTES = 8192
TAIL_LINES = 4
LINE_CHARS = 240

_LIBC = ctypes.CDLL(None, use_errno=True)


class ServerProcess:
    """One program in this process's group, so that whoever kills the worker kills it too.

    Used by one thread, which must outlive it: the kernel kills the program when the thread that
    started it ends.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        cwd: Path | None = None,
        name: str | None = None,
        pipe_stdout: bool = False,
        death_signal: int = signal.SIGKILL,
    ) -> None:
        """Start a program without waiting for anything.

        Args:
            command: program and arguments; never seen by a shell.
            env: its whole environment; default: this process's own.
            pass_fds: file descriptors that it inherits.
            cwd: its working directory; default: this process's own.
            name: what messages call it; default: the program's own.
            pipe_stdout: make `stdout` readable; otherwise it goes where its errors go: to this
                process's standard error, which is the worker's log.
            death_signal: what the kernel sends it when this process dies; SIGTERM for a program
                that has children of its own and ends them then.

        Raises:
            BackendUnavailable: it cannot be executed.
        """
        self.name = name or Path(command[0]).name
        self._oom_kills = kernel_oom_kills()
        write_to = _open_output()
        # Through /proc, for an offset of its own: reading must not move where the child writes.
        self._output = Path(f"/proc/self/fd/{write_to}").open("rb")  # noqa: SIM115 - see stop
        self._output_start = os.lseek(write_to, 0, os.SEEK_CUR)
        try:
            self._process = subprocess.Popen(
                list(command),
                # The worker's own standard input carries its commands.
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipe_stdout else write_to,
                stderr=write_to,
                env=None if env is None else dict(env),
                pass_fds=pass_fds,
                cwd=cwd,
                preexec_fn=_die_with_parent(os.getpid(), death_signal),
            )
        except OSError as error:
            self._output.close()
            raise BackendUnavailable(f"cannot run {command[0]}: {error.strerror}") from error
        finally:
            os.close(write_to)
        self.pid = self._process.pid

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        cwd: Path | None = None,
        name: str | None = None,
        death_signal: int = signal.SIGKILL,
        ready: Callable[[], bool],
        timeout_s: float,
    ) -> "ServerProcess":
        """Start a server and return once it is ready; it is gone again where this raises.

        Args:
            command: program and arguments; never seen by a shell.
            env: its whole environment; default: this process's own.
            pass_fds: file descriptors that it inherits.
            cwd: its working directory; default: this process's own.
            name: what messages call it; default: the program's own.
            death_signal: what the kernel sends it when this process dies.
            ready: asked about every `READY_POLL_S`; it takes "nobody listens yet" for False, and
                what it raises ends the wait.
            timeout_s: how long to wait.

        Raises:
            BackendUnavailable: it cannot be executed.
            BackendCrashed, OutOfMemory: it died; the message has its last words.
            BackendTimeout: it lives but was not ready in time.
        """
        server = cls(
            command, env=env, pass_fds=pass_fds, cwd=cwd, name=name, death_signal=death_signal
        )
        deadline_s = time.monotonic() + timeout_s
        try:
            while True:
                # In this order: a stranger on the port must not stand for a server that died.
                answered = ready()
                server.check()
                if answered:
                    return server
                if time.monotonic() >= deadline_s:
                    raise BackendTimeout(
                        f"{server.name} was not ready after {timeout_s:g} s{server._last_words()}"
                    )
                time.sleep(READY_POLL_S)
        except BaseException:
            server.stop()
            raise

    @property
    def stdout(self) -> IO[bytes]:
        """What it prints, where that was asked for.

        Raises:
            BackendError: it was not.
        """
        if self._process.stdout is None:
            raise BackendError(f"the output of {self.name} is not read")
        return self._process.stdout

    def check(self) -> None:
        """Return if it lives.

        Raises:
            OutOfMemory: it could not get memory, or the kernel killed it for that.
            BackendCrashed: it ended for another reason.
        """
        if self._process.poll() is not None:
            raise self.why_it_ended()

    def wait(self, timeout_s: float) -> int:
        """Wait for it to end by itself and return its exit code, negative for a signal.

        Raises:
            BackendTimeout: it did not.
        """
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise BackendTimeout(f"{self.name} did not end within {timeout_s:g} s") from None

    def explain(self, error: BackendError) -> BackendError:
        """Return why it ended where that is what broke a connection to it, else `error`."""
        try:
            self._process.wait(EXPLAIN_WAIT_S)
        except subprocess.TimeoutExpired:
            return error
        return self.why_it_ended()

    def why_it_ended(self) -> BackendError:
        """Return the error that tells the end of a process that has ended."""
        code = self._process.returncode
        if code == -signal.SIGKILL and kernel_oom_kills() > self._oom_kills:
            return OutOfMemory(f"the kernel killed {self.name}: the machine is out of memory")
        for line in self.said().splitlines():
            if ran_out_of_memory(line):
                return OutOfMemory(f"{self.name} ran out of memory: {line.strip()[:LINE_CHARS]}")
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return BackendCrashed(f"{self.name} ended ({how}){self._last_words()}")

    def listens(self, port: int) -> bool:
        """Whether it, or what it has started, listens on a TCP port; true if nobody may know."""
        try:
            process = psutil.Process(self.pid)
            return any(
                found.status == psutil.CONN_LISTEN and found.laddr.port == port
                for one in (process, *process.children(recursive=True))
                for found in one.net_connections("tcp")
            )
        except psutil.AccessDenied:
            return True
        except psutil.NoSuchProcess:
            return False

    def said(self) -> str:
        """Return the end of what it has printed so far, its standard output only if not piped."""
        if self._output.closed:
            return ""
        # At a place of its own: several threads may ask why their answers broke off.
        size = os.fstat(self._output.fileno()).st_size
        start = max(self._output_start, size - TAIL_BYTES)
        return os.pread(self._output.fileno(), TAIL_BYTES, start).decode("utf-8", "replace")

    def stop(self) -> None:
        """End it and all it has started; may be called twice, and after it has died."""
        tree: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error):
            if self._process.poll() is None:
                tree = psutil.Process(self.pid).children(recursive=True)
        self._process.terminate()
        try:
            self._process.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        deadline_s = time.monotonic() + STOP_GRACE_S
        while any(_runs(process) for process in tree) and time.monotonic() < deadline_s:
            time.sleep(READY_POLL_S)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._output.close()

    def _last_words(self) -> str:
        lines = [line.strip()[:LINE_CHARS] for line in self.said().splitlines()]
        words = " | ".join([line for line in lines if line][-TAIL_LINES:])
        return f": {words}" if words else ""


def free_port() -> int:
    """Return a TCP port of the loopback that is free now; somebody may take it a moment later."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _runs(process: psutil.Process) -> bool:
    """Whether it has not ended; what only the machine's init has still to reap, has."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _open_output() -> int:
    """Return a new descriptor of the file that a child prints to.

    Standard error itself where that is a file, so that the log is whole while the child runs and
    no thread of ours copies inside a timed window; else a file without a name.
    """
    with contextlib.suppress(OSError):
        if stat.S_ISREG(os.fstat(2).st_mode):
            return os.dup(2)
    with tempfile.TemporaryFile() as own:
        return os.dup(own.fileno())


def _die_with_parent(parent_pid: int, death_signal: int) -> Callable[[], None]:
    """Return what a child calls before it becomes the program: have the kernel kill it after us.

    Between fork and exec only async-signal-safe work is certain to end where other threads held
    locks: so the function is looked up before, and the child makes one system call and a compare.
    """
    prctl = _LIBC.prctl

    def preexec() -> None:
        prctl(PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != parent_pid:
            # The parent died before the kernel knew whom to watch.
            os._exit(1)

    return preexec
