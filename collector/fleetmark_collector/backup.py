"""Copies what the collector keeps, while it runs, and puts a copy back where none runs."""

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError

from fleetmark_collector import datalock
from fleetmark_collector.config import CollectorSettings
from fleetmark_collector.dead_letters import older
from fleetmark_collector.sqlitefile import connect, translated
from fleetmark_protocol.errors import ConfigError, StoreError, StoreUnavailable
from fleetmark_protocol.settings import Section
from fleetmark_protocol.version import __version__

MANIFEST = "backup.json"
"""Written last: a directory without it is no backup, however it came about."""

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z_.0-9]{0,60}$")]


class SavedFile(Section):
    """A file of a backup."""

    size_bytes: Annotated[int, Field(ge=0)]
    sha256: Digest


class Manifest(Section):
    """What a backup holds, and of what."""

    format: Literal[1] = 1
    fleetmark: str
    """Version of the fleetmark that made it."""
    made_ns: int
    files: dict[FileName, SavedFile]


@dataclass(frozen=True)
class Restored:
    """What a restore did.

    Attributes:
        manifest: of the backup.
        kept: where the files are that it replaced; None where there were none.
    """

    manifest: Manifest
    kept: Path | None


def back_up(
    settings: CollectorSettings, directory: Path, clock: Callable[[], int] = time.time_ns
) -> Manifest:
    """Copy devices, campaigns, jobs, dead letters and, if it is embedded, the store.

    Each database is copied as it is at one moment, without holding the collector up, and the copy
    is checked. Campaigns come first and records after them, so that the copy may hold records that
    its campaigns have not heard of, which they catch up with, but never the other way round.

    Raises:
        ConfigError: there is nothing to copy, or something in the directory already.
        StoreUnavailable: it cannot be read or written now.
        StoreError: what is there is damaged.
    """
    databases = [f for f in (settings.state_file, settings.store_file) if f.exists()]
    if not databases:
        raise ConfigError(
            f"nothing to back up in {settings.data_dir}", hint="--data-dir or --config names it"
        )
    letters = settings.dead_letter_file
    with _file_errors(directory):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if any(directory.iterdir()):
            raise ConfigError(
                f"{directory} is not empty", hint="give each backup a new directory of its own"
            )
        for database in databases:
            _copy_database(database, directory / database.name)
        for file in (older(letters), letters):
            # There may be none, and the collector may rename one just now.
            with suppress(FileNotFoundError):
                shutil.copyfile(file, directory / file.name)
        manifest = Manifest(
            fleetmark=__version__,
            made_ns=clock(),
            files={file.name: _saved(file) for file in sorted(directory.iterdir())},
        )
        _write_whole(directory / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
    return manifest


def restore(
    settings: CollectorSettings, directory: Path, clock: Callable[[], int] = time.time_ns
) -> Restored:
    """Put a backup in the place of what is in the data directory; that is kept beside it.

    Raises:
        ConfigError: it is no backup, is not as it was made, or a collector runs.
        StoreUnavailable: it cannot be read or written now; then nothing has been replaced.
    """
    manifest = _read_manifest(directory)
    data_dir = settings.data_dir
    with _file_errors(data_dir):
        data_dir.mkdir(parents=True, exist_ok=True)
        with datalock.held(data_dir):
            coming = [data_dir / f".{name}.restoring" for name in manifest.files]
            try:
                for name, new in zip(manifest.files, coming, strict=True):
                    _copy_checked(directory / name, new, manifest.files[name])
                stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(clock() // 10**9))
                kept = _put_aside(data_dir, list(manifest.files), f"before-restore-{stamp}")
                for name, new in zip(manifest.files, coming, strict=True):
                    new.replace(data_dir / name)
            finally:
                for new in coming:
                    new.unlink(missing_ok=True)
            _sync(data_dir)
            _give_to_owner(data_dir, [*manifest.files, datalock.LOCK_NAME])
    return Restored(manifest, kept)


# --- copying ---------------------------------------------------------------------------------


def _copy_database(source: Path, target: Path) -> None:
    with closing(connect(source, "ro")) as old, closing(connect(target, "rwc")) as new:
        with translated(source):
            # All pages in one step: in write-ahead mode this is one moment's view and holds nobody
            # up; step by step it would begin anew with each of the collector's writes.
            old.backup(new)
        with translated(target):
            # One file, without companions that would have to be kept together.
            new.execute("PRAGMA journal_mode = DELETE")
            said = [row[0] for row in new.execute("PRAGMA quick_check(3)")]
    if said != ["ok"]:
        raise StoreError(
            f"{source} is damaged: {'; '.join(map(str, said))}",
            hint="keep it; `sqlite3 FILE .recover` may read what is left",
        )
    _sync(target)


def _saved(file: Path) -> SavedFile:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return SavedFile(size_bytes=file.stat().st_size, sha256=digest)


def _copy_checked(source: Path, target: Path, expected: SavedFile) -> None:
    if not source.is_file():
        raise ConfigError(f"{source} is missing, though {MANIFEST} names it")
    shutil.copyfile(source, target)
    target.chmod(0o640)
    _sync(target)
    if _saved(target) != expected:
        raise ConfigError(f"{source} is not what was backed up: its SHA-256 differs")


def _read_manifest(directory: Path) -> Manifest:
    file = directory / MANIFEST
    try:
        return Manifest.model_validate_json(file.read_bytes())
    except FileNotFoundError as error:
        raise ConfigError(f"{directory} is no backup: it has no {MANIFEST}") from error
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from error
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"])) or "it"
        raise ConfigError(f"{file}: {where}: {problem['msg']}") from error


def _put_aside(data_dir: Path, names: list[str], directory: str) -> Path | None:
    """Move what would be replaced, with the companions that SQLite keeps beside a database."""
    there = [
        file
        for name in names
        for end in ("", "-wal", "-shm", "-journal")
        if (file := data_dir / f"{name}{end}").exists()
    ]
    if not there:
        return None
    aside = data_dir / directory
    aside.mkdir(mode=0o700)
    for file in there:
        file.rename(aside / file.name)
    _give_to_owner(data_dir, [directory])
    return aside


# --- files -----------------------------------------------------------------------------------


def _write_whole(file: Path, text: str) -> None:
    new = file.with_name(f".{file.name}.new")
    new.write_text(text, "utf-8")
    _sync(new)
    new.replace(file)
    _sync(file.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _give_to_owner(data_dir: Path, names: list[str]) -> None:
    """What root has put there must still be the collector's own."""
    owner = data_dir.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        for name in names:
            if (data_dir / name).exists():
                os.chown(data_dir / name, owner.st_uid, owner.st_gid)


@contextmanager
def _file_errors(directory: Path) -> Iterator[None]:
    """Turn the operating system's errors into ours."""
    try:
        yield
    except OSError as error:
        where = error.filename or directory
        raise StoreUnavailable(f"{where}: {error.strerror or error}") from error


def describe(manifest: Manifest) -> str:
    """Return in one line what a backup holds."""
    made = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(manifest.made_ns // 10**9))
    files = ", ".join(
        f"{name} ({saved.size_bytes / 1e6:.1f} MB)" for name, saved in manifest.files.items()
    )
    return f"made {made} by fleetmark {manifest.fleetmark}: {files}"
