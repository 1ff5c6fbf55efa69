"""One agent to a state directory: the lock that says so, and who holds it."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fleetmark_protocol.errors import ConfigError, StoreUnavailable

LOCK_NAME = "agent.lock"
TRIES = 3
RETRY_S = 0.1
"""`holder` takes the lock for an instant; an agent that starts just then must not give up."""


@contextmanager
def held(state_dir: Path) -> Iterator[None]:
    """Hold the state directory, made where it is not there; the kernel lets go however we die.

    Raises:
        ConfigError: another agent holds it.
        StoreUnavailable: it cannot be written.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(state_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnavailable(
            f"state_dir {state_dir}: {error.strerror}",
            hint="choose a directory that this user can write, or make room on its disk",
        ) from error
    try:
        if not any(_take(handle) for _ in range(TRIES)):
            raise ConfigError(
                f"another agent (pid {_pid(handle)}) uses state_dir {state_dir}",
                hint="give each agent a state_dir of its own",
            )
        with suppress(OSError):
            # For the message above only; on a full disk the lock holds without it.
            os.truncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


def holder(state_dir: Path) -> str | None:
    """Return the pid of the agent that runs on this state directory, or None; writes nothing.

    Raises:
        OSError: the lock cannot be read.
    """
    try:
        handle = os.open(state_dir / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid(handle)
    else:
        return None
    finally:
        os.close(handle)


def _take(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(RETRY_S)
        return False
    return True


def _pid(handle: int) -> str:
    return os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
