"""Before a job: one measurement at a time on this machine, and only once it is quiet."""

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fleetmark_agent.telemetry.sampler import Sample
from fleetmark_protocol.errors import Canceled, StoreUnavailable
from fleetmark_protocol.messages import QuietGate

POLL_S = 0.5
QUIET_SAMPLES = 2
"""So many samples in a row must be quiet: one alone may have hit a pause."""


def default_lock_file() -> Path:
    """Return a file that all agents of this machine share, whoever runs them."""
    shared = Path("/run/lock")
    return (shared if shared.is_dir() else Path(tempfile.gettempdir())) / "fleetmark-bench.lock"


@contextmanager
def machine_lock(
    file: Path, stopped: Callable[[], bool], waiting: Callable[[], None]
) -> Iterator[None]:
    """Hold the machine for one job; the kernel lets go when the process dies, however it dies.

    Args:
        file: the lock; reading it is enough, so that agents of different users share one.
        stopped: asked while waiting.
        waiting: called once if another agent has it.

    Raises:
        Canceled: `stopped` said so.
        StoreUnavailable: the file cannot be made.
    """
    try:
        handle = _open(file)
    except OSError as error:
        raise StoreUnavailable(f"runner.lock_file {file}: {error.strerror}") from error
    try:
        told = False
        while not _try_lock(handle):
            if stopped():
                raise Canceled("canceled while another agent was measuring on this machine")
            if not told:
                waiting()
                told = True
            time.sleep(POLL_S)
        yield
    finally:
        os.close(handle)


def _open(file: Path) -> int:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        # Without O_CREAT first: the kernel refuses that on another user's file in /tmp.
        return os.open(file, flags)
    except FileNotFoundError:
        return os.open(file, flags | os.O_CREAT, 0o644)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_until_quiet(
    gate: QuietGate,
    latest: Callable[[], Sample | None],
    stopped: Callable[[], bool],
    clock_s: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait for the machine to be quiet; return False if it was not within the gate's time.

    Raises:
        Canceled: `stopped` said so.
    """
    deadline_s = clock_s() + gate.timeout_s
    seen_ns, quiet = 0, 0
    while True:
        sample = latest()
        if sample is not None and sample.mono_ns != seen_ns:
            seen_ns = sample.mono_ns
            quiet = quiet + 1 if is_quiet(gate, sample) else 0
        if quiet >= QUIET_SAMPLES:
            return True
        if clock_s() >= deadline_s:
            return False
        if stopped():
            raise Canceled("canceled while the machine was not quiet")
        sleep(POLL_S)


def is_quiet(gate: QuietGate, sample: Sample) -> bool:
    """Whether a sample passes; what the machine can't observe does not hold a job up."""
    cpu = sample.values.get("cpu_percent")
    temperature = sample.values.get("temperature_c")
    if isinstance(cpu, (int, float)) and cpu > gate.cpu_percent_max:
        return False
    limit = gate.temperature_c_max
    return limit is None or not isinstance(temperature, (int, float)) or temperature <= limit
