"""Rewrites a GGUF file so that the llama.cpp of September 2023 reads it; in a child.

Weights stay as they are. Recipe: an explicit output matrix, copied from the embedding; a byte-level
BPE vocabulary becomes one of SentencePiece's kind: pieces decoded (a space is U+2581), each with
minus the rank of its merge as its score; single bytes are byte tokens; pieces that are no whole
UTF-8 are marked unused, their bytes spelled out, for that reader knows characters only. So that
reader's own tokenizer gives some texts other ids than the original. The merges stay in the file,
with the name of the original's way to cut words, so that whoever drives it can hand it right ids.
"""

import sys
from importlib.metadata import version
from pathlib import Path

from fleetmark_agent.models import gguf_2023
from fleetmark_agent.models.children import REFUSED, SINGLE_THREAD, run_child
from fleetmark_agent.models.converters import run_converter, serve, tell
from fleetmark_agent.models.facts import ORIGIN_KEY
from fleetmark_agent.models.gguf_2023 import EMBEDDING, KINDS, OUTPUT, SCORES, TOKENS
from fleetmark_agent.models.gguf_header import (
    Row,
    float32s,
    header,
    int32s,
    padded,
    read_entries,
    text,
    texts,
)
from fleetmark_agent.models.gguf_structure import Structure, read_structure
from fleetmark_agent.models.targets import GGUF_2023
from fleetmark_agent.models.watch import CHUNK_BYTES, NOBODY, Watch
from fleetmark_protocol.errors import ModelRejected
from fleetmark_protocol.values import clip

TIMEOUT_S = 120.0
MAX_MEMORY_BYTES = 2 << 30
MERGES = "tokenizer.ggml.merges"
PRE_TOKENIZER, DEFAULT_PRE_TOKENIZER = "tokenizer.ggml.pre", "default"
ORIGINAL_PRE_TOKENIZER = "fleetmark.tokenizer_pre"
"""Metadata of a copy: how the original cuts a text into words."""
_NORMAL, _UNUSED, _BYTE = 1, 5, 6
_SPACE, _SHOWN_SPACE = " ", "\u2581"
_ASK = "?"


def obstacle(path: Path) -> str | None:
    """Say why the reader of 2023 cannot take a GGUF file as it is, or None.

    Raises:
        ModelRejected: nobody can.
    """
    command = [sys.executable, "-P", "-m", "fleetmark_agent.models.convert_2023"]
    command += [str(path.absolute()), _ASK]
    done = run_child(command, timeout_s=TIMEOUT_S, env=SINGLE_THREAD)
    if done.code != 0:
        said = (done.errors.strip().splitlines() or ["no reason given"])[-1]
        raise ModelRejected(clip(said if done.code == REFUSED else f"{path.name}: {said}"))
    return done.output.removeprefix("tools ").strip() or None


def convert(
    source: Path, target: Path, *, origin_sha256: str, max_bytes: int, watch: Watch = NOBODY
) -> str:
    """Write a copy of `source` for the reader of 2023 to `target`; return what computed it.

    Raises:
        ModelRejected: that reader knows nothing of this kind of model; says why.
        ModelTooLarge, BackendTimeout, Canceled: see `run_converter`.
    """
    words = [origin_sha256]
    return run_converter("convert_2023", source, target, words, max_bytes=max_bytes, watch=watch)


# --- the child ----------------------------------------------------------------------------------


def _child(source: Path, target: Path, words: list[str]) -> str:
    from fleetmark_agent.models.gguf_file import checked_reader

    structure = read_structure(source)
    reader = checked_reader(source, source.name)
    if str(target) == _ASK:
        return gguf_2023.obstacle(structure, reader) or ""
    why = gguf_2023.weights_obstacle(structure, reader)
    if why is not None:
        raise ModelRejected(f"{source.name} cannot become {GGUF_2023}: {why}")
    entries = read_entries(source, structure)
    if reader.value(gguf_2023.TOKENIZER_MODEL) == "gpt2":
        pieces = list(reader.texts(TOKENS))
        kinds = reader.array(KINDS)
        merges = list(reader.texts(MERGES))
        if kinds is None or len(kinds) != len(pieces) or not merges:
            raise ModelRejected(f"{source.name}: its vocabulary lacks types or merges")
        entries |= vocabulary(pieces, [int(kind) for kind in kinds], merges)
        words_cut = str(reader.value(PRE_TOKENIZER) or DEFAULT_PRE_TOKENIZER)
        entries[ORIGINAL_PRE_TOKENIZER] = text(ORIGINAL_PRE_TOKENIZER, words_cut)
    elif reader.value(gguf_2023.TOKENIZER_MODEL) != gguf_2023.TOKENIZER:
        raise ModelRejected(
            f"{source.name} cannot become {GGUF_2023}: its tokenizer is"
            f" {reader.value(gguf_2023.TOKENIZER_MODEL)!r}"
        )
    entries.setdefault(ORIGIN_KEY, text(ORIGIN_KEY, words[0]))
    _write(source, target, structure, entries)
    left = gguf_2023.obstacle(read_structure(target), checked_reader(target, target.name))
    if left is not None:
        raise ModelRejected(f"{source.name} cannot become {GGUF_2023}: {left}")
    return f"gguf {version('gguf')}"


