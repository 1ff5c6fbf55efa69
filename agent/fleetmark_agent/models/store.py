"""Finds, fetches, checks and converts models: what the runner asks for a job's weights.

Every model, a file or a directory, lies beside what is known about it (see `shelf`); it is hashed
when it comes and again only when it looks changed.
"""

import builtins
import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from fleetmark_agent.config import AgentSettings, ModelSettings
from fleetmark_agent.models import reference as references
from fleetmark_agent.models import targets
from fleetmark_agent.models.addresses import Guard
from fleetmark_agent.models.download import Downloader
from fleetmark_agent.models.finding import Finder
from fleetmark_agent.models.formats import inspect
from fleetmark_agent.models.making import Maker
from fleetmark_agent.models.model_files import check_readable, hash_model, look_at
from fleetmark_agent.models.preflight import check_fits
from fleetmark_agent.models.reference import RemoteReference, checked_name
from fleetmark_agent.models.shelf import Shelf
from fleetmark_agent.models.sidecar import Sidecar
from fleetmark_agent.models.stored import StoredModel, model_info, remote_model, stored_model
from fleetmark_agent.models.watch import Cancelled, Progress, Watch
from fleetmark_protocol.errors import (
    ConfigError,
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
        downloader = Downloader(self._shelf.check_room, guard=Guard(settings.private_places))
        self._maker = Maker(self._shelf, settings, downloader)
        self._finder = Finder(self._shelf, self._maker, settings)
        self._settings = settings
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
        formats: tuple[str, ...] = ("gguf",),
        context_tokens: int | None = None,
        contexts: int = 1,
        held_bits: float | None = None,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> StoredModel:
        """Return the model of a job: found, else fetched, and converted where it must be.

        Args:
            spec: which.
            formats: what the job's backend reads (see `facts`), what it likes best first.
            context_tokens: checks that it fits in memory with so large a context.
            contexts: how many of them.
            held_bits: bits per weight in memory, where the backend unpacks what the file holds.
            progress: called with bytes done and bytes in all (None: unknown).
            cancelled: asked all the time; true aborts.

        Raises:
            ConfigError: the reference or the quantization is wrong.
            SourceNotAllowed: the owner does not let it in.
            ModelNotFound, DownloadFailed: it is not there, or did not come.
            ModelRejected: it is damaged, of no format that the backend reads and nothing makes it
                one, or has another digest.
            BackendUnavailable: a conversion needs a tool that is not installed.
            ModelTooLarge: it fits neither the quota, the disk nor memory.
            StoreUnavailable: the store's directory cannot be used.
            Canceled: asked to stop.
        """
        settings, watch = self._settings, Watch(progress, cancelled)
        reference = references.parse(spec.ref, settings.hf_endpoint)
        references.check_allowed(spec.ref, settings.allow_sources)
        if isinstance(reference, RemoteReference):
            return remote_model(spec, reference.name, formats)
        if spec.sha256 is None and settings.require_sha256 and references.needs_sha256(reference):
            raise ConfigError(
                f"model reference {spec.ref!r}: this device takes no download without a SHA-256",
                hint="add `sha256`, or let the device's owner set models.require_sha256 = false",
            )
        with self._disk_errors():
            name, sidecar = self._finder.find_or_make(spec, reference, formats, watch)
        if context_tokens is not None:
            available = self._mem_available_bytes()
            held_bytes = int((sidecar.info.parameters or 0) * (held_bits or 0) / 8)
            held_bytes = max(sidecar.bytes, held_bytes)
            check_fits(sidecar.info, held_bytes, context_tokens, available, contexts)
        return self._stored(name, sidecar)

    def list(self) -> builtins.list[ModelInfo]:
        """Return the models that can be used as they are; cheap, nothing is hashed.

        A model dropped in by hand is told once it was used or verified.

        Raises:
            StoreUnavailable: the store's directory cannot be used.
        """
        with self._disk_errors():
            return [model_info(name, sidecar) for name, sidecar in self._finder.intact()]

    def unknown(self) -> builtins.list[str]:
        """Return the models that were never looked at, or have changed since.

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
        """Return a model of the store by its name, looked at first if it is new.

        Raises:
            ConfigError, ModelNotFound, ModelRejected, StoreUnavailable, Canceled: see `ensure`.
        """
        with self._disk_errors():
            return stored_model(
                self.directory, name, self._finder.known(name, Watch(cancelled=cancelled))
            )

    def check_unchanged(self, model: StoredModel, *, cancelled: Cancelled | None = None) -> None:
        """See that a model is what it was when it was found; hashed only if it looks changed.

        Raises:
            ModelRejected: somebody has changed it meanwhile.
            ModelNotFound, StoreUnavailable, Canceled: it is gone; asked to stop.
        """
        if model.format == "remote":
            return
        if self.get(model.path.name, cancelled=cancelled).sha256 != model.sha256:
            raise ModelRejected(f"{model.path.name} was changed while the job was under way")

    def check_looks_same(self, model: StoredModel) -> None:
        """See that a model still looks as when it was hashed; never reads it, so costs no time.

        Raises:
            ModelRejected, ModelNotFound, StoreUnavailable: see `check_unchanged`.
        """
        if model.format != "remote":
            with self._disk_errors():
                name = model.path.name
                path, sidecar = self._shelf.find(name), self._shelf.sidecar(name)
                known = sidecar is not None and sidecar.sha256 == model.sha256
                if sidecar is None or not known or not sidecar.fits(path):
                    raise ModelRejected(f"{name} was changed while it was loaded")

    def remove(self, name: str) -> None:
        """Remove a model, finished or not, and what is known about it.

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
        """Read a whole model again and compare it with what it was; finds rot that nothing shows.

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
                seen, digest = look_at(path), hash_model(path, watch)
                if digest != sidecar.sha256:
                    self._shelf.describe(name, sidecar.model_copy(update={"mtime_ns": None}))
                    raise ModelRejected(
                        f"{name} has changed: {seen.bytes:,} bytes with SHA-256 {digest},"
                        f" was {sidecar.bytes:,} bytes with {sidecar.sha256}",
                        hint=f"remove it (`fleetmark-agent model rm {name}`) and fetch it again",
                    )
                sidecar = self._maker.describe(
                    name, sidecar.ref, digest, inspect(path), sidecar.recipe, seen, watch=watch
                )
                return self._stored(name, sidecar)

    def convert(
        self,
        name: str,
        wanted: str,
        *,
        tool: targets.Wish = "auto",
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> StoredModel:
        """Make another quantization or format of a model of the store, whatever jobs may ask for.

        Args:
            name: of the model.
            wanted: a quantization, `gguf-2023` or `safetensors`.
            tool: whose quantizer; `auto` is llama.cpp's where it is installed.
            progress: as in `ensure`.
            cancelled: as in `ensure`.

        Raises:
            ConfigError: this cannot be made.
            BackendUnavailable: a tool for it is not installed.
            ModelNotFound, ModelRejected, ModelTooLarge, StoreUnavailable, Canceled: see `ensure`.
        """
        watch, target = Watch(progress, cancelled), targets.for_owner(wanted, tool)
        with self._disk_errors():
            source = self._finder.known(name, watch)
            if target.quantization is not None and source.info.holds(target.quantization):
                return self._stored(name, source)
            return self._stored(*self._finder.converted(name, source, target, watch))

    def add_file(
        self,
        file: Path,
        *,
        sha256: str | None = None,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> StoredModel:
        """Copy a file or directory of this machine in (the owner's own doing, never a job's).

        Raises:
            ModelNotFound: there is no such model.
            ConfigError, ModelRejected, ModelTooLarge, StoreUnavailable, Canceled: see `ensure`.
        """
        file = file.absolute()
        name, watch = checked_name(file.name, str(file)), Watch(progress, cancelled)
        check_readable(file)
        with self._disk_errors(), self._shelf.locked(name, watch):
            if (self.directory / name).exists():
                raise ConfigError(
                    f"{name} is in the model store already", hint="remove it first, or rename yours"
                )
            return self._stored(name, self._maker.copy(file, name, sha256, watch))

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
