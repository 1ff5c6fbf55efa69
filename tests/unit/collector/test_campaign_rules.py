"""The keys of a campaign file that say how it is carried out, each by itself."""

import re

import pytest
from pydantic import ValidationError

from fakes.fake_fleet import START_NS, S, make_inventory
from fleetmark_collector.campaigns.abort import AbortRule, ended_devices
from fleetmark_collector.campaigns.policy import Policy
from fleetmark_collector.campaigns.retries import Retries, next_id
from fleetmark_collector.campaigns.rollout import Growth, Rollout
from fleetmark_collector.campaigns.windows import Windows, zone_notes
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.records import Failure

J = JobState
CRASH = Failure(code="BACKEND_CRASHED", message="died", retryable=True)
GROWTH = {"after_successes": 1, "jobs_per_minute_max": 8}
TOO_LARGE = Failure(code="MODEL_TOO_LARGE", message="no room")


# --- retries -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("on", "state", "failure", "worth"),
    [
        (["retryable"], J.FAILED, CRASH, True),
        (["retryable"], J.FAILED, TOO_LARGE, False),
        (["retryable"], J.TIMED_OUT, CRASH, True),
        (["MODEL_TOO_LARGE"], J.REJECTED, TOO_LARGE, True),
        (["MODEL_TOO_LARGE"], J.FAILED, CRASH, False),
        (["FAILED"], J.FAILED, TOO_LARGE, True),
        (["FAILED"], J.REJECTED, TOO_LARGE, False),
        (["FAILED"], J.FAILED, None, True),
        (["retryable", "REJECTED"], J.REJECTED, TOO_LARGE, True),
        (["retryable"], J.CANCELED, CRASH, False),
        (["retryable"], J.SUCCEEDED, None, False),
    ],
)
def test_what_is_worth_a_retry(on, state, failure, worth):
    assert Retries(max=1, on=on).worth(state, failure) is worth


def test_waits_grow_to_a_longest_one_and_are_never_longer_nor_all_the_same():
    rules = Retries(max=9, backoff_s=30, backoff_factor=2, backoff_max_s=100)
    for number, whole_s in ((1, 30), (2, 60), (3, 100), (9, 100)):
        waits = [rules.wait_ns(number, f"c1.pi-{device}.001.r1") for device in range(40)]
        assert all(0.75 * whole_s * S <= wait <= whole_s * S for wait in waits)
        assert len(set(waits)) == 40
        assert rules.wait_ns(number, "c1.pi-0.001.r1") == waits[0]
    far = Retries(max=100, backoff_factor=100).wait_ns(100, "c1.pi.001.r99")
    assert far <= 3600 * S


def test_each_retry_has_an_id_of_its_own():
    assert next_id("c1.pi.001") == "c1.pi.001.r1"
    assert next_id("c1.pi.001.r9") == "c1.pi.001.r10"
    assert next_id("c1.pi.r1.001") == "c1.pi.r1.001.r1"


def test_a_word_that_is_no_reason_for_a_retry_is_refused_with_the_nearest():
    with pytest.raises(ValidationError, match="did you mean 'BACKEND_CRASHED'"):
        Retries(max=1, on=["BACKEND_CRASH"])


# --- roll-out ----------------------------------------------------------------------------------


def test_the_rate_grows_with_successes_up_to_its_maximum():
    growth = Growth(factor=2, after_successes=10, jobs_per_minute_max=50)
    rollout = Rollout(jobs_per_minute=10, growth=growth)
    rates = {number: rollout.rate(number) for number in (0, 9, 10, 19, 20, 29, 30, 10**6)}
    assert rates == {0: 10, 9: 10, 10: 20, 19: 20, 20: 40, 29: 40, 30: 50, 10**6: 50}
    assert Rollout(jobs_per_minute=10).rate(10**6) == 10
    assert Rollout(devices_at_once=1).rate(5) is None


@pytest.mark.parametrize("per_minute", [0.5, 1, 7, 10, 60, 200])
@pytest.mark.parametrize("tick_s", [1, 3])
def test_jobs_are_sent_evenly_at_their_rate_and_never_faster(per_minute, tick_s):
    rollout, sent = Rollout(jobs_per_minute=per_minute), []
    for second in range(0, 600, tick_s):
        now = START_NS + second * S
        sent += [now] * rollout.due(sent, 0, now)
    assert len(sent) == pytest.approx(1 + 10 * per_minute, rel=0.2, abs=1)
    for first in sent:
        assert sum(first <= one < first + 60 * S for one in sent) <= max(1, per_minute)
    most = max(1, per_minute / 60 * 5)
    assert max(sent.count(one) for one in sent) <= most


def test_time_in_which_nothing_was_sent_is_not_made_up_for():
    rollout = Rollout(jobs_per_minute=60)
    assert rollout.due([START_NS], 0, START_NS + 3600 * S) == 5
    assert Rollout(jobs_per_minute=1).due([START_NS], 0, START_NS + 3600 * S) == 1
    sent = [START_NS]
    for second in range(3600, 3700):
        now = START_NS + second * S
        sent += [now] * rollout.due(sent, 0, now)
    assert sum(one < START_NS + 3660 * S for one in sent[1:]) == 60


