"""The `gguf` package's reader, made to step over vocabularies: long arrays become one view each.

The package's own makes several objects per token: seconds and 160 MB for 49,000 tokens, more than
a small board has to spare. It checks no length, so `read_structure` must have passed the file.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, GGUFValueType
from numpy.typing import NDArray

_LENGTH = struct.Struct("<Q")

_Parts = tuple[int, list[NDArray[Any]], list[int], list[GGUFValueType]]


class FrugalReader(GGUFReader):  # type: ignore[misc] # the package has no types
    """Reads what the package's reader does; arrays are read through the methods here."""

    def __init__(self, path: Path) -> None:
        """Read a file's metadata and tensor table; weights stay on the disk until they are used.

        Raises:
            ValueError, KeyError: the package cannot read it.
        """
        super().__init__(path)

    def number(self, key: str) -> int | None:
        """Return a whole number of at most 32 bits, or None."""
        value = self.value(key)
        return value if type(value) is int and 0 <= value < 2**32 else None

    def value(self, key: str) -> Any:
        """Return a number, a flag or a text, or None."""
        field = self.fields.get(key)
        if field is None or field.types[0] == GGUFValueType.ARRAY:
            return None
        if field.types[0] == GGUFValueType.STRING:
            return bytes(field.parts[-1]).decode("utf-8", "replace")
        return field.contents()

    def array(self, key: str) -> NDArray[Any] | None:
        """Return an array of numbers or flags, or None."""
        field = self.fields.get(key)
        if field is None or len(field.types) < 2 or field.types[1] == GGUFValueType.STRING:
            return None
        numbers: NDArray[Any] = field.parts[-1]
        return numbers

    def length(self, key: str) -> int | None:
        """Return how many items an array has, or None."""
        field = self.fields.get(key)
        if field is None or field.types[0] != GGUFValueType.ARRAY:
            return None
        return int(field.parts[-2][0])

    def texts(self, key: str) -> Iterator[bytes]:
        """Yield the items of an array of texts, as they are in the file."""
        field, count = self.fields.get(key), self.length(key)
        if field is None or count is None or field.types[1:] != [GGUFValueType.STRING]:
            return
        view, place = memoryview(field.parts[-1]), 0
        for _ in range(count):
            end = place + 8 + _LENGTH.unpack_from(view, place)[0]
            yield bytes(view[place + 8 : end])
            place = end

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> _Parts:
        if raw_type != GGUFValueType.ARRAY:
            parts: _Parts = super()._get_field_parts(orig_offs, raw_type)
            return parts
        kind = self._get(orig_offs, np.uint32)
        count = self._get(orig_offs + 4, np.uint64)
        place, item = orig_offs + 12, GGUFValueType(int(kind[0]))
        numbers = self.gguf_scalar_to_np.get(item)
        if numbers is not None:
            body = self._get(place, numbers, count[0])
        elif item == GGUFValueType.STRING:
            body = self._get(place, np.uint8, self._texts_bytes(place, int(count[0])))
        else:
            raise ValueError(f"an array of items of type {item.name}")
        return 12 + body.nbytes, [kind, count, body], [2], [GGUFValueType.ARRAY, item]

    def _texts_bytes(self, start: int, count: int) -> int:
        view, place = memoryview(self.data), start
        for _ in range(count):
            place += 8 + _LENGTH.unpack_from(view, place)[0]
        return place - start
