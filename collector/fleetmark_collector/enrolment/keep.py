"""The directory of secrets: who may read it, and how files get into it.

The standard library of Python 3.9 is enough for it, because `deploy/setup_centre.py` uses it on
hosts that have nothing of fleetmark.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = ".lock"


def _silent(_: str) -> None:
    return


class Keep:
    """Files that their owner may change, one group may read, and nobody else sees."""

    def __init__(
        self, directory: Path, group: int | None, say: Callable[[str], None] = _silent
    ) -> None:
        """Make nothing yet.

        Args:
            directory: where everything lies.
            group: number of the group that the servers run in; None: the owner alone may read.
            say: is told what was made; never a secret.
        """
        self.directory = directory
        self.group = group
        self.say = say

    def path(self, name: str) -> Path:
        """Return where a file is, or would be."""
        return self.directory / name

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        return self.path(name).exists()

    def read(self, name: str) -> str:
        """Return what is in a file, without white space around it."""
        return self.path(name).read_text("ascii").strip()

    def make_directory(self, name: str, mode: int) -> None:
        """Make a directory, or give it the right mode."""
        directory = self.path(name)
        directory.mkdir(parents=True, exist_ok=True)
        if self.group is not None:
            os.chown(directory, -1, self.group)
        directory.chmod(self._mode(mode))

    def write(self, name: str, text: str, mode: int = 0o640) -> None:
        """Put a file in place at once and whole; nobody else may read it even for a moment."""
        file = self.path(name)
        new = file.with_name(f".{file.name}.new")
        new.unlink(missing_ok=True)
        try:
            handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="ascii") as out:
                out.write(text)
                out.flush()
                if self.group is not None:
                    os.fchown(handle, -1, self.group)
                os.fchmod(handle, self._mode(mode))
                os.fsync(handle)
            new.replace(file)
        except OSError:
            new.unlink(missing_ok=True)
            raise

    def secret(self, name: str) -> str:
        """Return a secret; made of 256 random bits where there is none yet."""
        if not self.has(name):
            self.write(name, secrets.token_hex(32) + "\n")
            self.say(f"made {self.path(name)}")
        return self.read(name)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let nobody else change anything meanwhile; waits for who does."""
        handle = os.open(self.path(LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _mode(self, mode: int) -> int:
        return mode if self.group is not None else stat.S_IRWXU & mode
