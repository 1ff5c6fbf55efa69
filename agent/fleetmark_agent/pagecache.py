"""The operating system's cache of a model's files: how much is in it, and putting it out of it."""

import contextlib
import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

_MAP_FAILED = ctypes.c_void_p(-1).value
_PROT_READ, _MAP_SHARED = mmap.PROT_READ, mmap.MAP_SHARED


def model_files(path: Path) -> list[Path]:
    """Return the files of a model that lies in a file or a directory; none where there is none."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    return [path] if path.is_file() else []


def drop(files: Iterable[Path]) -> None:
    """Have the kernel forget what it holds of files, as far as it can.

    What another process has mapped stays, and so does all of a file system that lives in memory:
    `cached_percent` says what came of it.

    Raises:
        OSError: a file cannot be read.
    """
    for file in files:
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with contextlib.suppress(OSError):
                # The kernel keeps what is not on the disk yet; where nothing can be written, there
                # is nothing to wait for.
                os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def cached_percent(files: Iterable[Path]) -> float | None:
    """Return which share of files' pages is in memory; None where it cannot be told.

    The kernel tells only who owns a file or may write to it; to anybody else it says that all of it
    is there (mincore(2), since Linux 5.2).
    """
    pages = cached = 0
    for file in files:
        try:
            found = _pages(file)
        except (OSError, AttributeError):
            # AttributeError: a C library without mincore.
            return None
        if found is None:
            return None
        pages += found[0]
        cached += found[1]
    return 100 * cached / pages if pages else None


def _pages(file: Path) -> tuple[int, int] | None:
    """Return how many pages a file has and how many of them are in memory."""
    handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = os.fstat(handle)
        if status.st_size == 0:
            return 0, 0
        if os.geteuid() not in (0, status.st_uid) and not os.access(file, os.W_OK):
            return None
        return _resident(handle, status.st_size)
    finally:
        os.close(handle)


def _resident(handle: int, size: int) -> tuple[int, int]:
    # Python's own mmap does not give away where it lies; ours is never read through.
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    count = -(-size // mmap.PAGESIZE)
    place = libc.mmap(None, size, _PROT_READ, _MAP_SHARED, handle, 0)
    if place in (None, _MAP_FAILED):
        raise OSError(ctypes.get_errno(), "mmap")
    try:
        vector = ctypes.create_string_buffer(count)
        if libc.mincore(place, size, vector) != 0:
            raise OSError(ctypes.get_errno(), "mincore")
    finally:
        libc.munmap(place, size)
    # The lowest bit says whether a page is there; the others are reserved.
    return count, sum(byte & 1 for byte in vector.raw)
