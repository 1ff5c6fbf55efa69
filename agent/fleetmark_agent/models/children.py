"""Runs a short-lived child process so that it can be cancelled, timed and bounded."""

import os
import resource
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fleetmark_agent.models.watch import NOBODY, Watch

POLL_S = 0.2
REFUSED = 3
"""Exit status of a child of ours that says what is wrong with its input; it did not fail."""
SINGLE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""For children that import numpy: its pools would take memory for each core."""
MAX_OUTPUT_BYTES = 4 * 2**20
"""What a child may say; more of it is dropped."""


@dataclass(frozen=True)
class Finished:
    """How a child ended.

    Attributes:
        code: exit status; negative is the signal that killed it.
        output: its standard output.
        errors: the end of its standard error.
    """

    code: int
    output: str
    errors: str


class ChildTimeout(Exception):
    """The child took too long and was killed."""


def run_child(
    command: Sequence[str],
    *,
    timeout_s: float,
    watch: Watch = NOBODY,
    on_line: Callable[[str], None] | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    max_file_bytes: int | None = None,
    max_memory_bytes: int | None = None,
) -> Finished:
    """Run `command` (never through a shell) to its end.

    Args:
        command: program and arguments.
        timeout_s: killed after that.
        watch: asked several times a second whether to go on.
        on_line: called with each line of standard output as it comes.
        cwd: the child's working directory.
        env: added to our own environment.
        max_file_bytes: no file that the child writes may grow larger.
        max_memory_bytes: what the child may allocate; see `limit_memory`.

    Raises:
        Canceled: the watch said so; the child and its children are dead.
        ChildTimeout: it took longer than `timeout_s`; likewise.
    """
    deadline_s = time.monotonic() + timeout_s
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        try:
            _bound(child.pid, resource.RLIMIT_FSIZE, max_file_bytes)
            _bound(child.pid, resource.RLIMIT_DATA, max_memory_bytes)
            output = _read_to_end(child, deadline_s, watch, on_line)
            code = _wait(child, deadline_s, watch)
        finally:
            _kill_tree(child)
        return Finished(code, output, _tail(errors))


def limit_memory(max_bytes: int) -> None:
    """Bound what this process may allocate; files that it maps do not count."""
    resource.setrlimit(resource.RLIMIT_DATA, (max_bytes, max_bytes))


def _bound(pid: int, what: int, most: int | None) -> None:
    if most is None:
        return
    try:
        resource.prlimit(pid, what, (most, most))
    except (OSError, ValueError):
        pass  # it has ended already, or has a lower limit: the quota is checked afterwards too


def _read_to_end(
    child: subprocess.Popen[bytes],
    deadline_s: float,
    watch: Watch,
    on_line: Callable[[str], None] | None,
) -> str:
    assert child.stdout is not None  # noqa: S101 - asked for above; tells the type checker
    descriptor = child.stdout.fileno()
    kept, open_line = bytearray(), b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            _check(deadline_s, watch)
            if not selector.select(POLL_S):
                continue
            chunk = os.read(descriptor, 65536)
            if not chunk:
                return kept.decode("utf-8", "replace")
            kept += chunk[: max(0, MAX_OUTPUT_BYTES - len(kept))]
            if on_line is not None:
                *lines, open_line = (open_line + chunk).split(b"\n")
                for line in lines:
                    on_line(line.decode("utf-8", "replace"))


def _wait(child: subprocess.Popen[bytes], deadline_s: float, watch: Watch) -> int:
    while True:
        _check(deadline_s, watch)
        try:
            return child.wait(POLL_S)
        except subprocess.TimeoutExpired:
            continue


def _check(deadline_s: float, watch: Watch) -> None:
    watch.check()
    if time.monotonic() > deadline_s:
        raise ChildTimeout


def _kill_tree(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    if child.stdout is not None:
        child.stdout.close()


def _tail(errors: IO[bytes], length: int = 8192) -> str:
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - length))
    return errors.read().decode("utf-8", "replace")
