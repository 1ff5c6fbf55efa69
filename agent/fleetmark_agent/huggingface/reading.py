"""Reads a GGUF file's metadata whole, vocabulary included, without an object for every entry."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGUFReader, GGUFValueType, ReaderTensor

_LENGTH = struct.Struct("<Q")
_ARRAY_HEAD = struct.Struct("<IQ")


@dataclass(frozen=True)
class Gguf:
    """An open GGUF file.

    Attributes:
        values: metadata by key; strings, numbers, and lists of them.
        tensors: by name; their `data` is a view of the file, read when it is used.
    """

    values: dict[str, Any]
    tensors: dict[str, ReaderTensor]

    @property
    def architecture(self) -> str:
        """The model's kind, as `general.architecture` names it."""
        return str(self.values["general.architecture"])


def open_gguf(path: Path) -> Gguf:
    """Read what a GGUF file says before its weights.

    Raises:
        ValueError: it is not a GGUF file, or damaged.
        OSError: it cannot be read.
    """
    try:
        reader = _Reader(path)
    except (IndexError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"the file is damaged: {error}") from error
    values = {}
    for key, field in reader.fields.items():
        found = field.parts[field.data[0]] if field.data else []
        values[key] = found if isinstance(found, list) else field.contents()
    if "general.architecture" not in values:
        raise ValueError("the file does not say its architecture")
    return Gguf(values, {tensor.name: tensor for tensor in reader.tensors})


class _Reader(GGUFReader):  # type: ignore[misc]
    """The package's reader makes two arrays per string; a vocabulary takes it many seconds."""

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> tuple[int, list[Any], Any, Any]:
        if raw_type != GGUFValueType.ARRAY:
            return super()._get_field_parts(orig_offs, raw_type)  # type: ignore[no-any-return]
        item, length = _ARRAY_HEAD.unpack_from(self.data, orig_offs)
        item_type = GGUFValueType(item)
        start = orig_offs + _ARRAY_HEAD.size
        if item_type == GGUFValueType.STRING:
            texts, end = _strings(memoryview(self.data), start, length)
            return end - orig_offs, [texts], [0], [GGUFValueType.ARRAY, item_type]
        kind = self.gguf_scalar_to_np.get(item_type)
        if kind is None:
            raise ValueError(f"an array of {item_type.name} is not understood")
        numbers = self._get(start, kind, length)
        if len(numbers) != length:
            raise ValueError("an array ends after the file does")
        size = _ARRAY_HEAD.size + int(numbers.nbytes)
        return size, [numbers.tolist()], [0], [GGUFValueType.ARRAY, item_type]


def _strings(data: memoryview, offset: int, count: int) -> tuple[list[str], int]:
    """Return `count` strings from `offset` on, and where they end."""
    texts = []
    for _ in range(count):
        (size,) = _LENGTH.unpack_from(data, offset)
        offset += _LENGTH.size + size
        texts.append(str(data[offset - size : offset], "utf-8"))
    return texts, offset
