"""Writes the store's own files: never through a link, never into a file that has another name.

Where others may write, a name that we are about to use may be there already, and lead elsewhere.
"""

import os
import stat
import time
from pathlib import Path
from typing import IO

from fleetmark_protocol.errors import ModelRejected

MODE = 0o644


def is_ours(path: Path) -> bool:
    """Whether a plain file of this user is there, under this name alone."""
    try:
        seen = path.lstat()
    except FileNotFoundError:
        return False
    return _plain(seen) and seen.st_uid == os.geteuid()


def open_to_grow(part: Path) -> IO[bytes]:
    """Open a file to append to; it is made where there is none.

    Raises:
        OSError: a link is there, or no room.
        ModelRejected: what is there has another name too, or is no plain file.
    """
    handle = os.open(part, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _CAREFULLY, MODE)
    if not _plain(os.fstat(handle)):
        os.close(handle)
        raise ModelRejected(f"{part.name} in the model store is not ours alone", hint="remove it")
    return os.fdopen(handle, "ab")


def open_new(path: Path) -> IO[bytes]:
    """Open a file that is not there yet; what is there of this name goes.

    Raises:
        OSError: it came back meanwhile, or no room.
    """
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CAREFULLY, MODE), "wb")


def make_own_directory(path: Path) -> None:
    """Make a directory, unless it is there; not where a link leads.

    Raises:
        ModelRejected: a link is there.
        OSError: it cannot be made.
    """
    path.mkdir(exist_ok=True)
    if path.is_symlink():
        raise ModelRejected(f"{path.name} in the model store is a link", hint="remove it")


def write_at_once(file: Path, content: bytes) -> None:
    """Replace a small file so that a reader sees the old or the new one, never a part."""
    new = file.with_name(f".{file.name}.{os.getpid()}.{time.monotonic_ns()}")
    try:
        with open_new(new) as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)
    sync_directory(file.parent)


def sync_directory(directory: Path) -> None:
    """Make renames in a directory survive a power cut."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_CAREFULLY = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""Nor does a named pipe hold us up."""


def _plain(seen: os.stat_result) -> bool:
    return stat.S_ISREG(seen.st_mode) and seen.st_nlink == 1
