"""Whether a GGML file of before August 2023 is whole, as far as CTransformers relies on it."""

import struct
from math import prod
from typing import IO

from fleetmark_protocol.errors import ModelRejected

BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
}  # fmt: skip
"""Types of tensors it knew (F32, F16, Q4_0 to Q8_0, Q2_K to Q6_K): weights and bytes of a block."""
LLAMA_CONTAINERS = {b"fmgg": (1,), b"tjgg": (1, 2, 3)}
"""GGMF and GGJT, with their versions: written by llama.cpp alone, so that they hold a LLaMA."""
_MAX_TEXT_BYTES = 1024
_MAX_NUMBER = 1 << 24


def check_ggml(file: IO[bytes], magic: bytes, size: int) -> None:
    """Walk a file from behind its magic to its end.

    Raises:
        ModelRejected: says what is wrong.
    """
    (version,) = _numbers(file, 1)
    if version not in LLAMA_CONTAINERS[magic]:
        raise ModelRejected(f"a {magic[::-1].decode()} file of version {version}")
    vocabulary, width, _, heads, layers, _, _ = _numbers(file, 7)
    if not all(0 < number < _MAX_NUMBER for number in (vocabulary, width, heads, layers)):
        raise ModelRejected("its header claims the impossible")
    for _ in range(vocabulary):
        _text(file, *_numbers(file, 1))
        _numbers(file, 1)  # its score
    while file.tell() < size:
        _tensor(file, padded=magic == b"tjgg")
    if file.tell() != size:
        raise ModelRejected(f"truncated: {size} bytes of {file.tell()}")


def _tensor(file: IO[bytes], *, padded: bool) -> None:
    dimensions, name_bytes, kind = _numbers(file, 3)
    if dimensions not in (1, 2) or kind not in BLOCKS:
        raise ModelRejected(f"a tensor of {dimensions} dimensions and type {kind}")
    shape = _numbers(file, dimensions)
    _text(file, name_bytes)
    weights, length = BLOCKS[kind]
    if not all(shape) or shape[0] % weights:
        raise ModelRejected(f"a tensor whose {shape} does not go with its type")
    start = -(-file.tell() // 32) * 32 if padded else file.tell()
    file.seek(start + prod(shape) // weights * length)


def _text(file: IO[bytes], length: int) -> None:
    if length > _MAX_TEXT_BYTES or len(file.read(length)) != length:
        raise ModelRejected(f"damaged: it claims a text of {length} bytes")


def _numbers(file: IO[bytes], count: int) -> tuple[int, ...]:
    raw = file.read(4 * count)
    if len(raw) != 4 * count:
        raise ModelRejected("truncated")
    return struct.unpack(f"<{count}I", raw)