def vocabulary(pieces: list[bytes], kinds: list[int], merges: list[bytes]) -> dict[str, bytes]:
    """Return the metadata entries of a byte-level BPE vocabulary in SentencePiece's manner; pure.

    Args:
        pieces: the tokens as byte-level BPE writes them: a letter for each byte.
        kinds: their types.
        merges: `LEFT RIGHT`, the earliest first.
    """
    ranks = {left_right.replace(b" ", b""): rank for rank, left_right in enumerate(merges)}
    letters = _bytes_of_letters()
    new_pieces, scores, new_kinds = [], [], []
    for piece, kind in zip(pieces, kinds, strict=True):
        new, new_kind = piece, kind
        if kind == _NORMAL:
            new, new_kind = _decoded(piece, letters)
        new_pieces.append(new)
        new_kinds.append(new_kind)
        scores.append(-float(ranks.get(piece, 0)))
    return {
        gguf_2023.TOKENIZER_MODEL: text(gguf_2023.TOKENIZER_MODEL, gguf_2023.TOKENIZER),
        PRE_TOKENIZER: text(PRE_TOKENIZER, DEFAULT_PRE_TOKENIZER),
        TOKENS: texts(TOKENS, new_pieces),
        SCORES: float32s(SCORES, scores),
        KINDS: int32s(KINDS, new_kinds),
    }


def _decoded(piece: bytes, letters: dict[str, int]) -> tuple[bytes, int]:
    """Return what a piece is in SentencePiece's manner, and its type."""
    try:
        raw = bytes(letters[letter] for letter in piece.decode())
    except (KeyError, UnicodeDecodeError):
        return piece, _NORMAL  # added whole to the vocabulary, never spelled in bytes
    spelled = "".join(f"<0x{byte:02X}>" for byte in raw).encode()
    if len(raw) == 1 and raw != _SPACE.encode():
        return spelled, _BYTE
    try:
        return raw.decode().replace(_SPACE, _SHOWN_SPACE).encode(), _NORMAL
    except UnicodeDecodeError:
        return spelled, _UNUSED


def _bytes_of_letters() -> dict[str, int]:
    """Return which byte each letter of byte-level BPE stands for.

    Printable bytes of Latin-1 stand for themselves; the others, in order, from U+0100 on.
    """
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in plain]
    letters = {chr(byte): byte for byte in plain}
    return letters | {chr(0x100 + place): byte for place, byte in enumerate(others)}


def _write(source: Path, target: Path, structure: Structure, entries: dict[str, bytes]) -> None:
    tensors = list(structure.tensors)
    names = [tensor.name for tensor in tensors]
    if OUTPUT not in names:
        tensors.append(tensors[names.index(EMBEDDING)])
        names.append(OUTPUT)
    rows = [
        Row(name, tensor.shape, tensor.type_name, tensor.weights)
        for name, tensor in zip(names, tensors, strict=True)
    ]
    total, done = sum(tensor.bytes for tensor in tensors), 0
    with source.open("rb") as read, target.open("wb") as write:
        write.write(header(entries, rows, structure.alignment))
        for tensor in tensors:
            read.seek(tensor.offset)
            left = tensor.bytes
            while left:
                left -= write.write(read.read(min(left, CHUNK_BYTES)))
            write.write(bytes(padded(write.tell(), structure.alignment) - write.tell()))
            done += tensor.bytes
            tell(done, total)


if __name__ == "__main__":
    sys.exit(serve(_child, MAX_MEMORY_BYTES))
