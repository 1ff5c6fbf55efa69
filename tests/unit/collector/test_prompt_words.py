"""Prompts of a known length: as many words, no common beginning."""

import pytest

from fleetmark_collector.campaigns.words import MAX_PROMPT_TOKENS, WORDS, prompt_of
from fleetmark_protocol.workloads import Workload


@pytest.mark.parametrize("tokens", [1, 2, len(WORDS), 1000, MAX_PROMPT_TOKENS])
def test_a_prompt_has_as_many_words_as_tokens_are_asked_for(tokens):
    prompt = prompt_of(tokens)
    assert len(prompt.split(" ")) == tokens
    assert prompt == prompt_of(tokens)
    assert Workload(name="w", kind="context_sweep", prompts=(prompt,))


def test_no_prompt_begins_like_another():
    lengths = range(2, 4097)
    assert len({tuple(prompt_of(one).split(" ", 2)[:2]) for one in lengths}) == len(lengths)


def test_every_stride_goes_through_all_words():
    assert len(set(WORDS)) == len(WORDS)
    assert all(len(WORDS) % divisor for divisor in range(2, len(WORDS)))
    for tokens in (len(WORDS), 3 * len(WORDS), 4096):
        assert set(prompt_of(tokens).split()) == set(WORDS)
