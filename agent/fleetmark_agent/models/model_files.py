"""A model as it lies on the disk, one file or a directory of them: length, digest, copy.

The digest of a file is its SHA-256. That of a directory is the SHA-256 of what
`LC_ALL=C; cd DIRECTORY && sha256sum -- *` prints: a line `DIGEST  NAME` for each file, by name.
"""

import hashlib
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fleetmark_agent.models.watch import CHUNK_BYTES, NOBODY, Watch, hash_file
from fleetmark_protocol.errors import ConfigError, ModelNotFound, ModelRejected


@dataclass(frozen=True)
class Look:
    """What a model looks like from outside; another look means that it has changed.

    Attributes:
        bytes: length of all its files.
        mtime_ns: the latest change.
        inode: of the file or directory.
        ctime_ns: the latest change as the kernel notes it, which nobody can set.
    """

    bytes: int
    mtime_ns: int
    inode: int
    ctime_ns: int


def files_of(path: Path) -> list[Path]:
    """Return the files of a model, by name; hidden ones do not belong to it.

    Raises:
        ModelRejected: a directory holds what does not lie in it, or is no plain file.
    """
    if not path.is_dir():
        return [path]
    inside, real = [], path.resolve()
    for file in path.iterdir():
        name = f"{path.name}/{file.name}"
        if file.name.startswith("."):
            continue
        if not file.name.isprintable() or "\\" in file.name:
            raise ModelRejected(f"{name!r} cannot be the name of a model's file")
        if not file.resolve().is_relative_to(real):
            raise ModelRejected(f"{name} is a link out of the model", hint="copy the file into it")
        if not file.is_file():
            raise ModelRejected(f"{name} is no plain file", hint="take it out")
        check_ours_to_change(file, name)
        inside.append(file)
    return sorted(inside, key=lambda file: os.fsencode(file.name))


def check_ours_to_change(path: Path, name: str) -> None:
    """Refuse what everybody on the machine may change: its digest says nothing a moment later.

    Raises:
        ModelRejected: it is so.
    """
    if path.stat().st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH:
        raise ModelRejected(
            f"{name}: everybody on this machine may change {path}", hint=f"chmod o-w {path}"
        )


def look_at(path: Path) -> Look:
    """Return what a model looks like.

    Raises:
        OSError: it is not there.
        ModelRejected: see `files_of`.
    """
    seen = path.stat()
    if not path.is_dir():
        return Look(seen.st_size, seen.st_mtime_ns, seen.st_ino, seen.st_ctime_ns)
    inside = [file.stat() for file in files_of(path)]
    latest = max([seen.st_mtime_ns, *(one.st_mtime_ns for one in inside)])
    changed = max([seen.st_ctime_ns, *(one.st_ctime_ns for one in inside)])
    return Look(sum(one.st_size for one in inside), latest, seen.st_ino, changed)


def hash_model(path: Path, watch: Watch = NOBODY) -> str:
    """Return the digest of a model.

    Raises:
        Canceled: asked to stop.
        ModelRejected: see `files_of`.
    """
    if not path.is_dir():
        return hash_file(path, watch).hexdigest()
    lines, part = hashlib.sha256(), _Part(watch, look_at(path).bytes)
    for file in files_of(path):
        digest = hash_file(file, part.watch()).hexdigest()
        lines.update(f"{digest}  {file.name}\n".encode("utf-8", "surrogateescape"))
        part.done(file.stat().st_size)
    return lines.hexdigest()


def hash_window(path: Path, window: tuple[int, int], watch: Watch = NOBODY) -> str:
    """Return the SHA-256 of a part of a file: its first byte, and how many.

    Raises:
        Canceled: asked to stop.
    """
    digest, (start, left) = hashlib.sha256(), window
    with path.open("rb") as file:
        file.seek(start)
        while left and (chunk := file.read(min(left, CHUNK_BYTES))):
            watch.check()
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()


def copied_bytes(source: Path) -> int:
    """Return how long a copy of a model will be.

    Raises:
        OSError, ModelRejected: see `copy_model`.
    """
    return sum(file.stat().st_size for file in _to_copy(source))


def check_readable(source: Path) -> None:
    """See that this user may read a model, before anything of the store is touched.

    The service's user may often not: the operator's own directories are closed to it.

    Raises:
        ModelNotFound: there is no such model.
        ConfigError: it cannot be read.
    """
    try:
        if not (source.is_file() or source.is_dir()):
            raise ModelNotFound(f"no file or directory {source}")
        for file in _to_copy(source):
            with file.open("rb"):
                pass
    except OSError as error:
        raise ConfigError(
            f"{error.filename or source}: {error.strerror}",
            hint="put it where the agent's user (of the service: fleetmark-agent) can read it",
        ) from error


def copy_model(source: Path, target: Path, watch: Watch = NOBODY) -> None:
    """Copy a model; links become files, for who copies means what they lead to.

    Raises:
        OSError: no room, or not readable.
        Canceled: asked to stop.
        ModelRejected: a directory holds what is no file.
    """
    if not source.is_dir():
        _copy(source, target, watch)
        return
    target.mkdir()
    part = _Part(watch, copied_bytes(source))
    for file in _to_copy(source):
        _copy(file, target / file.name, part.watch())
        part.done(file.stat().st_size)


def drop_model(path: Path) -> None:
    """Remove a file or a directory; nothing happens where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _to_copy(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    files = [file for file in sorted(source.iterdir()) if not file.name.startswith(".")]
    for file in files:
        if not file.is_file():
            raise ModelRejected(f"{source.name}/{file.name} is no plain file", hint="take it out")
    return files


def _copy(source: Path, target: Path, watch: Watch) -> None:
    total, done = source.stat().st_size, 0
    with source.open("rb") as read, target.open("wb") as write:
        while chunk := read.read(CHUNK_BYTES):
            watch.check()
            done += write.write(chunk)
            watch.tell(done, total)


class _Part:
    """Tells somebody who watches a whole about one file after the other."""

    def __init__(self, watch: Watch, total_bytes: int) -> None:
        self._watch = watch
        self._total_bytes = total_bytes
        self._done_bytes = 0

    def watch(self) -> Watch:
        before = self._done_bytes
        tell: Callable[[int, int | None], None]
        tell = lambda done, _: self._watch.tell(before + done, self._total_bytes)  # noqa: E731
        return Watch(tell, self._watch.cancelled)

    def done(self, more_bytes: int) -> None:
        self._done_bytes += more_bytes
