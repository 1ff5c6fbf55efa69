"""Finds, fetches, checks and converts models: what the runner asks for a job's weights.

Every file lies beside what is known about it (see `shelf`); a file is hashed when it comes and
again only when it looks changed.
"""

import builtins
import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from fleetmark_agent.config import AgentSettings, ModelSettings
from fleetmark_agent.models import convert as conversion
from fleetmark_agent.models.download import Downloader
from fleetmark_agent.models.finding import Finder
from fleetmark_agent.models.gguf_file import inspect
from fleetmark_agent.models.making import Maker
from fleetmark_agent.models.preflight import check_fits
from fleetmark_agent.models.reference import checked_name
from fleetmark_agent.models.shelf import Shelf
from fleetmark_agent.models.sidecar import Sidecar
from fleetmark_agent.models.stored import StoredModel, stored_model
from fleetmark_agent.models.watch import CHUNK_BYTES, Cancelled, Progress, Watch, hash_file
from fleetmark_protocol.errors import (
    ConfigError,
    ModelNotFound,
    ModelRejected,
    ModelTooLarge,
    StoreUnavailable,
)
from fleetmark_protocol.messages import ModelInfo, ModelSpec


class ModelStore:
    """A directory of models; any number of threads and processes may share it."""

    def __init__(
        self,
        directory: Path,
        settings: ModelSettings,
        *,
        free_bytes: Callable[[Path], int] | None = None,
        mem_available_bytes: Callable[[], int] = lambda: int(psutil.virtual_memory().available),
    ) -> None:
        """Open it; nothing is written before a model is asked for.

        Args:
            directory: where the files are.
            settings: what the owner allows.
            free_bytes: says how much a path's disk has left.
            mem_available_bytes: says how much memory a model may take.
        """
        self._shelf = Shelf(directory, settings.quota_bytes, free_bytes)
        self._maker = Maker(self._shelf, settings, Downloader(self._shelf.check_room))
        self._finder = Finder(self._shelf, self._maker, settings)
        self._mem_available_bytes = mem_available_bytes

    @classmethod
    def from_settings(cls, settings: AgentSettings) -> "ModelStore":
        """Open the store of an agent."""
        return cls(settings.models_dir, settings.models)

    @property
    def directory(self) -> Path:
        """Where the files are."""
        return self._shelf.directory

    def ensure(
        self,
        spec: ModelSpec,
        *,
        context_tokens: int | None = None,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> StoredModel:
        """Return the model of a job: found, else fetched, and converted where it must be.

        Args:
            spec: which.
            context_tokens: checks that it fits in memory with so large a context.
            progress: called with bytes done and bytes in all (None: unknown).
            cancelled: asked all the time; true aborts.

        Raises:
            ConfigError: the reference or the quantization is wrong.
            SourceNotAllowed: the owner does not let it in.
            ModelNotFound, DownloadFailed: it is not there, or did not come.
            ModelRejected: it is damaged, no GGUF, or has another digest.
            ModelTooLarge: it fits neither the quota, the disk nor memory.
            StoreUnavailable: the store's directory cannot be used.
            Canceled: asked to stop.
        """
        with self._disk_errors():
            model = stored_model(
                self.directory, *self._finder.find_or_make(spec, Watch(progress, cancelled))
            )
        if context_tokens is not None:
            check_fits(model.gguf, model.bytes, context_tokens, self._mem_available_bytes())
        return model

    def list(self) -> builtins.list[ModelInfo]:
        """Return the models that can be used as they are; cheap, nothing is hashed.

        A file dropped in by hand is told once it was used or verified.

        Raises:
            StoreUnavailable: the store's directory cannot be used.
        """
        with self._disk_errors():
            return [self._stored(name, sidecar).info for name, sidecar in self._finder.intact()]

    def unknown(self) -> builtins.list[str]:
        """Return the files that were never looked at, or have changed since.

        Raises:
            StoreUnavailable: the store's directory cannot be used.
        """
        with self._disk_errors():
            known = {name for name, _ in self._finder.intact()}
            return [name for name in self._shelf.names() if name not in known]

    def unfinished(self) -> builtins.list[str]:
        """Return the files whose download was broken off; asked for again, they go on."""
        with self._disk_errors():
            return self._shelf.unfinished()

    def get(self, name: str, *, cancelled: Cancelled | None = None) -> StoredModel:
        """Return a file of the store by its name, looked at first if it is new.

        Raises:
            ConfigError, ModelNotFound, ModelRejected, StoreUnavailable, Canceled: see `ensure`.
        """
        with self._disk_errors():
            return stored_model(
                self.directory, name, self._finder.known(name, Watch(cancelled=cancelled))
            )

    def remove(self, name: str) -> None:
        """Remove a file, finished or not, and what is known about it.

        Raises:
            ConfigError, ModelNotFound, StoreUnavailable: see `ensure`.
        """
        with self._disk_errors():
            checked_name(name, f"path:{name}")
            path = self.directory / name
            if not (path.is_symlink() or self._shelf.part(name).exists()):
                self._shelf.find(name)
            with self._shelf.locked(name):
                self._shelf.drop(name)

    def verify(
        self, name: str, *, progress: Progress | None = None, cancelled: Cancelled | None = None
    ) -> StoredModel:
        """Read a whole file again and compare it with what it was; finds rot that nothing shows.

        Raises:
            ModelRejected: it has changed; it is not used any more as it is.
            ConfigError, ModelNotFound, StoreUnavailable, Canceled: see `ensure`.
        """
        watch = Watch(progress, cancelled)
        with self._disk_errors():
            checked_name(name, f"path:{name}")
            path, sidecar = self._shelf.find(name), self._shelf.sidecar(name)
            if sidecar is None:
                return self._stored(name, self._finder.known(name, watch))
            with self._shelf.locked(name, watch):
                seen, digest = path.stat(), hash_file(path, watch).hexdigest()
                if digest != sidecar.sha256:
                    self._shelf.describe(name, sidecar.model_copy(update={"mtime_ns": None}))
                    raise ModelRejected(
                        f"{name} has changed: {path.stat().st_size:,} bytes with SHA-256 {digest},"
                        f" was {sidecar.bytes:,} bytes with {sidecar.sha256}",
                        hint=f"remove it (`fleetmark-agent model rm {name}`) and fetch it again",
                    )
                return stored_model(
                    self.directory,
                    name,
                    self._maker.describe(
                        name, sidecar.ref, digest, inspect(path), sidecar.recipe, seen
                    ),
                )

    def convert(
        self,
        name: str,
        quantization: str,
        *,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> StoredModel:
        """Make another quantization of a file of the store, whatever a job may ask for.

        Raises:
            ConfigError: this quantization cannot be made.
            ModelNotFound, ModelRejected, ModelTooLarge, StoreUnavailable, Canceled: see `ensure`.
        """
        watch, wanted = Watch(progress, cancelled), conversion.check_possible(quantization)
        with self._disk_errors():
            source = self._finder.known(name, watch)
            if source.info.holds(wanted):
                return self._stored(name, source)
            return stored_model(
                self.directory, *self._finder.converted(name, source, wanted, watch)
            )

    def add_file(
        self,
        file: Path,
        *,
        sha256: str | None = None,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> StoredModel:
        """Copy a file of this machine into the store (the owner's own doing, never a job's).

        Raises:
            ModelNotFound: there is no such file.
            ConfigError, ModelRejected, ModelTooLarge, StoreUnavailable, Canceled: see `ensure`.
        """
        name, watch = checked_name(file.name, str(file)), Watch(progress, cancelled)
        if not file.is_file():
            raise ModelNotFound(f"no file {file}")
        with self._disk_errors(), self._shelf.locked(name, watch):
            if (self.directory / name).exists():
                raise ConfigError(
                    f"{name} is in the model store already", hint="remove it first, or rename yours"
                )
            total, done, part = file.stat().st_size, 0, self._shelf.part(name)
            self._shelf.check_room(total)
            try:
                with file.open("rb") as source, part.open("wb") as target:
                    while chunk := source.read(CHUNK_BYTES):
                        watch.check()
                        done += target.write(chunk)
                        watch.tell(done, total)
                digest, info = hash_file(part, watch).hexdigest(), inspect(part)
                if sha256 not in (None, digest):
                    raise ModelRejected(f"{file} has SHA-256 {digest}, not {sha256}")
                self._shelf.install(part, name)
            finally:
                part.unlink(missing_ok=True)
            return stored_model(
                self.directory, name, self._maker.describe(name, f"path:{name}", digest, info)
            )

    def _stored(self, name: str, sidecar: Sidecar) -> StoredModel:
        return stored_model(self.directory, name, sidecar)

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ModelTooLarge(f"model store {self.directory}: {error.strerror}") from error
            raise StoreUnavailable(
                f"model store {self.directory}: {error.strerror or error}",
                hint="choose a directory that this user can read and write (models.dir)",
            ) from error
