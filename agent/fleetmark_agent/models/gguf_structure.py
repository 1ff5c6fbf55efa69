"""Reads and checks the frame of a GGUF file: where its parts are, never what they say.

Every length is checked against the file's size, because files come from strangers and the `gguf`
package's reader checks none; it reads the metadata after this (see `ggufreader`).
"""

import io
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO

from fleetmark_protocol.errors import ModelNotFound, ModelRejected

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_ITEMS = 1_000_000
MAX_DIMENSIONS = 4
MAX_NAME_BYTES = 65_535
ALIGNMENT_KEY = "general.alignment"
DEFAULT_ALIGNMENT = 32

_SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_UINT32 = 4
_STRING = 8
_ARRAY = 9

TENSOR_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4),
    27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
}  # fmt: skip
"""Number in the file -> name, weights in a block, bytes of a block."""


@dataclass(frozen=True)
class Tensor:
    """One row of the tensor table.

    Attributes:
        name: as the file has it.
        shape: weights per dimension, the fastest first (a row's length is `shape[0]`).
        type_id: key of `TENSOR_TYPES`.
        offset: first byte, from the start of the file.
        bytes: length in the file.
    """

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int
    bytes: int

    @property
    def weights(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)

    @property
    def type_name(self) -> str:
        """Its type's name."""
        return TENSOR_TYPES[self.type_id][0]


@dataclass(frozen=True)
class Structure:
    """The frame of a file.

    Attributes:
        entries: metadata key -> first byte of its entry in the file, and the first one after it.
        bytes: length of the frame: up to the first weight's alignment.
        alignment: of tensors, in bytes.
        tensors: the table, in the file's order.
    """

    entries: dict[str, tuple[int, int]]
    bytes: int
    alignment: int
    tensors: tuple[Tensor, ...]


def read_structure(path: Path, window: tuple[int, int] | None = None) -> Structure:
    """Read and check a file's frame.

    Args:
        path: the file.
        window: first byte and length of the GGUF file inside it; default: all of it. Offsets in
            the answer count from the first byte of the window.

    Raises:
        ModelNotFound: there is no such file.
        ModelRejected: it is not GGUF, is truncated or contradicts itself; says how.
    """
    try:
        with path.open("rb") as file:
            begin, size = window or (0, path.stat().st_size)
            return _Frame(file, begin, size).read()
    except FileNotFoundError as error:
        raise ModelNotFound(f"no file {path.name}") from error
    except OSError as error:
        raise ModelRejected(f"{path.name} cannot be read: {error.strerror}") from error
    except ModelRejected as error:
        raise ModelRejected(f"{path.name}: {error.message}", hint=error.hint) from None


