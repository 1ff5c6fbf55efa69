"""Topics are built and parsed one way, and nothing can be smuggled into one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmark_protocol import topics
from fleetmark_protocol.errors import ContractError
from fleetmark_protocol.ids import JOB_ID_PATTERN, NAME_PATTERN

NAMES = st.from_regex(NAME_PATTERN.removesuffix("$"), fullmatch=True)
JOB_IDS = st.from_regex(JOB_ID_PATTERN.removesuffix("$"), fullmatch=True)
NO_NAMES = (
    "",
    "+",
    "#",
    "a/b",
    "a+",
    "#a",
    "a\0",
    "a\n",
    "\n",
    "a b",
    "A",
    "_a",
    "-a",
    "ä",
    "..",
    "a" * 64,
)
NO_JOB_IDS = ("", "+", "#", "a/b", "a/+", "a\0", "a\n", "A", ".a", "..", "ä", "a" * 161)


@given(NAMES, NAMES, st.sampled_from(["status", "inventory", "data", "ack"]))
def test_a_topic_parses_to_what_it_was_built_of(fleet, device, channel):
    parsed = topics.parse(topics.topic(fleet, device, channel))
    assert parsed == topics.Topic(fleet, device, channel, None)


@given(NAMES, NAMES, JOB_IDS)
def test_a_jobs_topic_parses_to_what_it_was_built_of(fleet, device, job_id):
    text = topics.topic(fleet, device, "jobs", job_id)
    assert topics.parse(text) == topics.Topic(fleet, device, "jobs", job_id)
    assert str(topics.parse(text)) == text


@given(st.text(max_size=80) | st.lists(st.text(max_size=8) | NAMES, max_size=8).map("/".join))
def test_any_text_is_one_of_our_topics_or_refused(text):
    for candidate in (text, f"{topics.PREFIX}/{text}"):
        try:
            parsed = topics.parse(candidate)
        except ContractError:
            continue
        assert str(parsed) == candidate


@pytest.mark.parametrize("bad", NO_NAMES, ids=repr)
def test_what_is_no_name_gets_into_no_topic(bad):
    for fleet, device in ((bad, "d"), ("f", bad)):
        with pytest.raises(ContractError):
            topics.topic(fleet, device, "data")
        with pytest.raises(ContractError):
            topics.parse(f"{topics.PREFIX}/{fleet}/{device}/data")


@pytest.mark.parametrize("bad", NO_JOB_IDS, ids=repr)
def test_what_is_no_job_id_gets_into_no_topic(bad):
    with pytest.raises(ContractError):
        topics.topic("f", "d", "jobs", bad)
    with pytest.raises(ContractError):
        topics.parse(f"{topics.PREFIX}/f/d/jobs/{bad}")


@pytest.mark.parametrize("bad", [name for name in NO_NAMES if name != "+"], ids=repr)
def test_what_is_no_name_gets_into_no_subscription(bad):
    with pytest.raises(ContractError):
        topics.subscription(bad, "d", "data")
    with pytest.raises(ContractError):
        topics.subscription("+", bad, "data")


def test_a_subscription_may_stand_for_every_fleet_and_device():
    assert topics.subscription("+", "+", "data") == "fleetmark/v1/+/+/data"
    assert topics.subscription("f", "d", "jobs") == "fleetmark/v1/f/d/jobs/+"


@pytest.mark.parametrize(("channel", "job_id"), [("jobs", None), ("data", "j"), ("commands", None)])
def test_a_job_id_goes_with_the_jobs_channel_and_no_other(channel, job_id):
    with pytest.raises(ContractError):
        topics.topic("f", "d", channel, job_id)


def test_a_topic_of_another_schema_version_says_so():
    with pytest.raises(ContractError, match="schema version"):
        topics.parse("fleetmark/v2/f/d/data")


def test_the_longest_topic_stays_in_what_brokers_take():
    longest = topics.topic("f" * 63, "d" * 63, "jobs", "j" * 160)
    assert len(longest.encode()) < 512
