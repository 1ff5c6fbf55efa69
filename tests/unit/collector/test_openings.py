"""When windows are open, held against a clock that is read minute by minute."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetmark_collector.campaigns.openings import NS, WEEKDAYS, Hours, openings, stretch
from fleetmark_collector.campaigns.windows import read_hours

BERLIN = ZoneInfo("Europe/Berlin")
MINUTE_NS = 60 * NS


def ns(text: str, zone=UTC, fold: int = 0) -> int:
    moment = datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold)
    return int(moment.timestamp()) * NS


def told(spans, zone) -> list[str]:
    return [
        " to ".join(f"{datetime.fromtimestamp(t / NS, zone):%a %H:%M %z}" for t in span)
        for span in spans
    ]


def opened(hours: str, day: str, zone=BERLIN, days=WEEKDAYS) -> list[str]:
    """The openings from noon of a day until noon of the next."""
    start = ns(f"{day}T12:00:00", zone)
    return told(openings([read_hours(hours)], days, zone, start, start + 86400 * NS), zone)


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins():
    nights = openings(
        [read_hours("22:00-06:00")],
        ["mon", "sat"],
        BERLIN,
        ns("2026-06-01T00:00:00", BERLIN),
        ns("2026-06-08T00:00:00", BERLIN),
    )
    assert told(nights, BERLIN) == [
        "Mon 22:00 +0200 to Tue 06:00 +0200",
        "Sat 22:00 +0200 to Sun 06:00 +0200",
    ]


def test_a_night_is_an_hour_shorter_or_longer_when_the_clocks_change():
    assert opened("22:00-06:00", "2026-03-28") == ["Sat 22:00 +0100 to Sun 06:00 +0200"]
    assert opened("22:00-06:00", "2026-10-24") == ["Sat 22:00 +0200 to Sun 06:00 +0100"]


def test_what_begins_or_ends_in_the_hour_that_never_comes_does_so_at_the_jump():
    assert opened("02:30-06:00", "2026-03-28") == ["Sun 03:00 +0200 to Sun 06:00 +0200"]
    assert opened("01:00-02:30", "2026-03-28") == ["Sun 01:00 +0100 to Sun 03:00 +0200"]
    assert opened("02:10-02:50", "2026-03-28") == []


def test_in_the_hour_that_comes_twice_a_window_is_open_once():
    assert opened("02:30-06:00", "2026-10-24") == ["Sun 02:30 +0200 to Sun 06:00 +0100"]
    assert opened("02:10-02:50", "2026-10-24") == ["Sun 02:10 +0200 to Sun 02:50 +0200"]
    assert opened("01:00-02:30", "2026-10-24") == ["Sun 01:00 +0200 to Sun 02:30 +0200"]


def test_windows_that_touch_are_one():
    both = [read_hours("20:00-24:00"), read_hours("00:00-05:00")]
    start = ns("2026-06-01T12:00:00", BERLIN)
    found = openings(both, WEEKDAYS, BERLIN, start, start + 86400 * NS)
    assert told(found, BERLIN) == ["Mon 20:00 +0200 to Tue 05:00 +0200"]


def test_the_next_window_is_told_while_none_is_open():
    hours, now = [read_hours("22:00-06:00")], ns("2026-06-01T12:00:00", BERLIN)
    span = stretch(hours, ["sun"], BERLIN, now)
    assert told([span], BERLIN) == ["Sun 22:00 +0200 to Mon 06:00 +0200"]
    span = stretch(hours, ["mon"], BERLIN, ns("2026-06-02T05:59:00", BERLIN))
    assert span[1] == ns("2026-06-02T06:00:00", BERLIN)
    span = stretch(hours, ["mon"], BERLIN, ns("2026-06-02T06:00:00", BERLIN))
    assert span[0] == ns("2026-06-08T22:00:00", BERLIN)


def test_a_window_that_the_change_of_clocks_swallows_comes_a_week_later():
    span = stretch([read_hours("02:10-02:50")], ["sun"], BERLIN, ns("2026-03-28T12:00:00"))
    assert told([span], BERLIN) == ["Sun 02:10 +0200 to Sun 02:50 +0200"]
    assert span[0] == ns("2026-04-05T02:10:00", BERLIN)


ZONES = st.sampled_from(
    # By an hour, by half an hour, from the other side of the year, never, and a day that never was.
    ["Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kolkata", "Pacific/Apia"]
)
STARTS = st.sampled_from(
    ["2026-03-28", "2026-10-24", "2026-04-04", "2026-10-03", "2026-03-07", "2011-12-29"]
)


@st.composite
def some_hours(draw) -> Hours:
    start = draw(st.integers(0, 1439))
    return Hours(start, start + draw(st.integers(1, 1440)))


def reached(walls: list[datetime], wall: datetime) -> int:
    """How many minutes pass before the clock first shows a time, or a later one."""
    return next((index for index, one in enumerate(walls) if one >= wall), len(walls))


@settings(max_examples=30, deadline=None)
@given(
    hours=st.lists(some_hours(), min_size=1, max_size=2),
    days=st.sets(st.sampled_from(WEEKDAYS), min_size=1),
    zone=ZONES,
    start=STARTS,
)
def test_the_openings_are_those_that_a_clock_on_the_wall_shows(hours, days, zone, start):
    info = ZoneInfo(zone)
    first = datetime.fromisoformat(start).replace(tzinfo=UTC) - timedelta(days=3)
    minutes = [first + timedelta(minutes=number) for number in range(6 * 1440)]
    walls = [minute.astimezone(info).replace(tzinfo=None) for minute in minutes]
    is_open = [False] * len(minutes)
    day = walls[0].replace(hour=0, minute=0) - timedelta(days=2)
    while day <= walls[-1]:
        if WEEKDAYS[day.weekday()] in days:
            for one in hours:
                begin = reached(walls, day + timedelta(minutes=one.start))
                end = reached(walls, day + timedelta(minutes=one.end))
                is_open[begin:end] = [True] * (end - begin)
        day += timedelta(days=1)
    start_ns = int(first.timestamp()) * NS
    spans = openings(hours, sorted(days), info, start_ns, start_ns + len(minutes) * MINUTE_NS)
    found = [False] * len(minutes)
    for opens, closes in spans:
        assert opens < closes
        begin, end = (opens - start_ns) // MINUTE_NS, (closes - start_ns) // MINUTE_NS
        found[begin:end] = [True] * (end - begin)
    # The clock was first looked at in the middle of things: the first days are not known well.
    assert found[2880:] == is_open[2880:]


@settings(max_examples=60, deadline=None)
@given(hours=some_hours(), zone=ZONES, start=STARTS, minute=st.integers(0, 4000))
def test_the_stretch_is_the_first_opening_that_is_not_over(hours, zone, start, minute):
    now = ns(start) + minute * MINUTE_NS
    info = ZoneInfo(zone)
    ahead = openings([hours], WEEKDAYS, info, now, now + 10 * 86400 * NS)
    span = stretch([hours], WEEKDAYS, info, now)
    assert max(span[0], now) == ahead[0][0]
    assert (span[0] <= now) == (ahead[0][0] == now)
    if ahead[0][1] < now + 10 * 86400 * NS:
        assert span[1] == ahead[0][1]


@pytest.mark.parametrize("text", ["22-06", "24:00-06:00", "10:60-11:00", "10:00-24:01", "x"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="HH:MM-HH:MM"):
        read_hours(text)


def test_a_window_that_ends_when_it_begins_is_refused():
    with pytest.raises(ValueError, match="the whole day is 00:00-24:00"):
        read_hours("06:00-06:00")
    assert read_hours("00:00-24:00") == Hours(0, 1440)
