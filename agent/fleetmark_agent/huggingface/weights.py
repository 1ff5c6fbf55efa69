"""From a GGUF file's tensors to a Hugging Face model's parameters, in floating point."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from gguf import quants

from fleetmark_agent.huggingface.reading import Gguf

ROPE_FACTORS = "rope_freqs.weight"
"""Of Llama 3: part of the config, not a parameter."""

_WHOLE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LAYER_NAME = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_FLOATS = {"F32", "F16", "BF16", "F64"}


def parameter_name(tensor_name: str) -> str:
    """Return what Hugging Face calls a tensor; pure.

    Raises:
        ValueError: no such parameter; a model without it would compute something else.
    """
    if tensor_name in _WHOLE:
        return _WHOLE[tensor_name]
    found = _LAYER_NAME.fullmatch(tensor_name)
    if found is None or found[2] not in _LAYER:
        raise ValueError(f"tensor {tensor_name!r} has no place in this architecture")
    return f"model.layers.{found[1]}.{_LAYER[found[2]]}.{found[3]}"


def parameters(gguf: Gguf) -> Iterator[tuple[str, Any]]:
    """Yield each parameter's name and its array of float32, one after another.

    Raises:
        ValueError: a tensor that is not understood.
    """
    for name, tensor in gguf.tensors.items():
        if name == ROPE_FACTORS:
            continue
        target = parameter_name(name)
        values = quants.dequantize(tensor.data, tensor.tensor_type)
        if gguf.architecture == "llama" and (".attn_q." in name or ".attn_k." in name):
            kind = "head_count" if ".attn_q." in name else "head_count_kv"
            heads = gguf.values.get(f"llama.attention.{kind}")
            values = _rope_halves(values, heads or gguf.values["llama.attention.head_count"])
        yield target, values


def weights_from(gguf: Gguf) -> str:
    """Return the type that most of the weights have in the file; pure."""
    held: Counter[str] = Counter()
    for tensor in gguf.tensors.values():
        held[tensor.tensor_type.name] += int(tensor.n_elements)
    return held.most_common(1)[0][0]


def is_quantized(kind: str) -> bool:
    """Whether weights of this type have lost what dequantizing cannot bring back; pure."""
    return kind not in _FLOATS


def _rope_halves(values: Any, heads: int) -> Any:
    """Return rows in Hugging Face's order.

    llama.cpp turns neighbouring rows of a head together (x0 with x1), Hugging Face a row of the
    first half with one of the second.
    """
    pairs = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)
