"""When a schedule runs, by the clocks of real places."""

import re
from itertools import islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetmark_collector.campaigns.recurrence import (
    NS,
    NotACron,
    Recurrence,
    check_cron,
    moment,
    shown,
    zone_named,
)

HOUR_NS = 3600 * NS


def times(cron, zone, after, number=4, **span):
    place = zone_named(zone)
    edges = {f"{key}_ns": moment(text, place, through=key == "end") for key, text in span.items()}
    upcoming = Recurrence(cron, place, **edges).upcoming(moment(after, place))
    return [shown(time_ns, place) for time_ns in islice(upcoming, number)]


def test_it_goes_by_the_clock_of_its_zone_in_summer_and_in_winter():
    assert times("0 2 * * mon", "Europe/Berlin", "2026-10-15", 3) == [
        "2026-10-19 02:00:00 CEST",
        "2026-10-26 02:00:00 CET",
        "2026-11-02 02:00:00 CET",
    ]
    assert times("0 2 * * mon", "UTC", "2026-10-15", 1) == ["2026-10-19 02:00:00 UTC"]


def test_a_time_that_the_clocks_leave_out_counts_as_the_moment_they_jump_to():
    assert times("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", 2) == [
        "2026-03-29 03:00:00 CEST",
        "2026-03-30 02:30:00 CEST",
    ]
    # There it is the other half of the year, and an hour earlier on the clock.
    assert times("30 2 * * *", "Australia/Sydney", "2026-10-03T12:00", 1) == [
        "2026-10-04 03:00:00 AEDT"
    ]


def test_several_times_that_are_left_out_are_one_run():
    assert times("0,30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", 2) == [
        "2026-03-29 03:00:00 CEST",
        "2026-03-30 02:00:00 CEST",
    ]


def test_a_time_that_comes_twice_counts_the_first_time():
    assert times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", 2) == [
        "2026-10-25 02:30:00 CEST",
        "2026-10-26 02:30:00 CET",
    ]
    assert times("30 1 * * *", "America/New_York", "2026-10-31T12:00", 2) == [
        "2026-11-01 01:30:00 EDT",
        "2026-11-02 01:30:00 EST",
    ]


def test_asked_between_the_two_it_has_had_its_turn():
    berlin = zone_named("Europe/Berlin")
    every = Recurrence("30 2 * * *", berlin)
    first_ns = every.next(moment("2026-10-25", berlin))
    for minutes in (0, 30, 59, 60):  # the hour is over at the last
        assert every.next(first_ns + minutes * 60 * NS) == moment("2026-10-26T02:30", berlin)


def test_every_hour_is_every_hour_whatever_the_clocks_do():
    berlin = zone_named("Europe/Berlin")
    for day in ("2026-03-28T20:00", "2026-10-24T20:00"):
        found = list(islice(Recurrence("0 * * * *", berlin).upcoming(moment(day, berlin)), 12))
        assert {b - a for a, b in pairwise(found)} == {HOUR_NS}


def test_it_keeps_to_its_start_and_its_end():
    span = {"start": "2026-12-01", "end": "2026-12-15"}
    assert times("0 2 * * tue", "Europe/Berlin", "2026-01-01", 9, **span) == [
        "2026-12-01 02:00:00 CET",
        "2026-12-08 02:00:00 CET",
        "2026-12-15 02:00:00 CET",  # a date as the end is a day that counts
    ]
    span = {"start": "2026-12-01T02:00", "end": "2026-12-08T02:00"}
    assert times("0 2 * * tue", "Europe/Berlin", "2026-01-01", 9, **span) == [
        "2026-12-01 02:00:00 CET"
    ]


def test_the_newest_of_many_is_found_without_going_through_them_all():
    utc = zone_named("UTC")
    first_ns = moment("2000-01-01", utc)
    now_ns = moment("2026-11-21T10:00", utc) + 30 * NS
    cases = {
        "* * * * *": "2026-11-21T10:00",
        "0 2 * * mon": "2026-11-16T02:00",
        "0 0 1 6 *": "2026-06-01",
        "0 0 29 2 *": "2024-02-29",
    }
    for cron, expected in cases.items():
        every = Recurrence(cron, utc)
        first = every.next(first_ns)
        assert every.latest(first, now_ns) == moment(expected, utc), cron
        assert every.latest(now_ns, now_ns) == now_ns
        assert every.latest(first, first) == first


MINUTES = st.sampled_from(["0", "30", "*", "*/20", "0,15,45", "59"])
HOURS = st.sampled_from(["0", "1", "2", "3", "*", "*/2", "1-3", "23"])
ZONES = st.sampled_from(
    [
        "Europe/Berlin",
        "America/New_York",
        "America/St_Johns",
        "Australia/Lord_Howe",  # by half an hour
        "America/Santiago",  # at midnight
        "Asia/Kolkata",
        "Pacific/Apia",
        "UTC",
    ]
)


