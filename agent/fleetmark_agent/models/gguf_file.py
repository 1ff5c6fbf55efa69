"""Says what a GGUF file holds: its frame checked first, then read with the `gguf` package.

For the child process of `formats`; nothing else may be harmed by what strangers wrote.
"""

import os
import re
from collections import Counter
from pathlib import Path

from fleetmark_agent.ggufreader import FrugalReader
from fleetmark_agent.models.facts import FILE_TYPES, ORIGIN_KEY, ModelFacts
from fleetmark_agent.models.gguf_structure import Structure, read_structure
from fleetmark_agent.models.watch import CHUNK_BYTES
from fleetmark_protocol.errors import ModelRejected
from fleetmark_protocol.ids import SHA256_PATTERN
from fleetmark_protocol.values import clip


def read_gguf(path: Path) -> ModelFacts:
    """Say what a GGUF file holds.

    Raises:
        ModelNotFound, ModelRejected: see `read_structure`; or the package cannot read it.
    """
    structure = read_structure(path)
    return describe(structure, checked_reader(path, path.name))


def read_gguf_inside(path: Path, window: tuple[int, int]) -> ModelFacts:
    """Say what the GGUF file inside another one holds.

    The package reads whole files only, so it gets a copy of the frame, as long as the original but
    without weights: a hole takes no memory.

    Raises:
        ModelNotFound, ModelRejected: see `read_gguf`.
    """
    structure = read_structure(path, window)
    handle = os.memfd_create("frame")
    try:
        os.ftruncate(handle, window[1])
        with path.open("rb") as file, os.fdopen(os.dup(handle), "wb") as copy:
            file.seek(window[0])
            left = structure.bytes
            while left:
                left -= copy.write(file.read(min(left, CHUNK_BYTES)))
        return describe(structure, checked_reader(Path(f"/proc/self/fd/{handle}"), path.name))
    finally:
        os.close(handle)


def checked_reader(path: Path, name: str) -> FrugalReader:
    """Open a file whose frame is good.

    Raises:
        ModelRejected: the package knows its kind of file no better than this.
    """
    try:
        return FrugalReader(path)
    except (ValueError, KeyError, IndexError) as error:
        raise ModelRejected(f"{name}: the gguf package cannot read it: {error}") from error


def describe(structure: Structure, reader: FrugalReader) -> ModelFacts:
    """Sum a file up."""
    weights: Counter[str] = Counter()
    for tensor in reader.tensors:
        weights[tensor.tensor_type.name] += int(tensor.n_elements)
    parameters = weights.total()
    prefix = str(reader.value("general.architecture") or "")
    file_type = reader.number("general.file_type")
    origin = str(reader.value(ORIGIN_KEY))
    return ModelFacts.model_validate(
        {
            "format": "gguf",
            "architecture": clip(prefix, 256) or None,
            "parameters": parameters,
            "quantization": weights.most_common(1)[0][0],
            "mix": {name: count / parameters for name, count in weights.most_common()},
            "bits_per_weight": sum(tensor.bytes for tensor in structure.tensors) * 8 / parameters,
            "context_tokens": reader.number(f"{prefix}.context_length"),
            "file_type": FILE_TYPES.get(file_type) if file_type is not None else None,
            "tensors": len(reader.tensors),
            "kv_values_per_token": _kv_values_per_token(reader, prefix),
            "vocabulary": reader.length("tokenizer.ggml.tokens")
            or reader.number(f"{prefix}.vocab_size"),
            "origin_sha256": origin if re.fullmatch(SHA256_PATTERN, origin) else None,
        }
    )


def _kv_values_per_token(reader: FrugalReader, prefix: str) -> int | None:
    """Sum over layers of key-value heads x (key length + value length).

    A sliding window or a compressed cache makes it less; nothing makes it more.
    """
    layers = reader.number(f"{prefix}.block_count")
    width = reader.number(f"{prefix}.embedding_length")
    most_heads = max(_each(reader, f"{prefix}.attention.head_count"), default=0)
    if layers is None or width is None or most_heads < 1:
        return None
    per_layer = _each(reader, f"{prefix}.attention.head_count_kv") or [most_heads]
    kv_heads = sum(per_layer) if len(per_layer) > 1 else per_layer[0] * layers
    key = reader.number(f"{prefix}.attention.key_length") or width // most_heads
    value = reader.number(f"{prefix}.attention.value_length") or width // most_heads
    total = kv_heads * (key + value)
    return total if 0 <= total < 2**40 else None


def _each(reader: FrugalReader, key: str) -> list[int]:
    """Return one number for all layers, or one for each."""
    number, numbers = reader.number(key), reader.array(key)
    if number is not None:
        return [number]
    return [int(item) for item in numbers.tolist()] if numbers is not None else []
