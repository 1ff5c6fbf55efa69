"""Whether CTransformers 0.2.27 can take a model file; it dies of what it does not expect.

What it holds is the llama.cpp of September 2023: that reads a damaged or newer file without
checking, so everything it relies on is checked here, in pure Python and within the file's bounds.
"""

import struct
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import IO

from fleetmark_agent.backends.ctransformers_ggml import BLOCKS, LLAMA_CONTAINERS, check_ggml
from fleetmark_protocol.errors import ModelNotFound, ModelRejected

TOKENS = "tokenizer.ggml.tokens"
SCORES = "tokenizer.ggml.scores"
KINDS = "tokenizer.ggml.token_type"
MERGES = "tokenizer.ggml.merges"
_KEPT_ARRAYS = (TOKENS, SCORES, KINDS, MERGES)
_MAX_ITEMS = 1_000_000
_MAX_TEXT_BYTES = 1 << 20
_SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_F32 = 0
_NEEDED = (
    "context_length",
    "embedding_length",
    "block_count",
    "attention.head_count",
    "feed_forward_length",
)
_SPECIAL = ("bos", "eos", "unknown", "separator", "padding")
Value = int | float | bool | bytes | list[int] | list[float] | list[bytes]


@dataclass(frozen=True)
class Header:
    """What the backend needs of a file that can be loaded.

    Attributes:
        model_type: as CTransformers wants it: `gguf`, or the architecture of a GGML file.
        values: metadata; arrays only of the vocabulary. Empty for a GGML file.
    """

    model_type: str
    values: dict[str, Value] = field(default_factory=dict)

    def number(self, key: str, default: int = 0) -> int:
        """Return a whole number (or truth value) of the metadata."""
        value = self.values.get(key, default)
        return int(value) if isinstance(value, int) else default

    def text(self, key: str) -> str | None:
        """Return a text of the metadata."""
        value = self.values.get(key)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else None

    def texts(self, key: str) -> list[bytes]:
        """Return an array of texts; empty where there is none."""
        value = self.values.get(key)
        return (
            [item for item in value if isinstance(item, bytes)] if isinstance(value, list) else []
        )


def check(model: Path) -> Header:
    """Read a file's header and refuse what the engine cannot take.

    Raises:
        ModelNotFound: there is no such file.
        ModelRejected: says what is wrong, or what makes a file it can take.
    """
    try:
        with model.open("rb") as file:
            magic = file.read(4)
            if magic == b"GGUF":
                return _Reader(file, model.stat().st_size).read()
            if magic in LLAMA_CONTAINERS:
                check_ggml(file, magic, model.stat().st_size)
                return Header("llama")
            raise ModelRejected(_not_known(magic))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ModelNotFound(f"no file {model.name}") from error
    except ModelRejected as error:
        raise ModelRejected(
            f"CTransformers cannot take {model.name}: {error.message}",
            hint="`fleetmark-agent model convert NAME gguf-2023` makes a file it can take",
        ) from None


def _not_known(magic: bytes) -> str:
    if magic == b"lmgg":
        return "a bare GGML file does not tell its architecture, and a wrong guess is a crash"
    return f"neither GGUF nor GGML: it begins with {magic!r}"


