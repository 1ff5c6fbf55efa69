"""Models with real frames and random weights, in every format of the store; they say nothing."""

import json
import struct
import zipfile
from pathlib import Path

import gguf
import numpy as np

LAYERS, WIDTH, HEADS, KV_HEADS, VOCABULARY = 2, 64, 4, 2, 96


def write_model(
    path: Path,
    *,
    seed: int = 1,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F16,
    odd_row: bool = False,
    rows: int = VOCABULARY,
) -> Path:
    """Write a small llama-shaped model.

    Args:
        path: where.
        seed: of the weights.
        kind: type of the matrices.
        odd_row: add a matrix whose rows fit in no block.
        rows: of the embedding: more make a longer file.
    """
    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("fake")
    writer.add_block_count(LAYERS)
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"token{number}" for number in range(VOCABULARY)])
    writer.add_token_types([1] * VOCABULARY)

    def matrix(name: str, *shape: int) -> None:
        weights = random.standard_normal(shape, dtype=np.float32)
        if shape[-1] % 32:
            writer.add_tensor(name, weights.astype(np.float16))
        else:
            data = gguf.quants.quantize(weights, kind)
            writer.add_tensor(name, data, raw_dtype=kind)

    matrix("token_embd.weight", rows, WIDTH)
    for layer in range(LAYERS):
        norm = random.standard_normal(WIDTH, dtype=np.float32)
        writer.add_tensor(f"blk.{layer}.attn_norm.weight", norm)
        matrix(f"blk.{layer}.ffn_up.weight", WIDTH, WIDTH)
    if odd_row:
        matrix("blk.0.odd.weight", 8, 40)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


FEED_FORWARD = 96
MERGES = ("Ġ t", "h e", "Ġt he", "Ġ Ġ", "â Ĥ")
CONTROL = "<|end|>"


def write_llama(
    path: Path,
    *,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F16,
    architecture: str = "llama",
    output: bool = False,
    tokenizer: str = "gpt2",
    more: tuple[str, ...] = (),
) -> Path:
    """Write a whole llama: every tensor and a byte-level BPE vocabulary, with random weights.

    Args:
        path: where.
        kind: type of the matrices.
        architecture: what it calls itself.
        output: whether it has an output matrix of its own.
        tokenizer: what it calls its tokenizer.
        more: names of tensors that do not belong there.
    """
    random = np.random.default_rng(2)
    pieces = [*_letters(), *("".join(merge.split()) for merge in MERGES), CONTROL]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("whole")
    writer.add_block_count(LAYERS)
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(pieces))
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model(tokenizer)
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(pieces)
    writer.add_token_types([1] * (len(pieces) - 1) + [3])
    writer.add_token_merges(list(MERGES))
    writer.add_bos_token_id(len(pieces) - 1)
    writer.add_eos_token_id(len(pieces) - 1)

    def add(name: str, *shape: int) -> None:
        weights = random.standard_normal(shape, dtype=np.float32)
        if len(shape) == 1:
            writer.add_tensor(name, weights)
        else:
            writer.add_tensor(name, gguf.quants.quantize(weights, kind), raw_dtype=kind)

    add("token_embd.weight", len(pieces), WIDTH)
    for layer in range(LAYERS):
        for name, *shape in (
            ("attn_norm", WIDTH),
            ("attn_q", WIDTH, WIDTH),
            ("attn_k", WIDTH * KV_HEADS // HEADS, WIDTH),
            ("attn_v", WIDTH * KV_HEADS // HEADS, WIDTH),
            ("attn_output", WIDTH, WIDTH),
            ("ffn_norm", WIDTH),
            ("ffn_gate", FEED_FORWARD, WIDTH),
            ("ffn_up", FEED_FORWARD, WIDTH),
            ("ffn_down", WIDTH, FEED_FORWARD),
        ):
            add(f"blk.{layer}.{name}.weight", *shape)
    add("output_norm.weight", WIDTH)
    if output:
        add("output.weight", len(pieces), WIDTH)
    for name in more:
        add(name, WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _letters() -> list[str]:
    """Return the letters that byte-level BPE writes the bytes 0 to 255 with."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    later = iter(range(0x100, 0x200))
    return [chr(byte if byte in plain else next(later)) for byte in range(256)]


def write_llamafile(path: Path, *members: Path, packed: bool = False) -> Path:
    """Write a program that is a zip archive with files inside; it cannot be run.

    Args:
        path: where.
        members: put inside under their names.
        packed: compress them.
    """
    path.write_bytes(b"MZqFpD='\n'\nexit 1\n" + bytes(5000))
    how = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "a", how) as archive:
        archive.writestr(".args", "-m\n")
        for member in members:
            archive.write(member, member.name)
    return path


def write_directory(
    path: Path, *, dtype: str = "F32", metadata: dict[str, str] | None = None
) -> Path:
    """Write a Hugging Face model directory with two tensors.

    Args:
        path: where.
        dtype: F32 or F16, of both.
        metadata: of the safetensors file.
    """
    path.mkdir()
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": 256,
        "vocab_size": VOCABULARY,
    }
    (path / "config.json").write_text(json.dumps(config))
    (path / "tokenizer.json").write_text("{}")
    numpy_type = {"F32": np.float32, "F16": np.float16}[dtype]
    random = np.random.default_rng(3)
    rows: dict[str, object] = {"__metadata__": metadata or {"format": "pt"}}
    data = b""
    for name, shape in (
        ("model.embed_tokens.weight", (VOCABULARY, WIDTH)),
        ("lm_head.weight", (8, 8)),
    ):
        new = random.standard_normal(shape, dtype=np.float32).astype(numpy_type).tobytes()
        rows[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [len(data), len(data) + len(new)],
        }
        data += new
    header = json.dumps(rows).encode()
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def write_ggjt(path: Path, *, version: int = 3, vocabulary: int = 32000) -> Path:
    """Write the head of an old container, as LLaMA-7B in Q4_0 has it, and no weights."""
    numbers = (version, vocabulary, 4096, 256, 32, 32, 128, 2002)
    path.write_bytes(b"tjgg" + struct.pack("<8I", *numbers) + bytes(100))
    return path
