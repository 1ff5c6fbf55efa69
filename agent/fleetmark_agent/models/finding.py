"""Finds the file that a job means on the shelf, and has it made when it is not there."""

from collections.abc import Iterator

from fleetmark_agent.config import ModelSettings
from fleetmark_agent.models import convert as conversion
from fleetmark_agent.models import reference as references
from fleetmark_agent.models.gguf_file import KNOWN_QUANTIZATIONS, inspect
from fleetmark_agent.models.making import Maker, converted_name, fetched_name
from fleetmark_agent.models.reference import PathReference, Reference, checked_name
from fleetmark_agent.models.shelf import Shelf
from fleetmark_agent.models.sidecar import Sidecar
from fleetmark_agent.models.watch import Watch, hash_file
from fleetmark_protocol import logs
from fleetmark_protocol.errors import ConfigError, ModelNotFound, ModelRejected
from fleetmark_protocol.messages import ModelSpec


class Finder:
    """Takes the locks of the files it makes or changes."""

    def __init__(self, shelf: Shelf, maker: Maker, settings: ModelSettings) -> None:
        self._shelf = shelf
        self._maker = maker
        self._settings = settings
        self._log = logs.get("models")

    def find_or_make(self, spec: ModelSpec, watch: Watch) -> tuple[str, Sidecar]:
        """Return the name of the file that a job means, and what is known about it.

        Raises:
            FleetmarkError: see `ModelStore.ensure`.
        """
        settings = self._settings
        reference = references.parse(spec.ref, settings.hf_endpoint)
        references.check_allowed(spec.ref, settings.allow_sources)
        if spec.sha256 is None and settings.require_sha256 and references.needs_sha256(reference):
            raise ConfigError(
                f"model reference {spec.ref!r}: this device takes no download without a SHA-256",
                hint="add `sha256`, or let the device's owner set models.require_sha256 = false",
            )
        wanted = spec.quantization.upper() if spec.quantization else None
        if wanted is not None:
            if wanted not in KNOWN_QUANTIZATIONS:
                conversion.check_possible(wanted)
            made = self._made_before(spec, reference, wanted, watch)
            if made is not None:
                return made
        name, origin = self._origin(spec, reference, watch)
        if wanted is None or origin.info.holds(wanted):
            return name, origin
        conversion.check_possible(wanted)
        if not settings.allow_convert:
            raise ModelRejected(
                f"{spec.ref} holds {origin.info.quantization}, not {wanted}, and this device does"
                " not convert",
                hint="name a file that holds it, or let the owner set models.allow_convert = true",
            )
        return self.converted(name, origin, wanted, watch)

    def _made_before(
        self, spec: ModelSpec, reference: Reference, quantization: str, watch: Watch
    ) -> tuple[str, Sidecar] | None:
        """Find a conversion, even if what it was made of is gone by now."""
        for name, sidecar in self._shelf.known():
            recipe = sidecar.recipe
            if recipe is None or (recipe.quantization, recipe.version) != (
                quantization,
                conversion.RECIPE_VERSION,
            ):
                continue
            # What `path:NAME` means may change at any time; what a download brought does not.
            by_ref = sidecar.ref == spec.ref and not isinstance(reference, PathReference)
            if recipe.source_sha256 == spec.sha256 or (spec.sha256 is None and by_ref):
                good = self._still_good(name, sidecar.sha256, watch)
                if good is not None:
                    return name, good
        return None

    def _origin(self, spec: ModelSpec, reference: Reference, watch: Watch) -> tuple[str, Sidecar]:
        """Find or fetch the very file that a reference names."""
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

    def converted(
        self, name: str, source: Sidecar, quantization: str, watch: Watch
    ) -> tuple[str, Sidecar]:
        """Convert a file, unless it was converted before.

        Raises:
            FleetmarkError: see `ModelStore.convert`.
        """
        new = converted_name(name, source.sha256, quantization)
        with self._shelf.locked(new, watch):
            made = None
            if self._shelf.sidecar(new) is not None:
                made = self._still_good(new, None, watch, locked=True)
            if made is None:
                self._shelf.drop(new)
                made = self._maker.convert(name, source, quantization, new, watch)
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
        """Return what is known about a file of ours, or None if it must be brought in again."""
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
        """Return what is known about a file; hash and inspect it if it is new or looks changed.

        Args:
            name: in the store.
            watch: told and asked while it is hashed.
            ref: where it came from, if nobody has written it down.
            locked: whether the caller holds the file's lock.

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
        seen, digest = path.stat(), hash_file(path, watch).hexdigest()
        if digest != sidecar.sha256 and not sidecar.by_hand:
            raise ModelRejected(
                f"{name} has changed since it came from {sidecar.ref}",
                hint="remove it; it is fetched again when a job needs it",
            )
        return self._maker.describe(name, sidecar.ref, digest, inspect(path), sidecar.recipe, seen)

    def intact(self) -> Iterator[tuple[str, Sidecar]]:
        """Yield the files that look as they did when they were hashed."""
        for name, sidecar in self._shelf.known():
            try:
                if sidecar.fits(self._shelf.find(name)):
                    yield name, sidecar
            except (OSError, ModelNotFound, ModelRejected):
                continue  # removed meanwhile, or a link: asking for it by name says what is wrong
