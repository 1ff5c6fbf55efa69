"""Makes another quantization of a GGUF file with the `gguf` package's quantizers, in a child.

Recipe: every matrix (two dimensions or more, named `*.weight`) gets the type asked for; rows that
are not a multiple of its block get F16; what must stay exact (norms, routers, convolutions, 1-D)
is copied. Metadata is copied byte for byte, with `general.file_type` set. Weights go through in
pieces of half a million, so that memory does not grow with the model.
"""

import os
import resource
import struct
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from fleetmark_agent.models.children import ChildTimeout, run_child
from fleetmark_agent.models.gguf_file import FILE_TYPES, ORIGIN_KEY, REFUSED
from fleetmark_agent.models.gguf_structure import TENSOR_TYPES, Structure, Tensor, read_structure
from fleetmark_agent.models.watch import NOBODY, Watch
from fleetmark_protocol.errors import (
    BackendTimeout,
    ConfigError,
    FleetmarkError,
    ModelRejected,
    ModelTooLarge,
)
from fleetmark_protocol.records import clip

if TYPE_CHECKING:
    from numpy.typing import NDArray

RECIPE_VERSION = 1
QUANTIZATIONS = ("F16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0")
TIMEOUT_S = 3600.0
MAX_MEMORY_BYTES = 3 << 30
PIECE_WEIGHTS = 1 << 19
"""A multiple of every block length."""
MAX_THREADS = 4

_EXACT = ("_norm", "ffn_gate_inp", "position_embd", "token_types", "ssm_conv1d", "shortconv")
"""Parts of names of matrices that engines expect unquantized."""
_TYPE_IDS = {name: number for number, (name, _, _) in TENSOR_TYPES.items()}
_FILE_TYPE_IDS = {name: number for number, name in FILE_TYPES.items()}
_QUANTIZATION_VERSION = 2
_UINT32, _STRING = 4, 8


def check_possible(quantization: str) -> str:
    """Return the quantization's name as files have it.

    Raises:
        ConfigError: it cannot be made; says what can.
    """
    if quantization.upper() not in QUANTIZATIONS:
        raise ConfigError(
            f"quantization {quantization!r} cannot be made here",
            hint=f"can be made: {', '.join(QUANTIZATIONS)};"
            " for others name a file that already holds them",
        )
    return quantization.upper()


def estimated_bytes(parameters: int, quantization: str) -> int:
    """Return about how long a converted file will be."""
    _, block, block_bytes = TENSOR_TYPES[_TYPE_IDS[quantization]]
    return parameters * block_bytes // block + 16 * 2**20


def convert(
    source: Path,
    target: Path,
    quantization: str,
    *,
    source_sha256: str,
    max_bytes: int,
    watch: Watch = NOBODY,
) -> str:
    """Write `source` in another quantization to `target`; return what computed it.

    Args:
        source: a GGUF file.
        target: overwritten.
        quantization: one of `QUANTIZATIONS`.
        source_sha256: written into the new file, so that its origin stays known elsewhere.
        max_bytes: bound of the new file.
        watch: told the source's bytes done; asked several times a second.

    Raises:
        ModelRejected: the source cannot be converted.
        ModelTooLarge: the new file would grow over `max_bytes`.
        BackendTimeout: it took longer than an hour.
        Canceled: asked to stop.
    """
    tools: list[str] = []

    def on_line(line: str) -> None:
        word, *rest = line.split(" ", 1)
        if word == "tools":
            tools.extend(rest)
        elif word.isdigit() and rest and rest[0].isdigit():
            watch.tell(int(word), int(rest[0]))

    command = [sys.executable, "-P", "-m", "fleetmark_agent.models.convert"]
    command += [str(source.absolute()), str(target.absolute()), quantization, source_sha256]
    try:
        done = run_child(
            command,
            timeout_s=TIMEOUT_S,
            watch=watch,
            on_line=on_line,
            env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            max_file_bytes=max_bytes,
        )
    except ChildTimeout:
        raise BackendTimeout(f"{source.name}: not converted within {TIMEOUT_S:g} s") from None
    if done.code == REFUSED:
        raise ModelRejected(clip(done.errors.strip()))
    if "File too large" in done.errors or "No space left" in done.errors:
        raise ModelTooLarge(f"{source.name} as {quantization} does not fit in the model store")
    if done.code != 0:
        last = (done.errors.strip().splitlines() or ["no reason given"])[-1]
        raise ModelRejected(f"{source.name}: the conversion ended with {done.code}: {clip(last)}")
    return tools[0] if tools else ""


