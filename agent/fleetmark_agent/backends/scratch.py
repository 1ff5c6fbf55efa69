"""A temporary directory that does not outlive its use, even where its user was killed."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO

_LOCK = "in-use"


class Scratch:
    """A directory that is locked as long as this process lives.

    A worker is killed on a deadline or a cancel and cannot clean up; what it left is found by the
    next one with the same prefix, whose lock succeeds where the kernel dropped that of the dead.
    """

    def __init__(self, prefix: str, parent: Path | None = None) -> None:
        """Make one, and remove those that nobody uses any more.

        Args:
            prefix: of the names of all that belong together.
            parent: where to make it; default: where temporary files go.

        Raises:
            OSError: it cannot be made.
        """
        self._parent = parent or Path(tempfile.gettempdir())
        for left in self._parent.glob(f"{prefix}*"):
            _remove_if_left(left)
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=self._parent))
        self._lock: IO[bytes] = (self.path / _LOCK).open("wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def remove(self) -> None:
        """Remove it with all in it; may be called twice."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _remove_if_left(directory: Path) -> None:
    with contextlib.suppress(OSError):
        # Not through a link: in a place where all may write, anybody may have put it.
        if directory.is_symlink() or directory.stat().st_uid != os.geteuid():
            return
        with (directory / _LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
