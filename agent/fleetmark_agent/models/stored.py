"""A model in the store as its users see it: the file, and what is known about it."""

from dataclasses import dataclass
from pathlib import Path

from fleetmark_agent.models.gguf_file import GgufInfo
from fleetmark_agent.models.sidecar import Recipe, Sidecar
from fleetmark_protocol.messages import ModelInfo


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


def stored_model(directory: Path, name: str, sidecar: Sidecar) -> StoredModel:
    """Return what the sidecar of a file says."""
    gguf = sidecar.info
    info = ModelInfo(
        name=name,
        sha256=sidecar.sha256,
        bytes=sidecar.bytes,
        architecture=gguf.architecture,
        parameters=gguf.parameters,
        quantization=gguf.quantization,
        bits_per_weight=gguf.bits_per_weight,
        origin_sha256=sidecar.origin_sha256,
    )
    return StoredModel(
        path=directory / name,
        sha256=sidecar.sha256,
        origin_sha256=sidecar.origin_sha256,
        quantization=gguf.quantization,
        bytes=sidecar.bytes,
        bits_per_weight=gguf.bits_per_weight,
        info=info,
        gguf=gguf,
        ref=sidecar.ref,
        recipe=sidecar.recipe,
    )
