"""A real tokenizer makes one token of each word that prompts of a known length are made of."""

import pytest

from fleetmark_collector.campaigns.words import WORDS, prompt_of

pytestmark = pytest.mark.integration


def test_n_words_are_n_tokens(model_file):
    import llama_cpp

    engine = llama_cpp.Llama(str(model_file), vocab_only=True, verbose=False)
    pieces = [*WORDS, *(f" {word}" for word in WORDS)]
    assert [one for one in pieces if len(engine.tokenize(one.encode(), add_bos=False)) != 1] == []
    for tokens in (1, 16, 500, 4096):
        assert len(engine.tokenize(prompt_of(tokens).encode(), add_bos=False)) == tokens
