"""Says that a process lives: a lock on a file of its own, which the kernel frees at its end."""

import fcntl
from pathlib import Path
from typing import BinaryIO

_PREFIX = "collector.alive-"


class LifeLock:
    """Held from its making to its end, or to the end of the process, whatever ends it."""

    def __init__(self, directory: Path, name: str) -> None:
        """Hold it, if the file system lets us; without it, others wait for the lease to run out."""
        self._path = _path(directory, name)
        self._file: BinaryIO | None = None
        try:
            self._file = self._path.open("xb")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.end()

    def end(self) -> None:
        """Let go of it."""
        self._path.unlink(missing_ok=True)
        if self._file is not None:
            self._file.close()
            self._file = None

    @staticmethod
    def clear(directory: Path, name: str) -> None:
        """Take away what a process left behind that is dead or leads no more."""
        _path(directory, name).unlink(missing_ok=True)


def is_dead(directory: Path, name: str) -> bool:
    """Whether the process is surely gone; one that sleeps, or whose file is not there, is not."""
    try:
        with _path(directory, name).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _path(directory: Path, name: str) -> Path:
    return directory / f"{_PREFIX}{name}"
