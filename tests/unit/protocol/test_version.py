"""Which versions work together, and what people are told where two do not."""

import pytest

from fleetmark_protocol.version import __version__, compatible, objection


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0.1.0", "0.1.0"),
        ("0.1.0", "0.1.9"),
        ("0.1.0", "0.2.0"),
        ("1.9.3", "1.10.0"),
        ("0.2.0.dev1", "0.1.0"),
        ("0.2.0rc1+local", "0.3"),
    ],
)
def test_one_minor_version_apart_works_together_both_ways(one, other):
    assert compatible(one, other)
    assert compatible(other, one)
    assert objection(agent=one, collector=other) is None


@pytest.mark.parametrize(
    ("one", "other"), [("0.1.0", "0.3.0"), ("0.9.0", "1.0.0"), ("1.1.0", "1.10.0")]
)
def test_further_apart_does_not_and_the_older_one_is_to_be_upgraded(one, other):
    assert not compatible(one, other)
    assert not compatible(other, one)
    said = objection(agent=one, collector=other)
    assert f"agent {one} and collector {other}" in said
    assert said.endswith("upgrade the agent")
    assert objection(agent=other, collector=one).endswith("upgrade the collector")


@pytest.mark.parametrize(
    "version", ["", "1", "x.y", "0.1x", "\u0660.\u0661.\u0660", "1.2.3\n" * 80, "9" * 200]
)
def test_what_is_no_version_goes_with_nothing_and_is_said_in_one_short_line(version):
    assert not compatible(version, __version__)
    said = objection(agent=version, collector=__version__)
    assert said.endswith("upgrade the agent")
    assert said.isprintable()
    assert len(said) < 200


def test_control_characters_in_a_version_do_not_get_into_the_sentence():
    said = objection(agent="\x1b[31m\n7.7", collector=__version__)
    assert said.isprintable()


def test_who_tells_no_version_is_taken_for_one_from_before_versions_were_said():
    assert objection(agent=None, collector="0.1.0") is None
    assert objection(agent="0.2.0", collector=None) is None
    assert objection(agent=None, collector="0.3.0").endswith("upgrade the agent")
    assert objection(agent="0.3.0", collector=None).endswith("upgrade the collector")
