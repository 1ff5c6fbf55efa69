"""Loads a language model into PyTorch from a Hugging Face directory or a GGUF file."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleetmark_protocol.errors import ModelNotFound, ModelRejected

WEIGHTS_FROM_KEY = "fleetmark.weights_from"
"""In a safetensors file's metadata: what its weights were dequantized from."""

END_TOKENS = (
    *("<|endoftext|>", "<|im_end|>", "<|end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"),
    *("</s>", "<eos>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<end_of_turn>", "<|end_of_turn|>"),
    *("<end_of_utterance>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<|fim_pad|>"),
    *("<fim-pad>", "<fim_pad>", "<PAD>", "<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>"),
    *("<reponame>", "<|file_sep|>"),
)
"""What llama.cpp takes as a model's end wherever it occurs in a vocabulary: the same are banned."""


@dataclass(frozen=True)
class TorchModel:
    """A model in memory, with what is needed to feed it.

    Attributes:
        module: the PyTorch module.
        tokenizer: a `tokenizers.Tokenizer`.
        end_tokens: ids at which the model ends.
        weights_from: the type that the weights were dequantized from; None where they are as they
            were trained, or the directory does not say.
    """

    module: Any
    tokenizer: Any
    end_tokens: tuple[int, ...]
    weights_from: str | None


def load(path: Path, dtype_name: str) -> TorchModel:
    """Load a model; nothing is fetched, and no code of the model's is run.

    Args:
        path: a directory with config.json, tokenizer.json and *.safetensors, or a GGUF file.
        dtype_name: PyTorch's name of the floating-point type to compute in.

    Raises:
        ModelNotFound: there is nothing at `path`.
        ModelRejected: something is missing, or is not what this backend reads.
        ImportError, OSError, RuntimeError, ValueError...: what the libraries raise.
    """
    # Libraries would ask a hub for what they do not find; read when they are imported.
    os.environ["HF_HUB_OFFLINE"] = "1"
    if path.is_dir():
        return _load_directory(path, dtype_name)
    if not path.is_file():
        raise ModelNotFound(f"there is no model at {path}")
    return _load_gguf(path, dtype_name)


def _load_directory(path: Path, dtype_name: str) -> TorchModel:
    import torch
    from safetensors import safe_open
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM

    files = sorted(path.glob("*.safetensors"))
    for wanted in ("config.json", "tokenizer.json"):
        if not (path / wanted).is_file():
            raise ModelRejected(f"{path.name} has no {wanted}")
    if not files:
        raise ModelRejected(f"{path.name} has no *.safetensors (other weights are not read)")
    config = json.loads((path / "config.json").read_text("utf-8"))
    if config.get("quantization_config"):
        kind = config["quantization_config"].get("quant_method")
        raise ModelRejected(
            f"{path.name} holds weights quantized by {kind!r}, which need kernels of their own",
            hint="take the model in floating point and set load_quantization",
        )
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    module, info = AutoModelForCausalLM.from_pretrained(
        str(path),
        dtype=getattr(torch, dtype_name),
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    with safe_open(files[0], framework="pt") as first:
        weights_from = (first.metadata() or {}).get(WEIGHTS_FROM_KEY)
    ends = _numbers(config.get("eos_token_id"))
    generation = path / "generation_config.json"
    if generation.is_file():
        ends += _numbers(json.loads(generation.read_text("utf-8")).get("eos_token_id"))
    return _checked(path, module, info, tokenizer, ends, weights_from)


def _load_gguf(path: Path, dtype_name: str) -> TorchModel:
    import torch
    import transformers
    from tokenizers import Tokenizer

    from fleetmark_agent.huggingface import config, reading, tokenizer, weights

    gguf = reading.open_gguf(path)
    facts = config.config_of(gguf)
    made = Tokenizer.from_str(json.dumps(tokenizer.tokenizer_of(gguf)))
    dtype = getattr(torch, dtype_name)
    values = {
        # Copied: a norm's values are a view of the file.
        name: torch.tensor(array).to(dtype)
        for name, array in weights.parameters(gguf)
    }
    module, info = getattr(transformers, facts["architectures"][0]).from_pretrained(
        None,
        config=transformers.AutoConfig.for_model(**facts),
        state_dict=values,
        dtype=dtype,
        output_loading_info=True,
    )
    kind = weights.weights_from(gguf)
    ends = [
        number
        for key in ("eos", "eot", "eom")
        for number in _numbers(gguf.values.get(f"tokenizer.ggml.{key}_token_id"))
    ]
    return _checked(path, module, info, made, ends, kind if weights.is_quantized(kind) else None)


def _checked(
    path: Path,
    module: Any,
    info: dict[str, Any],
    tokenizer: Any,
    ends: list[int],
    weights_from: str | None,
) -> TorchModel:
    wrong = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
    if wrong:
        raise ModelRejected(f"{path.name} lacks weights: {', '.join(wrong[:5])}")
    module.eval()
    tokenizer.no_truncation()
    tokenizer.no_padding()
    named = [tokenizer.token_to_id(text) for text in END_TOKENS]
    end_tokens = {*ends, *(number for number in named if number is not None)}
    return TorchModel(module, tokenizer, tuple(sorted(end_tokens)), weights_from)


def _numbers(found: int | list[int] | None) -> list[int]:
    if found is None:
        return []
    return [found] if isinstance(found, int) else list(found)