class _Frame:
    """One pass over a file, from its first byte to the end of its tensor table."""

    def __init__(self, file: IO[bytes], begin: int, size: int) -> None:
        self._file = file
        self._begin = begin
        self._size = size
        self._entries: dict[str, tuple[int, int]] = {}
        self._alignment = DEFAULT_ALIGNMENT

    def read(self) -> Structure:
        self._file.seek(self._begin)
        magic = self._file.read(4)
        if magic != MAGIC:
            what = "is empty" if not magic else f"begins with {magic!r}"
            raise ModelRejected(f"not a GGUF file: it {what}, not with {MAGIC!r}")
        version = self._number("I")
        if version not in VERSIONS:
            swapped = struct.unpack(">I", struct.pack("<I", version))[0] in VERSIONS
            why = "big-endian" if swapped else f"version {version}"
            raise ModelRejected(f"GGUF of a kind that cannot be used: {why}")
        tensors, entries = self._count("Q", "tensors"), self._count("Q", "metadata entries")
        if tensors == 0:
            raise ModelRejected("it holds no tensors (a vocabulary without a model?)")
        for _ in range(entries):
            self._entry()
        rows = [self._row() for _ in range(tensors)]
        alignment = self._alignment
        if alignment < 1 or alignment & (alignment - 1):
            raise ModelRejected(f"its alignment {alignment} is no power of two")
        start = -(-self._place() // alignment) * alignment
        return Structure(self._entries, start, alignment, self._placed(rows, start))

    def _entry(self) -> None:
        start = self._place()
        key = self._text("a metadata key")
        kind = self._number("I")
        if key in self._entries:
            raise ModelRejected(f"metadata key {key!r} comes twice")
        if kind in _SCALARS:
            if key == ALIGNMENT_KEY and kind != _UINT32:
                raise ModelRejected(f"its alignment is a number of type {kind}")
            value = self._number(_SCALARS[kind])
            if key == ALIGNMENT_KEY:
                self._alignment = value
        elif kind == _STRING:
            self._skip(self._number("Q"))
        elif kind == _ARRAY:
            self._array(depth=0)
        else:
            raise ModelRejected(f"metadata {key!r} is of unknown type {kind}")
        self._entries[key] = start, self._place()

    def _array(self, depth: int) -> None:
        kind, count = self._number("I"), self._number("Q")
        if kind in _SCALARS:
            self._skip(count * struct.calcsize(_SCALARS[kind]))
            return
        if count > self._size // 8:
            raise ModelRejected(f"an array of {count} items does not fit in the file")
        if kind == _STRING:
            for _ in range(count):
                self._skip(self._number("Q"))
        elif kind == _ARRAY and depth < 2:
            for _ in range(count):
                self._array(depth + 1)
        else:
            raise ModelRejected(f"an array of items of type {kind} cannot be read")

    def _row(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._text("a tensor's name")
        dimensions = self._number("I")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise ModelRejected(f"tensor {name!r} has {dimensions} dimensions")
        shape = struct.unpack(f"<{dimensions}Q", self._bytes(8 * dimensions))
        return name, shape, self._number("I"), self._number("Q")

    def _placed(
        self, rows: list[tuple[str, tuple[int, ...], int, int]], start: int
    ) -> tuple[Tensor, ...]:
        table, end = [], 0
        for name, shape, type_id, offset in rows:
            if type_id not in TENSOR_TYPES:
                raise ModelRejected(f"tensor {name!r} is of type {type_id}, unknown here")
            type_name, block, block_bytes = TENSOR_TYPES[type_id]
            if not all(shape) or shape[0] % block or offset % self._alignment:
                raise ModelRejected(f"tensor {name!r}: {shape} does not go with type {type_name}")
            length = prod(shape) // block * block_bytes
            table.append(Tensor(name, shape, type_id, start + offset, length))
            end = max(end, start + offset + length)
        if end > self._size:
            raise ModelRejected(
                f"truncated: it has {self._size:,} bytes, its tensor table says {end:,}"
            )
        if len({tensor.name for tensor in table}) != len(table):
            raise ModelRejected("a tensor's name comes twice")
        return tuple(table)

    def _place(self) -> int:
        return self._file.tell() - self._begin

    def _text(self, what: str) -> str:
        length = self._number("Q")
        if not 0 < length <= MAX_NAME_BYTES:
            raise ModelRejected(f"{what} has {length} bytes")
        return self._bytes(length).decode("utf-8", "surrogateescape")

    def _count(self, form: str, what: str) -> int:
        count = int(self._number(form))
        if count > MAX_ITEMS:
            raise ModelRejected(f"it claims {count} {what}")
        return count

    def _number(self, form: str) -> int:
        """Return a number; `int` to the type checker, for lengths and counts are what matters."""
        (value,) = struct.unpack("<" + form, self._bytes(struct.calcsize("<" + form)))
        return value  # type: ignore[no-any-return]

    def _bytes(self, length: int) -> bytes:
        if length > self._size:
            raise ModelRejected(f"truncated or damaged: it claims a value of {length} bytes")
        data = self._file.read(length)
        if len(data) != length or self._place() > self._size:
            raise self._ended()
        return data

    def _skip(self, length: int) -> None:
        if length > self._size:
            raise self._ended()
        self._file.seek(length, io.SEEK_CUR)
        if self._place() > self._size:
            raise self._ended()

    def _ended(self) -> ModelRejected:
        return ModelRejected(f"truncated: it ends after {self._size:,} bytes, in its metadata")
