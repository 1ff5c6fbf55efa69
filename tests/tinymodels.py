"""Models of some thousand random weights that real engines load: kinds we have no others of."""

import math
from pathlib import Path

import gguf
import numpy as np

WIDTH, HEADS, KV_HEADS, LAYERS, INNER = 64, 4, 2, 2, 96
HEAD_DIM = WIDTH // HEADS
CONTEXT_TOKENS = 256
END, BEGIN = "<|end_of_text|>", "<|begin_of_text|>"


def byte_alphabet() -> list[str]:
    """The characters that stand for bytes in byte-level vocabularies, in the order of the bytes."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = iter(range(256, 512))
    return [chr(byte if byte in shown else next(hidden)) for byte in range(256)]


def vocabulary() -> tuple[list[str], list[str]]:
    """Tokens and merges: all bytes, a few words, two control tokens."""
    merges = ["h e", "he l", "l o", "hel lo", "Ġ hello", "i n", "Ġ in", "1 2", "12 3", "' s"]
    tokens = byte_alphabet() + [merge.replace(" ", "") for merge in merges] + [END, BEGIN]
    return tokens, merges


def llama3_factors(longest: float, theta: float) -> np.ndarray:
    """Return what Llama 3 divides its frequencies by, as llama.cpp's files hold it."""
    factors = []
    for index in range(HEAD_DIM // 2):
        wavelength = 2 * math.pi * theta ** (2 * index / HEAD_DIM)
        smooth = (8192 / wavelength - 1) / 3
        between = 1 / ((1 - smooth) / longest + smooth)
        factors.append(1.0 if wavelength < 2048 else longest if wavelength > 8192 else between)
    return np.array(factors, dtype=np.float32)


def tiny_gguf(
    path: Path,
    architecture: str = "llama",
    *,
    split: str = "gpt-2",
    tied: bool = True,
    add_bos: bool | None = None,
    llama3: bool = False,
    inner: int = INNER,
    numbers: dict[str, float] | None = None,
    texts: dict[str, str] | None = None,
) -> Path:
    """Write a model whose weights are drawn from a fixed seed, in F32.

    Args:
        path: of the new file.
        architecture: `llama`, `qwen2` or `qwen3`.
        split: `tokenizer.ggml.pre`.
        tied: whether the output uses the input's embedding.
        add_bos: what the file says about it; None: nothing.
        llama3: whether frequencies are divided as Llama 3's are.
        inner: width of the feed-forward layers.
        numbers: further metadata of the architecture.
        texts: likewise.
    """
    draw = np.random.default_rng(7)
    tokens, merges = vocabulary()
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(500000.0)
    for key, number in (numbers or {}).items():
        writer.add_float32(f"{architecture}.{key}", number)
    for key, text in (texts or {}).items():
        writer.add_string(f"{architecture}.{key}", text)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in {END, BEGIN} else 1 for token in tokens])
    writer.add_token_merges(merges)
    writer.add_eos_token_id(tokens.index(END))
    writer.add_bos_token_id(tokens.index(BEGIN))
    if add_bos is not None:
        writer.add_add_bos_token(add_bos)

    def add(name: str, *shape: int, around: float = 0.0) -> None:
        values = draw.normal(around, 0.3, shape).astype(np.float32)
        writer.add_tensor(name, values)

    add("token_embd.weight", len(tokens), WIDTH)
    add("output_norm.weight", WIDTH, around=1.0)
    if not tied:
        add("output.weight", len(tokens), WIDTH)
    if llama3:
        writer.add_tensor("rope_freqs.weight", llama3_factors(8.0, 500000.0))
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        for part in ("attn_norm", "ffn_norm"):
            add(f"{block}.{part}.weight", WIDTH, around=1.0)
        for part, rows in (("q", WIDTH), ("k", KV_HEADS * HEAD_DIM), ("v", KV_HEADS * HEAD_DIM)):
            add(f"{block}.attn_{part}.weight", rows, WIDTH)
            if architecture == "qwen2":
                add(f"{block}.attn_{part}.bias", rows)
        add(f"{block}.attn_output.weight", WIDTH, WIDTH)
        if architecture == "qwen3":
            for part in ("attn_q_norm", "attn_k_norm"):
                add(f"{block}.{part}.weight", HEAD_DIM, around=1.0)
        for part in ("ffn_gate", "ffn_up"):
            add(f"{block}.{part}.weight", inner, WIDTH)
        add(f"{block}.ffn_down.weight", WIDTH, inner)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
