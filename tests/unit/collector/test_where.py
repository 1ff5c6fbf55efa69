"""Boolean expressions over tags: what they mean, and what is said of those that are none."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetmark_collector.campaigns.where import MAX_CHARACTERS, NotAnExpression, parse

TAGS = ("pi4", "bench", "slow", "3b-plus", "true", "self", "args", "1")


@pytest.mark.parametrize(
    ("text", "tags", "holds"),
    [
        ("pi4", {"pi4"}, True),
        ("pi4", {"pi400"}, False),
        ("pi4 and not (bench or slow)", {"pi4"}, True),
        ("pi4 and not (bench or slow)", {"pi4", "slow"}, False),
        ("not bench and slow", {"slow"}, True),
        ("not bench and slow", set(), False),
        ("a or b and c", {"a"}, True),
        ("(a or b) and c", {"a"}, False),
        ("not not a", {"a"}, True),
        (" ( a )or(not b) ", {"b"}, False),
        ("3b-plus", {"3b-plus"}, True),
        ("true and 1", {"true"}, False),
        ("android or ore", {"ore"}, True),
        ("self", {"self"}, True),
        ("not self and cls", {"cls"}, True),
        ("self or args", {"args"}, True),
        ("self and kwargs", {"kwargs"}, False),
        ("1 and not 0", {"1"}, True),
        ("true and not false", {"false", "true"}, False),
        ("none or and-more or not-now", {"not-now"}, True),
    ],
)
def test_an_expression_is_true_of_some_devices(text, tags, holds):
    assert parse(text).holds(tags) is holds


def test_its_tags_are_known_with_their_places():
    assert parse("pi4 and not (bench or pi4)").tags == (("pi4", 0), ("bench", 13), ("pi4", 22))


@pytest.mark.parametrize(
    ("text", "said", "offset"),
    [
        ("", "is empty: a tag, `not` or `(` should follow", 0),
        ("pi4 and", "ends after 'and': a tag, `not` or `(` should follow", 6),
        ("pi4 slow", "`and`, `or` or `)` should stand after 'pi4', not 'slow'", 4),
        ("pi4 not slow", "`and`, `or` or `)` should stand after 'pi4', not 'not'", 4),
        ("or pi4", "a tag, `not` or `(` should stand first, not 'or'", 0),
        ("pi4 and or slow", "a tag, `not` or `(` should stand after 'and', not 'or'", 8),
        ("()", "a tag, `not` or `(` should stand after '(', not ')'", 1),
        ("(pi4", "this ( is never closed", 0),
        ("(a) (b)", "`and`, `or` or `)` should stand after ')', not '('", 4),
        ("pi4)", "this ) closes nothing", 3),
        ("pi4 AND slow", "write 'and' in small letters", 4),
        ("pi4 && slow", "'&&' is no tag", 4),
        ("Pi4", "'Pi4' is no tag", 0),
        ("a" + " and a" * 100, f"longer than {MAX_CHARACTERS} characters", 0),
    ],
)
def test_what_is_no_expression_is_told_with_its_place(text, said, offset):
    with pytest.raises(NotAnExpression) as caught:
        parse(text)
    assert str(caught.value).startswith(said)
    assert caught.value.offset == offset


def test_as_many_nots_as_a_text_can_hold_are_no_trouble():
    assert parse("not " * 124 + "a").holds({"a"})
    assert parse("(" * 249 + "a" + ")" * 249).holds({"a"})


expressions = st.recursive(
    st.sampled_from(TAGS),
    lambda inner: st.one_of(
        st.builds("not ({})".format, inner),
        st.builds("({} and {})".format, inner, inner),
        st.builds("({} or {})".format, inner, inner),
        st.builds(
            "{} or not {} and {}".format, st.sampled_from(TAGS), st.sampled_from(TAGS), inner
        ),
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(expressions.filter(lambda text: len(text) <= MAX_CHARACTERS), st.sets(st.sampled_from(TAGS)))
def test_expressions_mean_what_they_mean_in_python(text, tags):
    as_python = text
    for number, tag in enumerate(TAGS):
        as_python = re.sub(rf"(?<![\w\[-]){tag}(?![\w\]-])", f"T[{number}]", as_python)
    meant = eval(as_python, {"T": [tag in tags for tag in TAGS]})  # noqa: S307 - our own text
    assert parse(text).holds(tags) is meant


def outcome(text):
    """The place of the mistake, or None where there is none."""
    try:
        parse(text).holds({"a"})
    except NotAnExpression as error:
        return error.offset
    return None


@settings(deadline=None)
@given(st.text(alphabet="ab &|()!ndort-", max_size=30))
def test_any_text_is_an_expression_or_told_with_a_place_within_it(text):
    offset = outcome(text)
    assert offset is None or 0 <= offset <= len(text)
