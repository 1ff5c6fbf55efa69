"""Who may use a data directory: any number of collectors, or one command that replaces it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from fleetmark_protocol.errors import ConfigError

LOCK_NAME = "collector.lock"


@contextmanager
def held(data_dir: Path) -> Iterator[None]:
    """Hold the data directory alone; the kernel frees it however this process ends.

    Raises:
        ConfigError: a collector has it, or it cannot be written.
    """
    with _open(data_dir) as handle:
        _lock(handle, fcntl.LOCK_EX, data_dir)
        handle.truncate(0)
        yield


@contextmanager
def shared(data_dir: Path) -> Iterator[None]:
    """Hold the data directory together with other collectors.

    Raises:
        ConfigError: somebody holds it alone, or it cannot be written.
    """
    with _open(data_dir) as handle:
        _lock(handle, fcntl.LOCK_SH, data_dir)
        pids = [*_living(handle), os.getpid()]
        handle.truncate(0)
        handle.write("".join(f"{pid}\n" for pid in pids))
        handle.flush()
        yield


def _open(data_dir: Path) -> TextIO:
    file = data_dir / LOCK_NAME
    try:
        return file.open("a+", encoding="ascii")
    except OSError as error:
        raise ConfigError(f"data_dir: {file}: {error.strerror or error}") from error


def _lock(handle: TextIO, how: int, data_dir: Path) -> None:
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError as error:
        who = ", ".join(f"pid {pid}" for pid in _living(handle)) or "pid unknown"
        raise ConfigError(
            f"another collector ({who}) has {data_dir}",
            hint="stop it first, or give this one another --data-dir",
        ) from error


def _living(handle: TextIO) -> list[int]:
    handle.seek(0)
    noted = dict.fromkeys(int(word) for word in handle.read().split() if word.isdecimal())
    return [pid for pid in noted if _lives(pid)]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
