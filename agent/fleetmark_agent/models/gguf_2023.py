"""Whether the llama.cpp of September 2023 (inside CTransformers 0.2.27) reads a GGUF file.

It knows one tokenizer well, few tensors by name, and dies of what it does not expect. The rules
follow its source; CTransformers' other architecture in GGUF, Falcon, was not tried and is left out.
"""

import re
from typing import TYPE_CHECKING

from fleetmark_agent.models.gguf_structure import Structure

if TYPE_CHECKING:
    from fleetmark_agent.ggufreader import FrugalReader

ARCHITECTURE = "llama"
TOKENIZER = "llama"
TOKENS, SCORES, KINDS = (
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.scores",
    "tokenizer.ggml.token_type",
)
TOKENIZER_MODEL = "tokenizer.ggml.model"
NEWLINE = b"<0x0A>"
EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"
TENSOR_TYPES = frozenset(
    {"F32", "F16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"}
    | {"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"}
)
_IN_BLOCK = (
    "attn_norm|attn_q|attn_k|attn_v|attn_output|ffn_norm|ffn_gate|ffn_up|ffn_down"  # no biases
)
_TENSOR = re.compile(rf"(token_embd|output_norm|output|blk\.\d+\.({_IN_BLOCK}))\.weight")


def weights_obstacle(structure: Structure, reader: "FrugalReader") -> str | None:
    """Say why the reader cannot take these weights, or None; nothing cures that but another file.

    A missing output matrix is none: it can be copied.
    """
    architecture = reader.value("general.architecture")
    if architecture != ARCHITECTURE:
        return f"its architecture is {architecture!r}, not {ARCHITECTURE!r}"
    for tensor in structure.tensors:
        if not _TENSOR.fullmatch(tensor.name):
            return f"tensor {tensor.name!r} is unknown to it"
        if tensor.type_name not in TENSOR_TYPES:
            return f"tensor {tensor.name!r} is of type {tensor.type_name}, unknown to it"
    scaling = reader.value(f"{architecture}.rope.scaling.type")
    if scaling not in (None, "none", "linear"):
        return f"its positions are scaled by {scaling!r}, unknown to it"
    width = reader.number(f"{architecture}.embedding_length")
    heads = reader.number(f"{architecture}.attention.head_count")
    turned = reader.number(f"{architecture}.rope.dimension_count")
    if not width or not heads or turned not in (None, width // heads):
        return "its heads are not of the width that the reader computes"
    return None


def obstacle(structure: Structure, reader: "FrugalReader") -> str | None:
    """Say why the reader cannot take the file as it is, or None."""
    found = weights_obstacle(structure, reader)
    if found is not None:
        return found
    if all(tensor.name != OUTPUT for tensor in structure.tensors):
        return f"it has no {OUTPUT}"
    if reader.value(TOKENIZER_MODEL) != TOKENIZER:
        return f"its tokenizer is {reader.value(TOKENIZER_MODEL)!r}, not {TOKENIZER!r}"
    if {reader.length(key) for key in (SCORES, KINDS)} != {reader.length(TOKENS)}:
        return "its tokens lack scores or types"
    if NEWLINE not in reader.texts(TOKENS):
        return "its tokenizer has no token for each byte"
    return None
