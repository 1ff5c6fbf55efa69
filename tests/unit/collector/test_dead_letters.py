"""The file of dead letters."""

import json

import pytest

from fleetmark_collector.dead_letters import MAX_RAW_CHARS, DeadLetters, count, older
from fleetmark_protocol.errors import StoreUnavailable


@pytest.fixture
def file(tmp_path):
    return tmp_path / "dead.jsonl"


def test_a_letter_says_when_where_why_and_what(file):
    DeadLetters(file, clock=lambda: 42).add("a/topic", [("no batch", b"{oops")])
    assert json.loads(file.read_text()) == {
        "time_ns": 42,
        "topic": "a/topic",
        "reason": "no batch",
        "raw": "{oops",
    }


@pytest.mark.parametrize("raw", [b"\xff\x00\n\r\x1b[31m", "line\nbreak\u2028", b"x" * 1_000_000])
def test_a_letter_is_one_short_line_of_json_whatever_came(file, raw):
    DeadLetters(file).add("t", [("r", raw)])
    (line,) = file.read_text().splitlines()
    assert len(json.loads(line)["raw"]) <= MAX_RAW_CHARS + 3


def test_letters_are_counted(file):
    assert count(file) == 0
    letters = DeadLetters(file)
    letters.add("t", [("r", b"1"), ("r", b"2")])
    letters.add("t", [("r", b"3")])
    assert count(file) == 3


def test_the_files_together_stay_under_twice_the_limit(file):
    letters = DeadLetters(file, max_file_bytes=1000)
    for number in range(100):
        letters.add("t", [("r", f"letter {number}")])
    assert file.stat().st_size + older(file).stat().st_size < 2 * 1100
    assert "letter 99" in file.read_text()
    assert count(file) == len(file.read_text().splitlines()) + len(
        older(file).read_text().splitlines()
    )


def test_a_letter_that_cannot_be_kept_is_said_to_be_so(file):
    file.mkdir()
    with pytest.raises(StoreUnavailable):
        DeadLetters(file).add("t", [("r", b"")])
