"""One collector to a data directory: the lock that says so."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleetmark_protocol.errors import ConfigError

LOCK_NAME = "collector.lock"


@contextmanager
def held(data_dir: Path) -> Iterator[None]:
    """Hold the data directory; the kernel frees it however this process ends.

    Raises:
        ConfigError: a collector has it, or it cannot be written.
    """
    file = data_dir / LOCK_NAME
    try:
        handle = file.open("a+", encoding="ascii")
    except OSError as error:
        raise ConfigError(f"data_dir: {file}: {error.strerror or error}") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            handle.seek(0)
            pid = handle.read().strip() or "unknown"
            raise ConfigError(
                f"another collector (pid {pid}) has {data_dir}",
                hint="stop it first, or give this one another --data-dir",
            ) from error
        handle.truncate(0)
        handle.write(f"{os.getpid()}\n")
        handle.flush()
        yield
