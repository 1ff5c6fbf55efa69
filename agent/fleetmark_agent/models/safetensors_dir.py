"""Says what a Hugging Face model directory holds: its config and the headers of its safetensors.

Safetensors hold numbers alone. What could run code is refused: pickles, Python files, and a config
that names classes of its own. The header is read here: the package would bring torch or numpy.
"""

import json
import re
import struct
from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fleetmark_agent.models.facts import ORIGIN_KEY, ModelFacts
from fleetmark_agent.models.model_files import files_of
from fleetmark_protocol.errors import ModelRejected
from fleetmark_protocol.ids import SHA256_PATTERN
from fleetmark_protocol.values import Count

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
METADATA = "__metadata__"
PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
MAX_HEADER_BYTES = 64 * 2**20
MAX_JSON_BYTES = 64 * 2**20
_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8,
}  # fmt: skip


class _Config(BaseModel):
    """What is used of a config; models name the same in several ways."""

    model_config = ConfigDict(extra="ignore")

    model_type: str | None = None
    max_position_embeddings: Count | None = None
    vocab_size: Count | None = None
    num_hidden_layers: Count | None = None
    num_attention_heads: Count | None = None
    num_key_value_heads: Count | None = None
    hidden_size: Count | None = None
    head_dim: Count | None = None


class _Row(BaseModel):
    """One tensor of a header."""

    dtype: str
    shape: tuple[Count, ...] = Field(max_length=8)
    data_offsets: tuple[Count, Count]


_ROWS = TypeAdapter(dict[str, _Row])


def read_safetensors(path: Path) -> ModelFacts:
    """Say what a model directory holds.

    Raises:
        ModelRejected: it holds no safetensors, or what is not let in; says what.
    """
    files = files_of(path)
    _check_harmless(path, files)
    config = _config(path)
    weights: Counter[str] = Counter()
    names: set[str] = set()
    bits = 0
    origins: set[str] = set()
    for file in (file for file in files if file.suffix == ".safetensors"):
        rows, metadata = read_header(file)
        if names & rows.keys():
            raise ModelRejected(f"{path.name}: tensor {min(names & rows.keys())!r} comes twice")
        names |= rows.keys()
        for row in rows.values():
            weights[row.dtype] += prod(row.shape)
            bits += prod(row.shape) * _BITS[row.dtype]
        origins.add(str(metadata.get(ORIGIN_KEY)))
    parameters = weights.total()
    if not parameters:
        raise ModelRejected(f"{path.name}: a model directory without safetensors")
    _check_complete(path, names)
    origin = origins.pop() if len(origins) == 1 else ""
    return ModelFacts.model_validate(
        {
            "format": "safetensors",
            "architecture": config.model_type,
            "parameters": parameters,
            "quantization": weights.most_common(1)[0][0],
            "mix": {name: count / parameters for name, count in weights.most_common()},
            "bits_per_weight": bits / parameters,
            "context_tokens": config.max_position_embeddings,
            "tensors": len(names),
            "kv_values_per_token": _kv_values_per_token(config),
            "vocabulary": config.vocab_size,
            "origin_sha256": origin if re.fullmatch(SHA256_PATTERN, origin) else None,
        }
    )


def read_header(file: Path) -> tuple[dict[str, _Row], dict[str, Any]]:
    """Return a safetensors file's tensors and metadata, checked against its length.

    Raises:
        ModelRejected: it is damaged or no such file.
    """
    name, size = f"{file.parent.name}/{file.name}", file.stat().st_size
    with file.open("rb") as content:
        head = content.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise ModelRejected(f"{name}: no safetensors file, or truncated")
        text = content.read(length)
    try:
        header = json.loads(text)
        metadata = header.pop(METADATA, {})
        rows = _ROWS.validate_python(header)
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise ModelRejected(f"{name}: its header cannot be read") from error
    end = 0
    for tensor, row in sorted(rows.items(), key=lambda item: item[1].data_offsets):
        start, stop = row.data_offsets
        wanted = prod(row.shape) * _BITS.get(row.dtype, 0) // 8
        if row.dtype not in _BITS or start != end or stop - start != wanted:
            raise ModelRejected(f"{name}: tensor {tensor!r} of {row.dtype} contradicts its place")
        end = stop
    if 8 + length + end != size:
        raise ModelRejected(
            f"{name}: truncated or damaged: it has {size:,} bytes, its header says"
            f" {8 + length + end:,}"
        )
    return rows, metadata if isinstance(metadata, dict) else {}


def _check_harmless(path: Path, files: list[Path]) -> None:
    for file in files:
        name = f"{path.name}/{file.name}"
        if file.suffix in PICKLES:
            raise ModelRejected(
                f"{name}: a pickle can run code, so no model with one is used",
                hint="remove it from the directory, if the weights are there as .safetensors too",
            )
        if file.suffix in (".py", ".so"):
            raise ModelRejected(f"{name}: a model that brings its own code is not used")
        if file.name.endswith("config.json") and "auto_map" in _object(file):
            raise ModelRejected(f"{name}: `auto_map` asks for the model's own code; it is not used")


def _config(path: Path) -> _Config:
    try:
        return _Config.model_validate(_object(path / CONFIG))
    except ValidationError as error:
        wrong = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise ModelRejected(f"{path.name}/{CONFIG}: {wrong} cannot be right") from error


def _check_complete(path: Path, names: set[str]) -> None:
    if not (path / INDEX).exists():
        return
    listed = _object(path / INDEX).get("weight_map")
    missing = sorted(set(listed) - names) if isinstance(listed, dict) else []
    if missing:
        raise ModelRejected(f"{path.name}: tensor {missing[0]!r} of its index is missing")


def _object(file: Path) -> dict[str, Any]:
    """Return a JSON file's object; empty where the file holds something else."""
    name = f"{file.parent.name}/{file.name}"
    try:
        if file.stat().st_size > MAX_JSON_BYTES:
            raise ModelRejected(f"{name}: too long")
        content = json.loads(file.read_bytes())
    except FileNotFoundError as error:
        raise ModelRejected(f"{file.parent.name}: no model directory: no {file.name}") from error
    except (ValueError, RecursionError) as error:
        raise ModelRejected(f"{name}: no JSON") from error
    return content if isinstance(content, dict) else {}


def _kv_values_per_token(config: _Config) -> int | None:
    heads = config.num_attention_heads
    if not heads or not config.hidden_size or not config.num_hidden_layers:
        return None
    per_head = config.head_dim or config.hidden_size // heads
    total = config.num_hidden_layers * (config.num_key_value_heads or heads) * per_head * 2
    return total if total < 2**40 else None
