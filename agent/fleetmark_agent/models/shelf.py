"""The model store's files: names, sidecars, locks and room; knows nothing of where they come from.

NAME              a model: a file, or a directory of files
NAME.json         what is known about it (the sidecar)
NAME.part         a download under way, with NAME.part.json about its source
.locks/, .tmp/    one writer per file; scratch space
"""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from fleetmark_agent.models.model_files import check_ours_to_change, drop_model, files_of
from fleetmark_agent.models.ownfiles import make_own_directory, sync_directory, write_at_once
from fleetmark_agent.models.reference import RESERVED_SUFFIXES
from fleetmark_agent.models.sidecar import Sidecar
from fleetmark_agent.models.watch import NOBODY, Watch, shown
from fleetmark_protocol import logs
from fleetmark_protocol.errors import ModelNotFound, ModelRejected, ModelTooLarge

RESERVE_BYTES = 64 * 2**20
"""Never taken from a disk by models: the outbox lives there too."""
LOCK_POLL_S = 0.1


class Shelf:
    """A directory of models, shared by any number of processes."""

    def __init__(
        self, directory: Path, quota_bytes: int, free_bytes: Callable[[Path], int] | None = None
    ) -> None:
        """Name it; nothing is made before something is put in.

        Args:
            directory: the store.
            quota_bytes: what all its files together may take.
            free_bytes: says how much its disk has left; another one is for tests.
        """
        self.directory = directory
        self._quota_bytes = quota_bytes
        self._free_bytes = free_bytes or (lambda path: shutil.disk_usage(path).free)
        self._log = logs.get("models")

    def names(self) -> list[str]:
        """Return the names of the models, known or not."""
        if not self.directory.is_dir():
            return []
        return sorted(
            entry.name
            for entry in os.scandir(self.directory)
            if entry.name.isprintable()
            and not entry.name.startswith(".")
            and not entry.name.endswith(RESERVED_SUFFIXES)
            and _can_be_model(entry)
        )

    def find(self, name: str) -> Path:
        """Return a model's path.

        Raises:
            ModelNotFound: there is none of this name.
            ModelRejected: it is no file or directory inside the store.
        """
        path = self.directory / name
        try:
            real = path.resolve(strict=True)
        except (FileNotFoundError, RuntimeError):  # the latter: a link in circles
            held = ", ".join(self.names()) or "it is empty"
            raise ModelNotFound(
                f"no file {name!r} in the model store {self.directory}", hint=f"there: {held}"
            ) from None
        if not real.is_relative_to(self.directory.resolve()):
            raise ModelRejected(
                f"{name} is a link out of the model store", hint="copy it into the store"
            )
        if not (real.is_file() or real.is_dir()):
            raise ModelRejected(f"{name} in the model store is no plain file")
        for place in {self.directory.resolve(), real.parent, real}:
            check_ours_to_change(place, name)
        return path

    def sidecar(self, name: str) -> Sidecar | None:
        """Return what is known about a file, or None."""
        file = self.directory / f"{name}.json"
        try:
            return Sidecar.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            self._log.warning("sidecar_unreadable", file=str(file), error=str(error))
            return None

    def known(self) -> Iterator[tuple[str, Sidecar]]:
        """Yield the files that something is known about."""
        for name in self.names():
            sidecar = self.sidecar(name)
            if sidecar is not None:
                yield name, sidecar

    def describe(self, name: str, sidecar: Sidecar) -> None:
        """Write down what is known about a file, at once or not at all."""
        write_at_once(self.directory / f"{name}.json", sidecar.model_dump_json(indent=1).encode())

    def install(self, part: Path, name: str) -> Path:
        """Give a complete model its name, so that nobody ever sees half of it."""
        target = self.directory / name
        for one in files_of(part):
            with one.open("rb") as file:
                os.fsync(file.fileno())
        if part.is_dir():
            sync_directory(part)
        part.replace(target)
        sync_directory(self.directory)
        return target

    def drop(self, name: str) -> None:
        """Remove a model and all that belongs to it."""
        for suffix in ("", ".json", ".part", ".part.json"):
            drop_model(self.directory / f"{name}{suffix}")

    def unfinished(self) -> list[str]:
        """Return the names of files whose download was broken off."""
        if not self.directory.is_dir():
            return []
        return sorted(file.name.removesuffix(".part") for file in self.directory.glob("*.part"))

    def part(self, name: str) -> Path:
        """Return where a file grows before it is complete."""
        return self.directory / f"{name}.part"

    @contextmanager
    def locked(self, name: str, watch: Watch = NOBODY) -> Iterator[None]:
        """Be the only process and thread that makes or changes this file.

        Raises:
            Canceled: while waiting for another one.
        """
        locks = self.directory / ".locks"
        self.directory.mkdir(parents=True, exist_ok=True)
        make_own_directory(locks)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        handle = os.open(locks / f"{name}.lock", flags, 0o644)
        try:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    watch.check()
                    time.sleep(LOCK_POLL_S)
            yield
        finally:
            os.close(handle)

    @contextmanager
    def scratch(self, name: str) -> Iterator[Path]:
        """Lend an empty directory on the store's disk; call with the lock held."""
        base = self.directory / ".tmp"
        make_own_directory(base)
        for left_over in base.glob(f"{_escaped(name)}.*"):
            shutil.rmtree(left_over, ignore_errors=True)
        directory = base / f"{name}.{os.getpid()}"
        directory.mkdir()
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def used_bytes(self) -> int:
        """Return what all files take, those under way included."""
        total = 0
        for root, _, files in os.walk(self.directory):
            for file in files:
                try:
                    total += (Path(root) / file).lstat().st_size
                except FileNotFoundError:
                    continue  # another process has just renamed it
        return total

    def room_bytes(self) -> int:
        """Return how much may still be written; negative when it is too much already."""
        free = self._free_bytes(self.directory) - RESERVE_BYTES
        return min(free, self._quota_bytes - self.used_bytes())

    def check_room(self, more_bytes: int) -> None:
        """Check that so much more may be written.

        Raises:
            ModelTooLarge: the quota or the disk forbids it.
        """
        left = self._quota_bytes - self.used_bytes()
        if more_bytes > left:
            raise ModelTooLarge(
                f"{shown(more_bytes)} more do not fit in the model store:"
                f" {shown(max(left, 0))} of its quota of {shown(self._quota_bytes)} are left",
                hint="remove models (`fleetmark-agent model rm`) or raise models.quota_bytes",
            )
        free = self._free_bytes(self.directory) - RESERVE_BYTES
        if more_bytes > free:
            raise ModelTooLarge(
                f"{shown(more_bytes)} more do not fit on the disk of {self.directory}:"
                f" {shown(max(free, 0))} may be used",
                hint="free some disk, or set models.dir to a larger one",
            )


def _can_be_model(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file() or entry.is_dir()
    except OSError:
        return False  # a link in circles


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
