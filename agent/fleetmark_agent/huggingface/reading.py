"""Reads a GGUF file's metadata whole, vocabulary included, without an object for every entry."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import ReaderTensor

from fleetmark_agent.ggufreader import FrugalReader


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
        reader = FrugalReader(path)
        values = {key: _value(reader, key) for key in reader.fields}
    except (IndexError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"the file is damaged: {error}") from error
    if "general.architecture" not in values:
        raise ValueError("the file does not say its architecture")
    return Gguf(values, {tensor.name: tensor for tensor in reader.tensors})


def _value(reader: FrugalReader, key: str) -> Any:
    if reader.length(key) is None:
        return reader.value(key)
    numbers = reader.array(key)
    return (
        [str(text, "utf-8") for text in reader.texts(key)] if numbers is None else numbers.tolist()
    )
