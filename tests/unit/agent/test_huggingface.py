"""A GGUF file in Hugging Face's terms: what is understood, and what is refused."""

import gguf
import numpy as np
import pytest

from fleetmark_agent.huggingface.config import config_of
from fleetmark_agent.huggingface.reading import open_gguf
from fleetmark_agent.huggingface.tokenizer import tokenizer_config_of, tokenizer_of
from fleetmark_agent.huggingface.weights import (
    is_quantized,
    parameter_name,
    parameters,
    weights_from,
)
from tinymodels import BEGIN, HEAD_DIM, HEADS, KV_HEADS, WIDTH, tiny_gguf, vocabulary


@pytest.fixture
def tiny(tmp_path):
    return tiny_gguf(tmp_path / "tiny.gguf")


def write(path, values, tokens=("a",)):
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in values.items():
        add = writer.add_string if isinstance(value, str) else writer.add_array
        add(key, value)
    writer.add_token_list(list(tokens))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return open_gguf(path)


def test_a_vocabulary_is_read_whole_and_weights_only_when_they_are_used(tiny):
    found = open_gguf(tiny)
    tokens, merges = vocabulary()
    assert found.architecture == "llama"
    assert found.values["tokenizer.ggml.tokens"] == tokens
    assert found.values["tokenizer.ggml.merges"] == merges
    assert found.values["tokenizer.ggml.token_type"][-3:] == [1, 3, 3]
    assert list(found.tensors["token_embd.weight"].shape) == [WIDTH, len(tokens)]


@pytest.mark.parametrize("keep", [0, 4, 100, 5000, 20000])
def test_a_damaged_file_is_told_as_such(tiny, tmp_path, keep):
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny.read_bytes()[:keep])
    with pytest.raises(ValueError):
        open_gguf(cut)


def test_a_length_that_no_file_has_is_told_as_damage(tiny, tmp_path):
    data = bytearray(tiny.read_bytes())
    start = data.index(b"tokenizer.ggml.tokens") + len(b"tokenizer.ggml.tokens") + 8
    data[start : start + 8] = (2**60).to_bytes(8, "little")
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(data)
    with pytest.raises(ValueError):
        open_gguf(bad)


def test_the_config_says_what_the_file_says(tiny):
    config = config_of(open_gguf(tiny))
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["head_dim"] == HEAD_DIM
    assert config["num_key_value_heads"] == KV_HEADS
    assert config["vocab_size"] == len(vocabulary()[0])
    assert config["tie_word_embeddings"] is True
    assert config["attention_bias"] is False
    assert "rope_scaling" not in config


def test_an_output_of_its_own_is_not_tied(tmp_path):
    config = config_of(open_gguf(tiny_gguf(tmp_path / "a.gguf", tied=False)))
    assert config["tie_word_embeddings"] is False


def test_factors_of_llama_3_become_its_parameters(tmp_path):
    config = config_of(open_gguf(tiny_gguf(tmp_path / "a.gguf", llama3=True)))
    assert config["rope_scaling"]["rope_type"] == "llama3"
    assert config["rope_scaling"]["factor"] == 8.0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"architecture": "mamba"}, "mamba"),
        ({"texts": {"rope.scaling.type": "yarn"}}, "yarn"),
        ({"numbers": {"rope.dimension_count": 8}}, "in part"),
        ({"llama3": True, "numbers": {"rope.freq_base": 10000.0}}, "Llama 3"),
    ],
)
def test_what_would_compute_something_else_is_refused(tmp_path, more, said):
    with pytest.raises(ValueError, match=said):
        config_of(open_gguf(tiny_gguf(tmp_path / "a.gguf", **more)))


@pytest.mark.parametrize("name", ["blk.0.ffn_gate_exps.weight", "blk.0.attn_q.scale", "v.patch"])
def test_a_tensor_without_a_place_is_refused_rather_than_left_out(name):
    with pytest.raises(ValueError, match="no place"):
        parameter_name(name)


def test_rows_of_query_and_key_come_back_in_hugging_faces_order(tiny):
    found = open_gguf(tiny)
    made = dict(parameters(found))
    assert len(made) == len(found.tensors)
    for part, heads in (("q", HEADS), ("k", KV_HEADS)):
        in_file = found.tensors[f"blk.0.attn_{part}.weight"].data
        ours = made[f"model.layers.0.self_attn.{part}_proj.weight"]
        # As llama.cpp's converter orders them: the halves of a head, row by row in turn.
        halves = ours.reshape(heads, 2, HEAD_DIM // 2, WIDTH)
        assert np.array_equal(halves.swapaxes(1, 2).reshape(ours.shape), in_file)
        assert not np.array_equal(ours, in_file)


def test_weights_say_what_they_were(model_file):
    found = open_gguf(model_file)
    assert weights_from(found) == "Q4_1"
    assert is_quantized("Q4_1")
    assert not is_quantized("F16")


def test_the_tokenizer_begins_a_text_as_the_file_says(tmp_path):
    with_bos = tokenizer_of(open_gguf(tiny_gguf(tmp_path / "a.gguf", add_bos=True)))
    assert with_bos["post_processor"]["single"][0]["SpecialToken"]["id"] == BEGIN
    silent = tokenizer_of(open_gguf(tiny_gguf(tmp_path / "b.gguf")))
    assert silent["post_processor"] is None
    llama3 = tokenizer_of(open_gguf(tiny_gguf(tmp_path / "c.gguf", split="llama-bpe")))
    assert llama3["post_processor"] is not None
    assert llama3["model"]["ignore_merges"] is True


def test_other_programs_are_told_the_special_tokens(tiny):
    assert tokenizer_config_of(open_gguf(tiny))["bos_token"] == BEGIN


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"tokenizer.ggml.model": "t5"}, "t5"),
        ({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "unheard-of"}, "unheard-of"),
        ({"tokenizer.ggml.model": "llama", "tokenizer.ggml.scores": [0.0]}, "single letters"),
    ],
)
def test_a_vocabulary_whose_ids_would_be_other_ones_is_refused(tmp_path, values, said):
    with pytest.raises(ValueError, match=said):
        tokenizer_of(write(tmp_path / "a.gguf", values))
