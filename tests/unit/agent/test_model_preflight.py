"""Whether a model fits in memory."""

import pytest

from fleetmark_agent.models.facts import ModelFacts
from fleetmark_agent.models.preflight import ENGINE_BYTES, check_fits, needed_bytes
from fleetmark_protocol.errors import ModelTooLarge

INFO = ModelFacts(
    parameters=134_515_008,
    quantization="Q4_1",
    mix={"Q4_1": 1.0},
    bits_per_weight=5.7,
    tensors=272,
    kv_values_per_token=11_520,
    vocabulary=49_152,
)


def test_needs_are_weights_kv_cache_and_working_memory():
    parts = needed_bytes(INFO, 98_362_432, 2048)
    assert parts == {
        "weights": 98_362_432,
        "KV cache": 11_520 * 2048 * 2,
        "working memory": 512 * 49_152 * 4 + ENGINE_BYTES,
    }


def test_a_short_context_needs_less():
    short, long = (sum(needed_bytes(INFO, 10**8, tokens).values()) for tokens in (128, 8192))
    assert short < long


def test_each_request_at_the_same_time_needs_a_context_of_its_own():
    one, four = (needed_bytes(INFO, 10**8, 2048, contexts) for contexts in (1, 4))
    assert four["KV cache of 4 contexts"] == 4 * one["KV cache"]
    assert {name: four[name] for name in ("weights", "working memory")} == {
        name: one[name] for name in ("weights", "working memory")
    }


def test_a_refusal_of_several_contexts_says_so_and_names_fewer_clients():
    enough = sum(needed_bytes(INFO, 10**9, 2048).values())
    with pytest.raises(ModelTooLarge, match="KV cache of 4 contexts 188") as caught:
        check_fits(INFO, 10**9, 2048, enough, contexts=4)
    assert "fewer clients" in caught.value.hint


def test_exactly_enough_fits_and_a_byte_less_does_not():
    needed = sum(needed_bytes(INFO, 10**9, 2048).values())
    check_fits(INFO, 10**9, 2048, needed)
    with pytest.raises(ModelTooLarge):
        check_fits(INFO, 10**9, 2048, needed - 1)


def test_the_refusal_names_every_part_and_what_is_there():
    with pytest.raises(
        ModelTooLarge,
        match=r"does not fit in memory: needs 4\.3 GB \(weights 4\.0 GB \+ KV cache 47\.2 MB"
        r" \+ working memory 234\.9 MB\), 2\.1 GB free",
    ):
        check_fits(INFO, 4 * 10**9, 2048, 21 * 10**8)


def test_what_a_file_does_not_say_counts_little():
    silent = INFO.model_copy(update={"kv_values_per_token": None, "vocabulary": None})
    parts = needed_bytes(silent, 10**9, 2048)
    assert parts == {"weights": 10**9, "KV cache": 2048 * 4096 * 2, "working memory": ENGINE_BYTES}
