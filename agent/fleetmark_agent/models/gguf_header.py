"""Writes the head of a GGUF file: metadata, taken over byte for byte or made, and tensor table."""

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleetmark_agent.models.gguf_structure import MAGIC, TENSOR_TYPES, Structure

VERSION = 3
_UINT32, _INT32, _FLOAT32, _STRING, _ARRAY = 4, 5, 6, 8, 9
TYPE_IDS = {name: number for number, (name, _, _) in TENSOR_TYPES.items()}


@dataclass(frozen=True)
class Row:
    """A tensor to be written.

    Attributes:
        name: of the tensor.
        shape: weights per dimension, the fastest first.
        type_name: see `TENSOR_TYPES`.
        weights: how many numbers it holds.
    """

    name: str
    shape: tuple[int, ...]
    type_name: str
    weights: int

    @property
    def bytes(self) -> int:
        """Length in the file, without padding."""
        return length_of(self.weights, self.type_name)


def length_of(weights: int, type_name: str) -> int:
    """Return how many bytes so many weights of a type take."""
    _, block, block_bytes = TENSOR_TYPES[TYPE_IDS[type_name]]
    return weights // block * block_bytes


def read_entries(path: Path, structure: Structure) -> dict[str, bytes]:
    """Return the metadata of a file, key -> the whole entry as it is there."""
    with path.open("rb") as file:
        head = file.read(structure.bytes)
    return {key: head[start:end] for key, (start, end) in structure.entries.items()}


def uint32(key: str, value: int) -> bytes:
    """Return an entry that is a number."""
    return _text(key) + struct.pack("<II", _UINT32, value)


def text(key: str, value: str) -> bytes:
    """Return an entry that is a text."""
    return _text(key) + struct.pack("<I", _STRING) + _text(value)


def texts(key: str, values: Sequence[bytes]) -> bytes:
    """Return an entry that is an array of texts."""
    items = b"".join(struct.pack("<Q", len(value)) + value for value in values)
    return _array(key, _STRING, len(values)) + items


def float32s(key: str, values: Sequence[float]) -> bytes:
    """Return an entry that is an array of floating-point numbers."""
    return _array(key, _FLOAT32, len(values)) + struct.pack(f"<{len(values)}f", *values)


def int32s(key: str, values: Sequence[int]) -> bytes:
    """Return an entry that is an array of whole numbers."""
    return _array(key, _INT32, len(values)) + struct.pack(f"<{len(values)}i", *values)


def header(entries: Mapping[str, bytes], rows: Iterable[Row], alignment: int) -> bytes:
    """Return everything before the weights, padded to where they begin.

    Weights must follow in the order of `rows`, each padded to the alignment.
    """
    table, offset, count = bytearray(), 0, 0
    for row in rows:
        table += _text(row.name) + struct.pack("<I", len(row.shape))
        type_id = TYPE_IDS[row.type_name]
        table += struct.pack(f"<{len(row.shape)}QIQ", *row.shape, type_id, offset)
        offset += padded(row.bytes, alignment)
        count += 1
    out = MAGIC + struct.pack("<IQQ", VERSION, count, len(entries))
    out += b"".join(entries.values()) + table
    return bytes(out.ljust(padded(len(out), alignment), b"\0"))


def padded(length: int, alignment: int) -> int:
    """Return a length rounded up."""
    return -(-length // alignment) * alignment


def _array(key: str, item: int, count: int) -> bytes:
    return _text(key) + struct.pack("<IIQ", _ARRAY, item, count)


def _text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(data)) + data