def target_type(tensor: Tensor, quantization: str) -> str:
    """Return the type that a tensor gets."""
    matrix = len(tensor.shape) > 1 and tensor.name.endswith(".weight")
    if not matrix or any(part in tensor.name for part in _EXACT):
        return tensor.type_name
    if tensor.shape[0] % TENSOR_TYPES[_TYPE_IDS[quantization]][1]:
        return "F16"
    return quantization


def header(
    source: Path, structure: Structure, types: list[str], quantization: str, origin_sha256: str
) -> bytes:
    """Return everything before the weights of the new file, padded to where they begin."""
    start, end = structure.metadata
    with source.open("rb") as file:
        file.seek(start)
        metadata = bytearray(file.read(end - start))
    entries = structure.entries
    numbers = {
        "general.file_type": _FILE_TYPE_IDS[quantization],
        "general.quantization_version": _QUANTIZATION_VERSION,
    }
    for key, number in numbers.items():
        place = structure.places.get(key)
        if place is not None:
            struct.pack_into(f"<{place[0]}", metadata, place[1] - start, number)
        else:
            metadata += _text(key) + struct.pack("<II", _UINT32, number)
            entries += 1
    if ORIGIN_KEY not in structure.values:
        metadata += _text(ORIGIN_KEY) + struct.pack("<I", _STRING) + _text(origin_sha256)
        entries += 1
    table, offset = bytearray(), 0
    for tensor, name in zip(structure.tensors, types, strict=True):
        _, block, block_bytes = TENSOR_TYPES[_TYPE_IDS[name]]
        table += _text(tensor.name) + struct.pack("<I", len(tensor.shape))
        table += struct.pack(f"<{len(tensor.shape)}QIQ", *tensor.shape, _TYPE_IDS[name], offset)
        offset += _padded(tensor.weights // block * block_bytes, structure.alignment)
    out = b"GGUF" + struct.pack("<IQQ", 3, len(structure.tensors), entries) + metadata + table
    return bytes(out.ljust(_padded(len(out), structure.alignment), b"\0"))


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(data)) + data


def _padded(length: int, alignment: int) -> int:
    return -(-length // alignment) * alignment


# --- the child ----------------------------------------------------------------------------------


def _rewrite(source: Path, target: Path, quantization: str, origin_sha256: str) -> None:
    structure = read_structure(source)
    types = [target_type(tensor, quantization) for tensor in structure.tensors]
    _check_readable(structure, types)
    total = sum(tensor.bytes for tensor in structure.tensors)
    done, parent = 0, os.getppid()
    threads = min(MAX_THREADS, os.cpu_count() or 1)
    with (
        ThreadPoolExecutor(threads) as pool,
        source.open("rb") as read,
        target.open("wb") as write,
    ):
        write.write(header(source, structure, types, quantization, origin_sha256))
        for tensor, name in zip(structure.tensors, types, strict=True):
            for piece in _pieces(pool, threads, read, tensor, name):
                write.write(piece)
                if os.getppid() != parent:
                    sys.exit("the agent is gone")
            done += tensor.bytes
            write.write(bytes(_padded(write.tell(), structure.alignment) - write.tell()))
            sys.stdout.write(f"{done} {total}\n")
            sys.stdout.flush()


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


def _check_readable(structure: Structure, types: list[str]) -> None:
    for tensor, new in zip(structure.tensors, types, strict=True):
        if tensor.type_name != new:
            try:
                _requantize(bytes(TENSOR_TYPES[tensor.type_id][2]), tensor.type_name, "F32")
            except (NotImplementedError, KeyError, ValueError) as error:
                raise ModelRejected(
                    f"tensor {tensor.name!r} of type {tensor.type_name} cannot be converted"
                ) from error


def main() -> int:
    """Be the child: SOURCE TARGET QUANTIZATION ORIGIN_SHA256."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    from importlib.metadata import version

    source, target, quantization, origin_sha256 = sys.argv[1:5]
    tools = f"gguf {version('gguf')}, numpy {version('numpy')}"
    try:
        _rewrite(Path(source), Path(target), check_possible(quantization), origin_sha256)
    except FleetmarkError as error:
        sys.stderr.write(error.message)
        return REFUSED
    sys.stdout.write(f"tools {tools}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