class _Reader:
    """One pass over a GGUF file, from its version to the end of its tensor table."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._size = size

    def read(self) -> Header:
        version = self._number("I")
        if version not in (2, 3):
            raise ModelRejected(f"GGUF of version {version}, not 2 or 3")
        tensors, entries = self._count("tensors"), self._count("metadata entries")
        values: dict[str, Value] = {}
        for _ in range(entries):
            key = self._text().decode("utf-8", "replace")
            value = self._value(self._number("I"), keep=key in _KEPT_ARRAYS)
            if value is not None:
                values[key] = value
        header = Header("gguf", values)
        shapes = self._tensors(tensors, header.number("general.alignment", 32))
        _check_model(header, shapes)
        return header

    def _value(self, kind: int, *, keep: bool) -> Value | None:
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            raise ModelRejected(f"metadata of unknown type {kind}")
        of, count = self._number("I"), self._count("items")
        if of == _STRING:
            texts = [self._text() for _ in range(count)]
            return texts if keep else None
        if of not in _SCALARS:
            raise ModelRejected(f"an array of items of type {of}")
        form = f"<{count}{_SCALARS[of]}"
        raw = self._bytes(struct.calcsize(form))
        return list(struct.unpack(form, raw)) if keep else None

    def _tensors(self, count: int, alignment: int) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        end = 0
        for _ in range(count):
            name = self._text().decode("utf-8", "replace")
            dimensions = self._number("I")
            if not 1 <= dimensions <= 4:
                raise ModelRejected(f"tensor {name!r} has {dimensions} dimensions")
            shape = tuple(self._number("Q") for _ in range(dimensions))
            kind, offset = self._number("I"), self._number("Q")
            if kind not in BLOCKS:
                raise ModelRejected(f"tensor {name!r} is of type {kind}, unknown in 2023")
            weights, length = BLOCKS[kind]
            if not all(shape) or shape[0] % weights or (dimensions == 1 and kind != _F32):
                raise ModelRejected(f"tensor {name!r}: {shape} does not go with its type")
            end = max(end, offset + prod(shape) // weights * length)
            shapes[name] = shape
        if alignment < 1 or alignment & (alignment - 1):
            raise ModelRejected(f"its alignment {alignment} is no power of two")
        start = -(-self._file.tell() // alignment) * alignment
        if start + end > self._size:
            raise ModelRejected(f"truncated: {self._size} bytes of {start + end}")
        return shapes

    def _count(self, what: str) -> int:
        count = self._number("Q")
        if count > _MAX_ITEMS:
            raise ModelRejected(f"it claims {count} {what}")
        return count

    def _text(self) -> bytes:
        length = self._number("Q")
        if length > _MAX_TEXT_BYTES:
            raise ModelRejected(f"it claims a text of {length} bytes")
        return self._bytes(length)

    def _number(self, form: str) -> int:
        (value,) = struct.unpack("<" + form, self._bytes(struct.calcsize("<" + form)))
        return value  # type: ignore[no-any-return]

    def _bytes(self, length: int) -> bytes:
        data = self._file.read(length)
        if len(data) != length:
            raise ModelRejected("truncated: it ends in its header")
        return data


def _check_model(header: Header, shapes: dict[str, tuple[int, ...]]) -> None:
    architecture = header.text("general.architecture")
    if architecture != "llama":
        raise ModelRejected(f"its architecture is {architecture!r}, not 'llama'")
    tokenizer = header.text("tokenizer.ggml.model")
    if tokenizer != "llama":
        raise ModelRejected(f"its tokenizer is {tokenizer!r}, not 'llama'")
    lacking = [key for key in _NEEDED if header.number(f"llama.{key}") < 1]
    if lacking:
        raise ModelRejected(f"it does not say llama.{lacking[0]}")
    tokens = header.texts(TOKENS)
    for key in (SCORES, KINDS):
        values = header.values.get(key)
        if not isinstance(values, list) or len(values) != len(tokens):
            raise ModelRejected(f"{key} are not as many as its tokens")
    if b"<0x0A>" not in tokens:
        raise ModelRejected("its vocabulary has no tokens for bytes")
    for name in _SPECIAL:
        if not 0 <= header.number(f"tokenizer.ggml.{name}_token_id") < len(tokens):
            raise ModelRejected(f"its {name} token is none of its tokens")
    _check_tensors(header, len(tokens), shapes)


def _check_tensors(header: Header, tokens: int, shapes: dict[str, tuple[int, ...]]) -> None:
    """The engine looks for these tensors in these shapes, and for no others."""
    width, layers = header.number("llama.embedding_length"), header.number("llama.block_count")
    heads = header.number("llama.attention.head_count")
    inner = header.number("llama.feed_forward_length")
    kv_width = width // heads * header.number("llama.attention.head_count_kv", heads)
    needed: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (width, tokens),
        "output_norm.weight": (width,),
        "output.weight": (width, tokens),
    }
    for layer in range(min(layers, len(shapes))):
        for name, shape in (
            ("attn_norm", (width,)),
            ("attn_q", (width, width)),
            ("attn_k", (width, kv_width)),
            ("attn_v", (width, kv_width)),
            ("attn_output", (width, width)),
            ("ffn_norm", (width,)),
            ("ffn_gate", (width, inner)),
            ("ffn_down", (inner, width)),
            ("ffn_up", (width, inner)),
        ):
            needed[f"blk.{layer}.{name}.weight"] = shape
    for name, wanted in needed.items():
        if name not in shapes:
            raise ModelRejected(f"it has no tensor {name!r}")
        if shapes[name] != wanted:
            raise ModelRejected(f"tensor {name!r} is {shapes[name]}, not {wanted}")
    unknown = sorted(set(shapes) - set(needed))
    if unknown:
        raise ModelRejected(f"tensor {unknown[0]!r} is unknown to it")
    if header.number("llama.rope.dimension_count", width // heads) != width // heads:
        raise ModelRejected("its heads are not of the width that the engine computes")
    scaling = header.text("llama.rope.scaling.type")
    if scaling not in (None, "none", "linear"):
        raise ModelRejected(f"its positions are scaled by {scaling!r}, unknown in 2023")
