"""A GGUF file's vocabulary as the `tokenizer.json` of a Hugging Face model.

Written so that the ids are those that llama.cpp makes of the same text: Transformers' own reader
of GGUF files does not split text as all these vocabularies were learned.
"""

from string import ascii_letters
from typing import Any

from fleetmark_agent.huggingface.reading import Gguf

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
"""Of `tokenizer.ggml.token_type`."""

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_ENDINGS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_ONE_DIGIT = r"\p{N}"
_LLAMA3 = rf"{_ENDINGS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_ENDINGS}|{_WORDS}|\p{{N}}|{_REST}"

_SPLITS = {
    "gpt-2": (_GPT2,),
    "smollm": (_ONE_DIGIT, _GPT2),
    "starcoder": (_ONE_DIGIT, _GPT2),
    "llama-bpe": (_LLAMA3,),
    "llama3": (_LLAMA3,),
    "qwen2": (_QWEN2,),
    "deepseek-r1-qwen": (_QWEN2,),
}
"""By `tokenizer.ggml.pre`: what cuts a text into the words that merges stay within."""
_WHOLE_WORDS = {"llama-bpe", "llama3"}
"""Vocabularies in which a word that is a token needs no merges; they begin with BOS as well."""

_SPACE = "\u2581"


def tokenizer_of(gguf: Gguf) -> dict[str, Any]:
    """Return the content of `tokenizer.json`.

    Raises:
        ValueError: a kind of vocabulary that is not understood: its ids would not be the model's.
    """
    kind = gguf.values.get("tokenizer.ggml.model")
    if kind == "gpt2":
        parts = _byte_level(gguf)
    elif kind == "llama":
        parts = _sentencepiece(gguf)
    else:
        raise ValueError(f"a vocabulary of the kind {kind!r} is not understood")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(gguf),
        "post_processor": _post_processor(gguf),
        **parts,
    }


def tokenizer_config_of(gguf: Gguf) -> dict[str, Any]:
    """Return the content of `tokenizer_config.json`, which other programs may want."""
    tokens = gguf.values["tokenizer.ggml.tokens"]
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        number = gguf.values.get(f"tokenizer.ggml.{key}_token_id")
        if number is not None:
            config[f"{name}_token"] = tokens[number]
    if "tokenizer.chat_template" in gguf.values:
        config["chat_template"] = gguf.values["tokenizer.chat_template"]
    return config


def _byte_level(gguf: Gguf) -> dict[str, Any]:
    split = gguf.values.get("tokenizer.ggml.pre")
    if split not in _SPLITS:
        raise ValueError(f"how a vocabulary of the kind {split!r} splits words is not known")
    merges = [merge.split(" ", 1) for merge in gguf.values["tokenizer.ggml.merges"]]
    steps = [_step(pattern) for pattern in _SPLITS[split]]
    encode = {"add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [*steps, {"type": "ByteLevel", **encode}],
        },
        "decoder": {"type": "ByteLevel", **encode},
        "model": {
            "type": "BPE",
            "ignore_merges": split in _WHOLE_WORDS,
            "vocab": _vocabulary(gguf),
            "merges": merges,
        },
    }


def _step(pattern: str) -> dict[str, Any]:
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }


def _sentencepiece(gguf: Gguf) -> dict[str, Any]:
    tokens = gguf.values["tokenizer.ggml.tokens"]
    prefixed = gguf.values.get("tokenizer.ggml.add_space_prefix", True)
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    prefix = [{"type": "Prepend", "prepend": _SPACE}] if prefixed else []
    back = {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefixed else []
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*prefix, spaces]},
        "pre_tokenizer": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip],
        },
        "model": {
            "type": "BPE",
            "unk_token": tokens[gguf.values.get("tokenizer.ggml.unknown_token_id", 0)],
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": _vocabulary(gguf),
            "merges": _merges(tokens, gguf.values["tokenizer.ggml.scores"]),
        },
    }


def _vocabulary(gguf: Gguf) -> dict[str, int]:
    return {token: number for number, token in enumerate(gguf.values["tokenizer.ggml.tokens"])}


def _merges(tokens: list[str], scores: list[float]) -> list[list[str]]:
    """Return every way to make a token of two, the best score first.

    Raises:
        ValueError: letters are there as bytes alone: merges of Hugging Face's begin with letters.
    """
    known = set(tokens)
    if not known.issuperset(ascii_letters):
        raise ValueError("the vocabulary has no tokens of single letters")
    found = [
        (-score, [token[:cut], token[cut:]])
        for token, score in zip(tokens, scores, strict=True)
        for cut in range(1, len(token))
        if token[:cut] in known and token[cut:] in known
    ]
    found.sort(key=lambda merge: merge[0])
    return [pair for _, pair in found]


def _added_tokens(gguf: Gguf) -> list[dict[str, Any]]:
    """Return the tokens that are matched whole: control tokens are `special`, others are text."""
    tokens = gguf.values["tokenizer.ggml.tokens"]
    kinds = gguf.values.get("tokenizer.ggml.token_type", [NORMAL] * len(tokens))
    return [
        {
            "id": number,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind == CONTROL,
        }
        for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in {CONTROL, USER_DEFINED}
    ]


def _post_processor(gguf: Gguf) -> dict[str, Any] | None:
    """Return what puts BOS before a text, where the model was taught so."""
    get = gguf.values.get
    usual = get("tokenizer.ggml.model") == "llama" or get("tokenizer.ggml.pre") in _WHOLE_WORDS
    number = get("tokenizer.ggml.bos_token_id")
    if number is None or not get("tokenizer.ggml.add_bos_token", usual):
        return None
    token = gguf.values["tokenizer.ggml.tokens"][number]
    first = {"SpecialToken": {"id": token, "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    second = {"Sequence": {"id": "B", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [first, text],
        "pair": [first, text, second],
        "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]}},
    }
