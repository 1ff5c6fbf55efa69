"""A GGUF file's metadata as the `config.json` of a Hugging Face model."""

import math
from typing import Any

from fleetmark_agent.huggingface.reading import Gguf
from fleetmark_agent.huggingface.weights import ROPE_FACTORS

CLASSES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
"""Architectures whose tensors are understood one by one."""

LLAMA3_LOW, LLAMA3_HIGH, LLAMA3_CONTEXT = 1.0, 4.0, 8192
"""The file has the factors alone; these made them in all models of Llama 3."""


def config_of(gguf: Gguf) -> dict[str, Any]:
    """Return the content of `config.json`.

    Raises:
        ValueError: the model computes something that is not understood here.
    """
    architecture = gguf.architecture
    if architecture not in CLASSES:
        raise ValueError(
            f"architecture {architecture!r} is not one of {', '.join(sorted(CLASSES))}"
        )

    def value(name: str, default: Any = None) -> Any:
        found = gguf.values.get(f"{architecture}.{name}", default)
        if found is None:
            raise ValueError(f"the file does not say {architecture}.{name}")
        return found

    heads = value("attention.head_count")
    head_dim = value("attention.key_length", value("embedding_length") // heads)
    _check_rotation(gguf, head_dim)
    config = {
        "architectures": [CLASSES[architecture]],
        "model_type": architecture,
        "vocab_size": int(gguf.tensors["token_embd.weight"].shape[1]),
        "hidden_size": value("embedding_length"),
        "intermediate_size": value("feed_forward_length"),
        "num_hidden_layers": value("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": value("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": value("attention.layer_norm_rms_epsilon"),
        "rope_theta": value("rope.freq_base", 10000.0),
        "max_position_embeddings": value("context_length"),
        "tie_word_embeddings": "output.weight" not in gguf.tensors,
        "dtype": "float32",
    }
    if architecture != "qwen2":
        config["attention_bias"] = "blk.0.attn_q.bias" in gguf.tensors
    if ROPE_FACTORS in gguf.tensors:
        factors = gguf.tensors[ROPE_FACTORS].data.tolist()
        config["rope_scaling"] = _llama3_scaling(factors, config["rope_theta"])
    for kind in ("bos", "eos"):
        number = gguf.values.get(f"tokenizer.ggml.{kind}_token_id")
        if number is not None:
            config[f"{kind}_token_id"] = int(number)
    return config


def _check_rotation(gguf: Gguf, head_dim: int) -> None:
    get = gguf.values.get
    prefix = f"{gguf.architecture}.rope"
    scaling = get(f"{prefix}.scaling.type", "none")
    if scaling != "none":
        raise ValueError(f"positions scaled by {scaling!r} are not understood")
    if get(f"{prefix}.dimension_count", head_dim) != head_dim:
        raise ValueError("heads that are turned in part are not understood")


def _llama3_scaling(factors: list[float], theta: float) -> dict[str, Any]:
    """Return the parameters that make these factors.

    Raises:
        ValueError: they are not made as Llama 3's are.
    """
    longest = max(factors)
    for index, factor in enumerate(factors):
        wavelength = 2 * math.pi * theta ** (index / len(factors))
        if not math.isclose(factor, _llama3_factor(wavelength, longest), rel_tol=1e-3):
            raise ValueError("factors of positions are not those of Llama 3")
    return {
        "rope_type": "llama3",
        "factor": longest,
        "low_freq_factor": LLAMA3_LOW,
        "high_freq_factor": LLAMA3_HIGH,
        "original_max_position_embeddings": LLAMA3_CONTEXT,
    }


def _llama3_factor(wavelength: float, longest: float) -> float:
    if wavelength < LLAMA3_CONTEXT / LLAMA3_HIGH:
        return 1.0
    if wavelength > LLAMA3_CONTEXT / LLAMA3_LOW:
        return longest
    smooth = (LLAMA3_CONTEXT / wavelength - LLAMA3_LOW) / (LLAMA3_HIGH - LLAMA3_LOW)
    return 1 / ((1 - smooth) / longest + smooth)