@settings(max_examples=150, deadline=None)
@given(MINUTES, HOURS, ZONES, st.integers(0, 400 * 24), st.integers(0, 120))
def test_whoever_asks_later_gets_the_same_times(minute, hour, zone, at_h, later):
    """As a schedule must, that is moved on from each of its times, or from any moment between."""
    every = Recurrence(f"{minute} {hour} * * *", zone_named(zone))
    begin_ns = 1_780_000_000 * NS + at_h * HOUR_NS
    found = list(islice(every.upcoming(begin_ns), 6))
    assert all(a < b for a, b in zip([begin_ns, *found], found, strict=False))
    asked_ns = begin_ns + later * 60 * NS
    rest = [time_ns for time_ns in found if time_ns > asked_ns]
    assert list(islice(every.upcoming(asked_ns), len(rest))) == rest


@pytest.mark.parametrize(
    ("cron", "says", "offset"),
    [
        ("0 2 * *", "should be 5 fields", 0),
        ("@daily", "should be 5 fields", 0),
        ("0 0 2 * * mon", "should be 5 fields", 0),
        ("0  24 * * *", "hour '24': takes 0 to 23", 3),
        ("0 2 * * mun", "day-of-week 'mun'", 8),
        ("5#1 * * * *", "minute '5#1'", 0),
        ("*/0 * * * *", "minute '*/0'", 0),
        ("0 0 30 2 *", "never runs", 4),
        ("0 0 31 4,6 *", "never runs", 4),
    ],
)
def test_what_is_no_cron_expression_is_told_with_its_place(cron, says, offset):
    with pytest.raises(NotACron, match=re.escape(says)) as refused:
        check_cron(cron)
    assert refused.value.offset == offset


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text("0159*/,-#LWMON ", min_size=1, max_size=6), min_size=5, max_size=5))
def test_no_text_gets_past_the_check_that_breaks_later(fields):
    cron = " ".join(fields)
    try:
        check_cron(cron)
    except NotACron:
        return
    assert Recurrence(cron, zone_named("Europe/Berlin")).next(1_780_000_000 * NS) is not None


@pytest.mark.parametrize("name", ["europe/berlin", "Berlin", "Europe/Berln", " Europe/Berlin"])
def test_a_slip_in_a_zone_s_name_is_told_with_the_right_one(name):
    with pytest.raises(ValueError, match="did you mean 'Europe/Berlin'"):
        zone_named(name)


@pytest.mark.parametrize("name", ["Nowhere/Land", "", "../../etc/passwd", "/etc/passwd", "a\0b"])
def test_what_is_no_zone_is_refused(name):
    with pytest.raises(ValueError, match="no time zone"):
        zone_named(name)


@pytest.mark.parametrize(
    "text", ["tomorrow", "2026-13-01", "2026-12-01T25:00", "20261201", "2026-W10", ""]
)
def test_what_is_neither_date_nor_time_is_refused(text):
    with pytest.raises(ValueError, match="should be a date"):
        moment(text, zone_named("UTC"), through=True)


def test_a_time_with_an_offset_is_that_moment_wherever_the_schedule_is():
    utc, tokyo = zone_named("UTC"), zone_named("Asia/Tokyo")
    assert moment("2026-12-01T09:00+09:00", utc) == moment("2026-12-01T09:00", tokyo)


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Tokyo"])
def test_the_ends_of_the_calendar_stand_for_ever(zone):
    span = {"start": "0001-01-01", "end": "9999-12-31"}
    assert times("0 2 1 1 *", zone, "2026-10-15", 1, **span)[0].startswith("2027-01-01 02:00:00")
    place = zone_named(zone)
    first, far = moment("0001-01-01", place), moment("9999-12-30", place)
    early = Recurrence("0 2 * * *", place, start_ns=first).next(first - 1)
    assert 0 <= early < 24 * HOUR_NS, "nothing before 1970 is looked for"
    assert Recurrence("0 2 * * *", place).next(far) is None
    assert Recurrence("0 2 * * *", place, start_ns=far).next(0) is None
    last = list(Recurrence("0 2 * * *", place).upcoming(moment("2262-04-09", place)))
    assert 0 < len(last) < 5
    assert max(last) < 2**63


@pytest.mark.parametrize(
    ("cron", "field", "offset"),
    [
        ("*/61 * * * *", "minute", 0),
        ("0-59/90 * * * *", "minute", 0),
        ("1,5/90 * * * *", "minute", 0),
        ("0 */25 * * *", "hour", 2),
        ("0 0 */32 * *", "day-of-month", 4),
        ("0 0 1 */13 *", "month", 6),
        ("0 0 * * */8", "day-of-week", 8),
    ],
)
def test_a_step_that_its_field_never_takes_is_refused(cron, field, offset):
    with pytest.raises(NotACron, match=f"{field} .*: a step of .* is larger than the field") as no:
        check_cron(cron)
    assert no.value.offset == offset


@pytest.mark.parametrize("cron", ["*/60 */24 */31 */12 */7", "*/59 1-5/2 * jan-dec/3 *"])
def test_steps_up_to_the_whole_field_are_lawful(cron):
    check_cron(cron)
