"""Makes a Hugging Face model directory out of a GGUF file, in a child; no torch is needed.

Matrices get one floating-point type, what has one dimension (norms, biases) stays in single
precision. What quantization lost does not come back: the metadata says what the weights were.
"""

import json
import struct
import sys
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any

from fleetmark_agent.models.children import limit_memory
from fleetmark_agent.models.converters import run_converter, serve, tell
from fleetmark_agent.models.facts import ORIGIN_KEY
from fleetmark_agent.models.gguf_structure import Tensor, read_structure
from fleetmark_agent.models.safetensors_dir import CONFIG, METADATA
from fleetmark_agent.models.watch import NOBODY, Watch
from fleetmark_protocol.errors import ModelRejected

BASE_MEMORY_BYTES = 2 << 30
WORK_BYTES_PER_WEIGHT = 16
"""The largest tensor whole: in single precision, its rows in another order, and as written."""
WEIGHTS_FROM_KEY = "fleetmark.weights_from"
"""Metadata: the type that most weights had in the GGUF file."""
END_KEYS = ("eos", "eot", "eom")
_ALIGNMENT = 8
_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def convert(
    source: Path,
    target: Path,
    dtype: str,
    *,
    origin_sha256: str,
    max_bytes: int,
    watch: Watch = NOBODY,
) -> str:
    """Write a model directory to `target`; return what computed it.

    Args:
        source: a GGUF file.
        target: a directory that is not there yet.
        dtype: F32, F16 or BF16, for matrices.
        origin_sha256: written into the new file, so that its origin stays known elsewhere.
        max_bytes: bound of every file.
        watch: told the source's bytes done; asked several times a second.

    Raises:
        ModelRejected, ModelTooLarge, BackendTimeout, Canceled: see `run_converter`.
    """
    words = [dtype, origin_sha256]
    return run_converter(
        "convert_safetensors", source, target, words, max_bytes=max_bytes, watch=watch
    )


# --- the child ----------------------------------------------------------------------------------


def _child(source: Path, target: Path, words: list[str]) -> str:
    dtype, origin_sha256 = words
    tensors = read_structure(source).tensors
    largest = max(tensor.weights for tensor in tensors)
    limit_memory(BASE_MEMORY_BYTES + WORK_BYTES_PER_WEIGHT * largest)
    try:
        _write(source, target, tensors, dtype, origin_sha256)
    except (ValueError, KeyError, TypeError, IndexError, NotImplementedError) as error:
        raise ModelRejected(f"{source.name} cannot become safetensors: {error}") from error
    return f"gguf {version('gguf')}, numpy {version('numpy')}"


def _write(
    source: Path, target: Path, tensors: tuple[Tensor, ...], dtype: str, origin_sha256: str
) -> None:
    import numpy as np
    from gguf import GGMLQuantizationType, quants

    from fleetmark_agent.huggingface import config, reading, tokenizer, weights

    gguf = reading.open_gguf(source)
    found = [tensor for tensor in tensors if tensor.name != weights.ROPE_FACTORS]
    names = [weights.parameter_name(tensor.name) for tensor in found]
    types = [dtype if len(tensor.shape) > 1 else "F32" for tensor in found]
    metadata = {
        "format": "pt",
        ORIGIN_KEY: origin_sha256,
        WEIGHTS_FROM_KEY: weights.weights_from(gguf),
    }
    target.mkdir()
    ends = [gguf.values.get(f"tokenizer.ggml.{key}_token_id") for key in END_KEYS]
    for name, content in (
        (CONFIG, {**config.config_of(gguf), "dtype": _DTYPES[dtype]}),
        ("generation_config.json", {"eos_token_id": [end for end in ends if end is not None]}),
        ("tokenizer.json", tokenizer.tokenizer_of(gguf)),
        ("tokenizer_config.json", tokenizer.tokenizer_config_of(gguf)),
    ):
        (target / name).write_text(json.dumps(content, ensure_ascii=False, indent=1), "utf-8")
    total, done = sum(tensor.bytes for tensor in tensors), 0
    with (target / "model.safetensors").open("wb") as write:
        write.write(_header(names, found, types, metadata))
        for tensor, kind, (_, values) in zip(found, types, weights.parameters(gguf), strict=True):
            plain = np.ascontiguousarray(values, dtype=np.float32)
            write.write(quants.quantize(plain, GGMLQuantizationType[kind]).tobytes())
            done += tensor.bytes
            tell(done, total)


def _header(
    names: list[str], tensors: list[Tensor], types: list[str], metadata: dict[str, str]
) -> bytes:
    rows: dict[str, Any] = {METADATA: metadata}
    offset = 0
    for name, tensor, kind in zip(names, tensors, types, strict=True):
        end = offset + prod(tensor.shape) * _BYTES[kind]
        shape = list(reversed(tensor.shape))
        rows[name] = {"dtype": kind, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(rows, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // _ALIGNMENT) * _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


if __name__ == "__main__":
    sys.exit(serve(_child, None))
