"""Whether a llamafile may be executed, and how: a program, so only the owner's word lets it run."""

import hashlib
import os
import shutil
import stat
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fleetmark_protocol.errors import BackendUnavailable, ModelRejected, SourceNotAllowed

APE_MAGICS = (b"MZqFpD", b"jartsr")
"""Programs for any system; Linux runs them by a shell or by the `ape` loader."""
ELF_MAGIC = b"\x7fELF"
SHELL = "/bin/sh"
LOADER = "ape"

Identity = tuple[int, int, int, int, int]


@dataclass(frozen=True)
class Program:
    """A program that was found trusted, held open.

    Attributes:
        name: of its file.
        fd: the file that was hashed; what is executed is this one, whatever the path names later.
        command: what starts it; arguments follow.
    """

    name: str
    fd: int
    command: tuple[str, ...]

    def close(self) -> None:
        """Let go of the file; what was started of it goes on."""
        os.close(self.fd)


def is_program(path: Path) -> bool:
    """Whether a file is a program, by its first bytes.

    Raises:
        ModelRejected: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return _is_program(file.read(8))
    except OSError as error:
        raise ModelRejected(f"cannot read {path.name}: {error.strerror}") from error


def open_trusted(path: Path, trusted: Collection[str]) -> Program:
    """Return a program that the device's owner has named by its digest.

    Args:
        path: of a llamafile, with or without weights inside.
        trusted: SHA-256 digests in hexadecimal.

    Raises:
        BackendUnavailable: it is not there, or this system cannot execute it where it lies.
        ModelRejected: it is no program.
        SourceNotAllowed: its digest is not among the trusted ones, or others may change it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise BackendUnavailable(f"cannot open {path}: {error.strerror}") from error
    try:
        magic = os.pread(fd, 8, 0)
        if not _is_program(magic):
            raise ModelRejected(f"{path.name} is no llamafile: it does not begin as a program does")
        _check_owner(path, os.fstat(fd))
        _check_executable(path, fd)
        digest = _sha256(path, _identity(os.fstat(fd)))
        if digest not in trusted:
            raise SourceNotAllowed(
                f"{path.name} is a program, and the owner of this device does not trust it",
                hint="if you do, add to the agent's settings, under [engines.llamafile]:"
                f' trusted_sha256 = ["{digest}"]',
            )
    except BaseException:
        os.close(fd)
        raise
    return Program(path.name, fd, _command(magic, f"/proc/self/fd/{fd}"))


def _is_program(magic: bytes) -> bool:
    return magic.startswith((*APE_MAGICS, ELF_MAGIC))


def _command(magic: bytes, path: str) -> tuple[str, ...]:
    if magic.startswith(ELF_MAGIC):
        return (path,)
    # The kernel does not know the format, unless somebody taught it.
    return (shutil.which(LOADER) or SHELL, path)


def _check_owner(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ModelRejected(f"{path.name} is no file")
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SourceNotAllowed(
            f"{path.name} is a program that others than the agent's user may change",
            hint=f"chown it to the agent's user or root, and chmod go-w {path}",
        )


def _check_executable(path: Path, fd: int) -> None:
    if os.fstatvfs(fd).f_flag & os.ST_NOEXEC:
        raise BackendUnavailable(
            f"{path.name} lies on a file system from which nothing may be executed (noexec)",
            hint="put the model store (models.dir), or the llamafile, on another one",
        )
    if not os.access(f"/proc/self/fd/{fd}", os.X_OK):
        raise BackendUnavailable(f"{path.name} is not executable", hint=f"chmod u+x {path}")


def _identity(found: os.stat_result) -> Identity:
    """Return what differs once a file was changed or replaced; only the kernel sets the last."""
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@lru_cache(maxsize=16)
def _sha256(path: Path, identity: Identity) -> str:
    """Return the digest of a file as it is now; gigabytes are not hashed again for each start.

    Raises:
        SourceNotAllowed: it is being changed.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if _identity(os.fstat(file.fileno())) != identity:
            raise SourceNotAllowed(f"{path.name} was changed while it was looked at")
    return digest
