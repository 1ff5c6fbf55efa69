"""A GGUF file with a real frame and random weights, written by the `gguf` package; runs nowhere."""

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