def test_a_clock_that_is_put_back_stops_nothing():
    rollout, later = Rollout(jobs_per_minute=2), [START_NS + 3600 * S, START_NS + 3630 * S]
    sent = list(later)
    for second in range(120):
        now = START_NS + second * S
        sent += [now] * rollout.due(sent, 0, now)
    assert sent[2:] == [START_NS + second * S for second in (0, 30, 60, 90)]
    assert rollout.next_ns(later, 0, START_NS) is None
    assert rollout.next_ns(sent, 0, now) == START_NS + 120 * S


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "says nothing"),
        (
            {"growth": {"after_successes": 1, "jobs_per_minute_max": 9}, "devices_at_once": 1},
            "needs",
        ),
        (
            {"jobs_per_minute": 9, "growth": {"after_successes": 1, "jobs_per_minute_max": 8}},
            "lower",
        ),
    ],
)
def test_a_roll_out_that_contradicts_itself_is_refused(fields, words):
    with pytest.raises(ValidationError, match=words):
        Rollout(**fields)


# --- abort -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of", "ends", "broken"),
    [
        ("failed", [J.FAILED, J.SUCCEEDED, J.SUCCEEDED], "failed on 1 of the 3"),
        ("failed", [J.REJECTED, J.TIMED_OUT, J.SUCCEEDED], None),
        ("rejected", [J.REJECTED, J.SUCCEEDED, J.SUCCEEDED], "rejected on 1 of the 3"),
        ("timed_out", [J.TIMED_OUT, J.SUCCEEDED, J.SUCCEEDED], "timed out on 1 of the 3"),
        ("unsuccessful", [J.FAILED, J.REJECTED, J.TIMED_OUT], r"unsuccessful on 3 .* \(100 %\)"),
        ("unsuccessful", [J.CANCELED, J.CANCELED, J.SUCCEEDED], None),
        ("failed", [J.FAILED, J.FAILED], None),
        ("failed", [J.FAILED, J.SUCCEEDED, J.SUCCEEDED, J.SUCCEEDED], None),
    ],
)
def test_when_a_rule_stops_a_campaign(of, ends, broken):
    rule = AbortRule(of=of, share_percent=33, after_devices=3)
    said = rule.broken([frozenset({end}) for end in ends])
    assert (said is None) is (broken is None)
    if broken is not None:
        assert re.search(broken, said)


def test_a_device_has_ended_with_its_last_job():
    jobs = [("a", J.FAILED), ("a", J.SUCCEEDED), ("b", J.FAILED), ("b", J.QUEUED)]
    ends = ended_devices((("lab", device), state) for device, state in jobs)
    assert ends == [frozenset({J.FAILED, J.SUCCEEDED})]


# --- windows -----------------------------------------------------------------------------------


def test_a_zone_is_the_devices_own_or_the_named_one_and_else_utc_with_a_note():
    own = Windows(times="22:00-06:00")
    assert own.zone_of(make_inventory(time_zone="Asia/Tokyo")).name == "Asia/Tokyo"
    assert own.zone_of(None).name == "UTC"
    named = Windows(times="22:00-06:00", time_zone="Europe/Berlin")
    assert named.zone_of(None).name == "Europe/Berlin"
    devices = [("a", make_inventory(time_zone="Asia/Tokyo")), ("b", make_inventory()), ("c", None)]
    devices.append(("d", make_inventory(time_zone="Atlantis/Capital")))
    assert zone_notes(own, devices) == [
        "b does not say its time zone: its windows go by UTC",
        "c does not say its time zone: its windows go by UTC",
        "d has an unknown time zone 'Atlantis/Capital': its windows go by UTC",
    ]
    assert zone_notes(named, devices) == zone_notes(None, devices) == []


def test_a_zone_that_is_not_there_is_refused_with_the_nearest():
    with pytest.raises(ValidationError, match="did you mean 'Europe/Berlin'"):
        Windows(times="22:00-06:00", time_zone="Europe/Berlim")
    for odd in ("../../etc/passwd", "Europe", ""):
        with pytest.raises(ValidationError, match="no time zone"):
            Windows(times="22:00-06:00", time_zone=odd)


def test_the_longest_opening_is_told():
    windows = Windows(times=["20:00-21:00", "22:00-06:00"], time_zone="UTC")
    assert windows.longest_s(windows.zone_of(None).info, START_NS) == 8 * 3600


def test_in_the_middle_of_a_weekly_window_its_whole_length_is_told():
    monday_noon = START_NS // (7 * 86400 * S) * (7 * 86400 * S) + (4 * 24 + 12) * 3600 * S
    windows = Windows(times="08:00-20:00", days="mon", time_zone="UTC")
    zone = windows.zone_of(None).info
    assert windows.stretch(zone, monday_noon) == (monday_noon, monday_noon + 8 * 3600 * S)
    assert windows.longest_s(zone, monday_noon) == 12 * 3600


def test_a_policy_is_the_same_when_it_is_read_back():
    policy = Policy(
        retries=Retries(max=2, on=["FAILED", "retryable"]),
        rollout=Rollout(devices_at_once=3),
        abort=(AbortRule(share_percent=20),),
        windows=Windows(times=["22:00-06:00", "12:00-13:00"], days=["mon"]),
    )
    assert Policy.model_validate_json(policy.model_dump_json(exclude_none=True)) == policy
    assert Policy.model_validate_json("{}") == Policy()
