"""What is said of two engines that answered the same prompts."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collected import trial
from fleetmark_collector.report.sameness import (
    Sameness,
    Verdict,
    compare_answers,
    compare_work,
    repeats_itself,
)
from fleetmark_protocol.values import MAX_TOKEN_IDS


def digest(value) -> str:
    return hashlib.sha256(str(value).encode()).hexdigest()


def answer(ids=(1, 2, 3), text=None, prompt=(7, 8), **more):
    """A trial of an engine that gives token ids, unless `ids` is None."""
    text = text if text is not None else " ".join(map(str, ids))
    fields = {
        "prompt_tokens": len(prompt),
        "prompt_ids_sha256": digest(tuple(prompt)),
        "prompt_ids": tuple(prompt),
        "output_sha256": digest(text),
        "output_text": text,
    }
    if ids is not None:
        fields |= {"output_ids": ids[:MAX_TOKEN_IDS], "output_ids_sha256": digest(tuple(ids))}
    return trial(**{**fields, **more})


def verdict(mine, theirs) -> str:
    return compare_answers([mine], [theirs]).text


def test_the_same_tokens_are_identical():
    assert verdict(answer(), answer()) == "identical"


def test_the_same_text_of_other_tokens_is_said_to_be_so():
    assert verdict(answer((1, 2), "ab"), answer((3,), "ab")) == "same text, other tokens"


@pytest.mark.parametrize(
    ("mine", "theirs", "at"),
    [
        ((1, 2, 3), (1, 9, 3), 2),
        ((5, 2, 3), (1, 2, 3), 1),
        ((1, 2, 3), (1, 2, 3, 4), 4),
        ((1, 2, 3, 4), (1, 2), 3),
    ],
)
def test_divergence_is_told_at_the_first_token_that_differs_counted_from_one(mine, theirs, at):
    found = compare_answers([answer(mine)], [answer(theirs)])
    assert found == Verdict(Sameness.DIVERGES, f"at token {at}", at)
    assert found.text == f"diverges at token {at}"


@given(st.lists(st.integers(0, 3), min_size=1), st.lists(st.integers(0, 3), min_size=1))
def test_what_comes_before_the_divergence_is_the_same_and_the_token_itself_differs(mine, theirs):
    found = compare_answers([answer(tuple(mine))], [answer(tuple(theirs))])
    if mine == theirs:
        assert found.kind is Sameness.IDENTICAL
    else:
        at = found.at
        assert mine[: at - 1] == theirs[: at - 1]
        assert mine[at - 1 : at] != theirs[at - 1 : at]


def test_outputs_that_differ_after_what_was_kept_of_them_diverge_after_it():
    same = tuple(range(MAX_TOKEN_IDS))
    found = compare_answers([answer((*same, 1))], [answer((*same, 2))])
    assert found.text == f"diverges after token {MAX_TOKEN_IDS}"


def test_without_token_ids_on_both_sides_texts_are_compared():
    assert verdict(answer(None, "abc"), answer((1,), "abc")) == "identical by its text"
    assert verdict(answer(None, "abc"), answer((1,), "abd")) == "diverges at character 3"


def test_token_ids_come_from_whichever_repetition_recorded_them():
    later = answer((1, 2), output_ids=None)
    assert compare_answers([later, answer((1, 2))], [answer((1, 3))]).at == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompt": (7, 8, 9)}, "prompt tokenized differently (3 vs 2 tokens)"),
        ({"prompt": (7, 9)}, "prompt tokenized differently (2 tokens, other ids)"),
        (
            {"prompt": (1, 7, 8), "prompt_ids_sha256": None},
            "prompt tokenized differently (3 vs 2 tokens)",
        ),
        ({"prompt_sha256": "cd" * 32}, "not comparable: other prompts"),
        ({"output_tokens_requested": 16}, "not comparable: asked for 16 and 8 tokens"),
        (
            {"ids": None, "text": "", "output_sha256": None, "output_text": None},
            "not comparable: the output was not recorded",
        ),
    ],
)
def test_unequal_questions_are_told_before_answers_are_compared(change, said):
    assert verdict(answer(**change), answer()) == said


def test_prompt_tokens_that_nobody_knows_do_not_stand_in_the_way():
    silent = answer(prompt_ids_sha256=None, prompt_tokens=None)
    assert verdict(silent, answer()) == "identical"


def test_of_several_prompts_the_earliest_divergence_and_the_share_of_identical_ones_is_told():
    mine = {("w", n): [answer()] for n in range(3)}
    theirs = {
        ("w", 0): [answer((1, 2, 9))],
        ("w", 1): [answer()],
        ("w", 2): [answer((1, 9, 9))],
    }
    found = compare_work(mine, theirs)
    assert found.text == "diverges at token 2, 1 of 3 prompts identical"
    assert compare_work(mine, mine).text == "identical over 3 prompts"


def test_only_prompts_that_both_were_asked_count():
    mine = {("w", 0): [answer()], ("x", 0): [answer((4,))]}
    assert compare_work(mine, {("w", 0): [answer()]}).text == "identical"
    assert compare_work(mine, {("y", 0): [answer()]}).text == "not comparable: no prompt in common"
    assert compare_work(mine, {}).text == "not comparable: no usable trial"


def test_an_engine_whose_repetitions_differ_does_not_repeat_itself():
    assert repeats_itself({("w", 0): [answer(), answer()]}) is True
    assert repeats_itself({("w", 0): [answer(), answer((1, 9))]}) is False
    assert repeats_itself({("w", 0): [answer(None, "a"), answer((1,), "a")]}) is True
    assert repeats_itself({("w", 0): [answer()]}) is None
