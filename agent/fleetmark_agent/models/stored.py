"""A model as its users see it: where it is, and what is known about it."""

from dataclasses import dataclass
from pathlib import Path

from fleetmark_agent.models.facts import ModelFacts
from fleetmark_agent.models.preflight import KV_BYTES_PER_VALUE
from fleetmark_agent.models.sidecar import Recipe, Sidecar
from fleetmark_protocol.errors import ConfigError, ModelRejected
from fleetmark_protocol.messages import ModelInfo, ModelSpec


@dataclass(frozen=True)
class StoredModel:
    """A model that can be loaded now.

    Attributes:
        path: the file or directory; of a remote model, its name at the engine's server.
        format: `gguf`, `ggml`, `safetensors`, `llamafile` or `remote`.
        sha256: of the model (see `model_files`); None of a remote one.
        origin_sha256: of the one whose weights these are; its own if nothing was converted.
        quantization: type that most of its weights have, as far as the model tells.
        bytes: length of the file, or of all in the directory; None of a remote one.
        bits_per_weight: over all tensors, as far as the model tells.
        facts: all that is known of its content.
        ref: where it, or what it was made of, came from.
        recipe: how it was made here, if it was.
    """

    path: Path
    format: str
    sha256: str | None
    origin_sha256: str | None
    quantization: str | None
    bytes: int | None
    bits_per_weight: float | None
    facts: ModelFacts
    ref: str
    recipe: Recipe | None = None


def stored_model(directory: Path, name: str, sidecar: Sidecar) -> StoredModel:
    """Return what the sidecar of a model says."""
    facts = sidecar.info
    return StoredModel(
        path=directory / name,
        format=facts.format,
        sha256=sidecar.sha256,
        origin_sha256=sidecar.origin_sha256,
        quantization=facts.quantization,
        bytes=sidecar.bytes,
        bits_per_weight=facts.bits_per_weight,
        facts=facts,
        ref=sidecar.ref,
        recipe=sidecar.recipe,
    )


def remote_model(spec: ModelSpec, name: str, formats: tuple[str, ...]) -> StoredModel:
    """Return a model that an engine's own server has; only that server knows what it is.

    Raises:
        ConfigError: something is asked of it that nobody here can check or make.
        ModelRejected: the backend has no server.
    """
    if spec.sha256 is not None or spec.quantization is not None:
        raise ConfigError(
            f"model reference {spec.ref!r}: the server's model has no digest or quantization here",
            hint="leave `sha256` and `quantization` out; the name says which model it is",
        )
    if "remote" not in formats:
        raise ModelRejected(
            f"{spec.ref} is a model of a server; its backend reads {' or '.join(formats)}",
            hint="name a model file, or a backend with a server of its own (ollama, openai)",
        )
    return StoredModel(
        path=Path(name),
        format="remote",
        sha256=None,
        origin_sha256=None,
        quantization=None,
        bytes=None,
        bits_per_weight=None,
        facts=ModelFacts(format="remote"),
        ref=spec.ref,
    )


def model_info(name: str, sidecar: Sidecar) -> ModelInfo:
    """Return what the inventory says of a model."""
    facts = sidecar.info
    return ModelInfo(
        name=name,
        sha256=sidecar.sha256,
        bytes=sidecar.bytes,
        format=facts.format,
        architecture=facts.architecture,
        parameters=facts.parameters,
        quantization=facts.quantization,
        bits_per_weight=facts.bits_per_weight,
        origin_sha256=sidecar.origin_sha256,
        kv_bytes_per_token=None
        if facts.kv_values_per_token is None
        else facts.kv_values_per_token * KV_BYTES_PER_VALUE,
    )
