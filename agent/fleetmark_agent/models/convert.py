"""Makes another quantization of a GGUF file with the `gguf` package's quantizers, in a child.

Recipe: every matrix (two dimensions or more, named `*.weight`) gets the type asked for; rows that
are not a multiple of its block get F16; what must stay exact (norms, routers, convolutions, 1-D)
is copied. Metadata is copied byte for byte, with `general.file_type` set. Weights go through in
pieces of half a million, so that memory does not grow with the model.
"""

import os
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from fleetmark_agent.models.converters import run_converter, serve, tell
from fleetmark_agent.models.facts import FILE_TYPES, ORIGIN_KEY
from fleetmark_agent.models.gguf_header import (
    TYPE_IDS,
    Row,
    header,
    length_of,
    padded,
    read_entries,
    text,
    uint32,
)
from fleetmark_agent.models.gguf_structure import TENSOR_TYPES, Tensor, read_structure
from fleetmark_agent.models.watch import NOBODY, Watch
from fleetmark_protocol.errors import ModelRejected

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_MEMORY_BYTES = 3 << 30
PIECE_WEIGHTS = 1 << 19
"""A multiple of every block length."""
MAX_THREADS = 4

_EXACT = ("_norm", "ffn_gate_inp", "position_embd", "token_types", "ssm_conv1d", "shortconv")
"""Parts of names of matrices that engines expect unquantized."""
_FILE_TYPE_IDS = {name: number for number, name in FILE_TYPES.items()}
_QUANTIZATION_VERSION = 2


def estimated_bytes(parameters: int, type_name: str) -> int:
    """Return about how long a converted file will be."""
    return length_of(parameters, type_name) + 16 * 2**20


def convert(
    source: Path,
    target: Path,
    quantization: str,
    *,
    origin_sha256: str,
    max_bytes: int,
    watch: Watch = NOBODY,
) -> str:
    """Write `source` in another quantization to `target`; return what computed it.

    Args:
        source: a GGUF file.
        target: overwritten.
        quantization: one of `targets.BY_GGUF`.
        origin_sha256: written into the new file, so that its origin stays known elsewhere.
        max_bytes: bound of the new file.
        watch: told the source's bytes done; asked several times a second.

    Raises:
        ModelRejected, ModelTooLarge, BackendTimeout, Canceled: see `run_converter`.
    """
    words = [quantization, origin_sha256]
    return run_converter("convert", source, target, words, max_bytes=max_bytes, watch=watch)


def target_type(tensor: Tensor, quantization: str) -> str:
    """Return the type that a tensor gets."""
    matrix = len(tensor.shape) > 1 and tensor.name.endswith(".weight")
    if not matrix or any(part in tensor.name for part in _EXACT):
        return tensor.type_name
    if tensor.shape[0] % TENSOR_TYPES[TYPE_IDS[quantization]][1]:
        return "F16"
    return quantization


# --- the child ----------------------------------------------------------------------------------


def _rewrite(source: Path, target: Path, words: list[str]) -> str:
    quantization, origin_sha256 = words
    structure = read_structure(source)
    rows = [
        Row(tensor.name, tensor.shape, target_type(tensor, quantization), tensor.weights)
        for tensor in structure.tensors
    ]
    _check_readable(structure.tensors, rows)
    entries = read_entries(source, structure)
    for key, number in (
        ("general.file_type", _FILE_TYPE_IDS[quantization]),
        ("general.quantization_version", _QUANTIZATION_VERSION),
    ):
        entries[key] = uint32(key, number)
    entries.setdefault(ORIGIN_KEY, text(ORIGIN_KEY, origin_sha256))
    total, done = sum(tensor.bytes for tensor in structure.tensors), 0
    threads = min(MAX_THREADS, os.cpu_count() or 1)
    with (
        ThreadPoolExecutor(threads) as pool,
        source.open("rb") as read,
        target.open("wb") as write,
    ):
        write.write(header(entries, rows, structure.alignment))
        for tensor, row in zip(structure.tensors, rows, strict=True):
            for piece in _pieces(pool, threads, read, tensor, row.type_name):
                write.write(piece)
            done += tensor.bytes
            write.write(bytes(padded(write.tell(), structure.alignment) - write.tell()))
            tell(done, total)
    return f"gguf {version('gguf')}, numpy {version('numpy')}"


def _pieces(
    pool: ThreadPoolExecutor, threads: int, read: IO[bytes], tensor: Tensor, name: str
) -> Iterator[bytes]:
    """Yield a tensor's new bytes in order, a few pieces computed ahead."""
    _, block, block_bytes = TENSOR_TYPES[tensor.type_id]
    piece_bytes = PIECE_WEIGHTS // block * block_bytes
    read.seek(tensor.offset)
    left, ahead = tensor.bytes, deque[Future[bytes]]()
    while left or ahead:
        while left and len(ahead) <= threads:
            data = read.read(min(piece_bytes, left))
            left -= len(data)
            ahead.append(pool.submit(_requantize, data, tensor.type_name, name))
        yield ahead.popleft().result()


def _requantize(data: bytes, old: str, new: str) -> bytes:
    if old == new:
        return data
    import numpy as np
    from gguf import GGMLQuantizationType, quants

    # One wide row: quantizers work block by block, and a few large steps beat many small ones.
    raw = np.frombuffer(data, dtype=np.uint8).reshape(1, -1)
    weights: NDArray[np.float32] = quants.dequantize(raw, GGMLQuantizationType[old])
    result: NDArray[Any] = quants.quantize(weights, GGMLQuantizationType[new])
    return result.tobytes()


def _check_readable(tensors: tuple[Tensor, ...], rows: list[Row]) -> None:
    for tensor, row in zip(tensors, rows, strict=True):
        if tensor.type_name != row.type_name:
            try:
                _requantize(bytes(TENSOR_TYPES[tensor.type_id][2]), tensor.type_name, "F32")
            except (NotImplementedError, KeyError, ValueError) as error:
                raise ModelRejected(
                    f"tensor {tensor.name!r} of type {tensor.type_name} cannot be converted"
                ) from error


if __name__ == "__main__":
    sys.exit(serve(_rewrite, MAX_MEMORY_BYTES))
