"""What is asked for again and again is made again only where it changed."""

import pytest

from fleetmark_collector.remembered import Remembered


@pytest.fixture
def made():
    return []


@pytest.fixture
def numbers(made):
    def make(key: str, text: str) -> int:
        made.append(key)
        return int(text)

    return Remembered(make)


def test_only_what_changed_is_made_again(numbers, made):
    assert numbers.all({"a": "1", "b": "2"}) == {"a": 1, "b": 2}
    assert numbers.all({"a": "1", "b": "3"}) == {"a": 1, "b": 3}
    assert made == ["a", "b", "b"]


def test_what_is_not_asked_for_any_more_is_forgotten(numbers, made):
    numbers.all({"a": "1", "b": "2"})
    assert numbers.all({"b": "2"}) == {"b": 2}
    numbers.all({"a": "1"})
    assert made == ["a", "b", "a"]


def test_the_order_is_that_of_the_question(numbers):
    numbers.all({"a": "1", "b": "2"})
    assert list(numbers.all({"b": "2", "a": "1"})) == ["b", "a"]


def test_what_cannot_be_made_is_told_and_spoils_nothing(numbers):
    numbers.all({"a": "1"})
    with pytest.raises(ValueError):
        numbers.all({"a": "1", "b": "x"})
    assert numbers.all({"a": "1"}) == {"a": 1}
