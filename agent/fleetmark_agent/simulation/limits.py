"""What the operating system must grant before a thousand devices fit in one process."""

import fcntl
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleetmark_protocol.errors import ConfigError, StoreUnavailable

FILES_PER_DEVICE = 4
"""A socket, and SQLite's database, log and index of the log."""

FILES_BESIDE = 128
"""Of the process itself: libraries, pipes, connections that are just being made."""

LOCK_NAME = "simulation.lock"


def allow_files(devices: int) -> None:
    """Raise this process's limit of open files as far as `devices` need it.

    Raises:
        ConfigError: the hard limit is lower.
    """
    need = devices * FILES_PER_DEVICE + FILES_BESIDE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= need:
        return
    if hard != resource.RLIM_INFINITY and hard < need:
        fit = (hard - FILES_BESIDE) // FILES_PER_DEVICE
        hint = "raise the hard limit (`ulimit -Hn`; LimitNOFILE= in a unit)"
        if fit > 0:
            hint += f", or spread them: at most {fit} a process, see --processes"
        raise ConfigError(
            f"{devices} devices in one process need {need} open files; the system's hard limit "
            f"is {hard}",
            hint=hint,
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))


@contextmanager
def held(state_dir: Path, first: int, count: int) -> Iterator[None]:
    """Hold a range of devices, so that no outbox is used by two simulations at once.

    Raises:
        ConfigError: another simulation holds one of them.
        StoreUnavailable: the directory cannot be written.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(state_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnavailable(
            f"--state-dir {state_dir}: {error.strerror}",
            hint="choose a directory that this user can write",
        ) from error
    try:
        _lock(handle, state_dir, first, count)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, state_dir: Path, first: int, count: int) -> None:
    try:
        # A byte for each device: processes of one simulation hold ranges of one file.
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, count, first)
    except (BlockingIOError, PermissionError) as error:
        raise ConfigError(
            f"another simulation uses these devices' outboxes in {state_dir}",
            hint="give each simulation a --state-dir of its own",
        ) from error
