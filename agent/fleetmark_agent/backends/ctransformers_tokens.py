"""Texts to token ids and back for a model that was rewritten for CTransformers.

The copy's own vocabulary, in SentencePiece's manner, cuts some texts otherwise than the byte-level
BPE that the model was trained with, and cannot write down every character. The copy carries the
original's merges, so ids are made from those, as today's llama.cpp makes them from the original:
the engine is only ever handed ids.
"""

import re
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from fleetmark_agent.backends.ctransformers_check import KINDS, MERGES, TOKENS, Header
from fleetmark_protocol.errors import ModelRejected

PRE_TOKENIZER = "fleetmark.tokenizer_pre"
"""Metadata of a copy: how the original cuts a text into words."""
_CONTROL, _UNUSED, _BYTE = 3, 5, 6
_HEX = re.compile(rb"<0x([0-9A-F]{2})>")
_GPT2 = r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # as published
_WORDS = {"gpt-2": (_GPT2,), "smollm": (r"\p{N}|\P{N}+", _GPT2)}
"""Name of a pre-tokenizer -> patterns; each cuts the pieces of the one before."""
_END_TEXTS = frozenset(
    {b"<|im_end|>", b"<|endoftext|>", b"<|eot_id|>", b"<|eom_id|>", b"<|end|>"}
    | {b"<end_of_turn>", b"<EOT>", b"<|end_of_text|>", b"<reponame>", b"<|file_sep|>"}
)
"""Texts of tokens that end an answer, whatever the file says; today's llama.cpp knows them too."""


@dataclass(frozen=True)
class Vocabulary:
    """A byte-level BPE vocabulary, in bytes.

    Attributes:
        spelled: bytes of each token; control tokens have none.
        ids: bytes -> token that a text can be made of.
        controls: text that marks a control token -> that token.
        ranks: two neighbours -> how early they are merged.
        patterns: of words, see `_WORDS`.
        first: token that every prompt begins with, if any.
    """

    spelled: tuple[bytes, ...]
    ids: dict[bytes, int]
    controls: dict[str, int]
    ranks: dict[tuple[bytes, bytes], int]
    patterns: tuple[str, ...]
    first: tuple[int, ...]


def vocabulary(header: Header) -> Vocabulary | None:
    """Return a copy's original vocabulary; None for a file whose own one is the original.

    Raises:
        ModelRejected: it cannot be told how the original makes its tokens.
    """
    merges = header.texts(MERGES)
    if not merges:
        if not header.number("tokenizer.ggml.add_space_prefix", 1):
            raise ModelRejected(
                "this copy lacks its original tokenizer (merges), so that its prompts would not be"
                " those of the original",
                hint="make it again by `fleetmark-agent model convert NAME gguf-2023`",
            )
        return None
    name = header.text(PRE_TOKENIZER) or ""
    if name not in _WORDS:
        raise ModelRejected(
            f"its text is cut into words by {name!r}, unknown here",
            hint=f"known: {', '.join(_WORDS)}",
        )
    ranks = {_sides(merge): rank for rank, merge in enumerate(merges)}
    known = {left + right for left, right in ranks} | {bytes((byte,)) for byte in range(256)}
    kinds = header.values[KINDS]
    spelled: list[bytes] = []
    ids: dict[bytes, int] = {}
    controls: dict[str, int] = {}
    for number, piece in enumerate(header.texts(TOKENS)):
        kind = kinds[number] if isinstance(kinds, list) else None
        if kind == _CONTROL:
            controls[piece.decode("utf-8", "replace")] = number
        raw = b"" if kind == _CONTROL else _raw(piece, kind, known)
        spelled.append(raw)
        if raw in known:
            ids.setdefault(raw, number)
    first = (header.number("tokenizer.ggml.bos_token_id"),)
    with_first = bool(header.number("tokenizer.ggml.add_bos_token", 0))
    return Vocabulary(
        tuple(spelled), ids, controls, ranks, _WORDS[name], first if with_first else ()
    )


def encode(vocabulary: Vocabulary, text: str) -> list[int]:
    """Return the token ids of a text; pure.

    Marks of control tokens are those tokens; a byte without a token is left out, as in llama.cpp.
    """
    ids = list(vocabulary.first)
    for part in _split(text, tuple(vocabulary.controls)):
        control = vocabulary.controls.get(part)
        ids += _encode_plain(vocabulary, part) if control is None else [control]
    return ids if text else []


def _encode_plain(vocabulary: Vocabulary, text: str) -> list[int]:
    pieces = [text]
    for pattern in _compiled(vocabulary.patterns):
        pieces = [word for piece in pieces for word in pattern.findall(piece)]
    parts = [part for word in pieces for part in _merged(vocabulary, word.encode())]
    return [vocabulary.ids[part] for part in parts if part in vocabulary.ids]


def _split(text: str, marks: tuple[str, ...]) -> list[str]:
    """Cut a text before and after each mark; where several fit, the longest."""
    if not marks:
        return [text]
    longest_first = sorted(marks, key=len, reverse=True)
    return re.split(f"({'|'.join(map(re.escape, longest_first))})", text)


def end_tokens(header: Header) -> frozenset[int]:
    """Return the tokens that end an answer."""
    told = {header.number(f"tokenizer.ggml.{name}_token_id", -1) for name in ("eos", "eot", "eom")}
    texts = header.texts(TOKENS)
    known = {number for number, piece in enumerate(texts) if piece in _END_TEXTS}
    return frozenset(number for number in told | known if 0 <= number < len(texts))


def _merged(vocabulary: Vocabulary, word: bytes) -> list[bytes]:
    """Merge neighbours, the earliest rank first and of equals the leftmost."""
    parts = [bytes((byte,)) for byte in word]
    unknown = len(vocabulary.ranks)
    while len(parts) > 1:
        ranks = [vocabulary.ranks.get(pair, unknown) for pair in pairwise(parts)]
        best = min(ranks)
        if best == unknown:
            break
        place = ranks.index(best)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


def _raw(piece: bytes, kind: object, known: set[bytes]) -> bytes:
    """Return the bytes that a token of the copy stands for."""
    if kind in (_BYTE, _UNUSED):
        return bytes(int(digits, 16) for digits in _HEX.findall(piece))
    spaced = piece.replace("\u2581".encode(), b" ")
    return spaced if spaced in known or piece not in known else piece


def _sides(merge: bytes) -> tuple[bytes, bytes]:
    """Return both sides of a merge in bytes; the file writes a letter for each."""
    left, _, right = merge.decode("utf-8", "replace").partition(" ")
    letters = _letters()
    return tuple(bytes(letters.get(x, 0) for x in side) for side in (left, right))  # type: ignore[return-value]


@cache
def _letters() -> dict[str, int]:
    """Return which byte each letter of byte-level BPE stands for.

    Printable bytes of Latin-1 stand for themselves, the others, in order, from U+0100 on.
    """
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in plain]
    letters = {chr(byte): byte for byte in plain}
    return letters | {chr(0x100 + place): byte for place, byte in enumerate(others)}


@cache
def _compiled(patterns: tuple[str, ...]) -> tuple["re.Pattern[str]", ...]:
    import regex  # knows classes of Unicode; comes with the extra

    return tuple(regex.compile(pattern) for pattern in patterns)
