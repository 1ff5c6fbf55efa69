"""Each run is started once: by several collectors, through kills, whatever the clocks do."""

import json
import sqlite3
from contextlib import closing

import pytest

from fleetmark_collector.campaigns.recurrence import NS, moment, zone_named
from fleetmark_protocol.errors import LeadershipLost
from schedules import BEGIN, UTC, Centre

BERLIN = zone_named("Europe/Berlin")
DAY_NS = 86_400 * NS
MINUTE_NS = 60 * NS


@pytest.fixture
def world(tmp_path):
    made = Centre(tmp_path)
    yield made
    made.close()


def test_a_collector_that_starts_again_goes_on_where_the_schedule_stands(world):
    world.add()
    world.at("2026-12-02T02:00:00")
    world.end(world.started[0])
    world.restart()
    world.at("2026-12-02T02:00:05")
    world.at("2026-12-03T02:00:02")
    assert world.started == ["sizes-20261202-020000", "sizes-20261203-020002"]


def test_two_collectors_at_the_same_moment_start_it_once(world):
    """Both have read the schedule before either has written."""
    world.add(overlap="replace")
    other = world.collector()
    (as_read,) = world.schedules.due(BEGIN + DAY_NS)
    world.at("2026-12-02T02:00:00")
    world.now_ns += NS
    other._schedules.due = lambda _: [as_read]
    other.tick()
    other.close()
    assert len(world.started) == 1
    assert world.campaigns.campaign(world.started[0]).stop_reason is None, (
        "the second did not even cancel the first's"
    )
    assert world.outcomes() == ["started"]


def test_one_that_dies_at_any_step_has_started_it_wholly_or_not_at_all(world):
    world.add()
    world.now_ns = moment("2026-12-02T02:00", UTC)
    steps = 0
    while not world.started:
        dying = world.collector()
        after, seen = steps, 0

        def count(_, after=after):
            nonlocal seen
            seen += 1
            if seen > after:
                raise KeyboardInterrupt  # as good as a kill: nothing after it happens

        real = dying._schedules._file._db

        class Dying:
            def __getattr__(self, name, real=real):
                return getattr(real, name)

            def execute(self, *args, real=real):
                count(args)
                return real.execute(*args)

            def executemany(self, *args, real=real):
                count(args)
                return real.executemany(*args)

        dying._schedules._file._db = Dying()
        try:
            dying.tick()
        except KeyboardInterrupt:
            with closing(sqlite3.connect(world.file)) as db:
                rows = {
                    table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                    for table in ("campaigns", "jobs", "schedule_runs")
                }
            whole = {"campaigns": 1, "jobs": 4, "schedule_runs": 1}
            assert rows in (dict.fromkeys(rows, 0), whole), steps
        finally:
            real.close()
            dying._campaigns.close()
        steps += 1
        assert steps < 50
    assert steps > 5, "it was killed at each of several steps"
    world.scheduler.tick()
    assert len(world.started) == 1
    assert world.schedules.get("nightly").next_ns == moment("2026-12-03T02:00", UTC)


def test_a_collector_that_leads_no_more_starts_nothing(world):
    world.add()

    def lost(_):
        raise LeadershipLost("another collector has taken over")

    world.fence = lost
    with pytest.raises(LeadershipLost):
        world.at("2026-12-02T02:00:00")
    assert world.started == []
    assert world.outcomes() == []


def test_the_clock_may_be_put_back_and_nothing_runs_twice(world, capsys):
    world.add(cron="0 * * * *")
    world.at("2026-12-01T13:00:00")
    world.end(world.started[0])
    world.at("2026-12-01T12:30:00")
    world.at("2026-12-01T13:00:00")
    world.at("2026-12-01T13:00:30")
    assert len(world.started) == 1
    world.at("2026-12-01T14:00:00")
    assert len(world.started) == 2
    events = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert events.count("clock_put_back") == 1


def test_in_spring_a_run_in_the_hour_that_is_left_out_takes_place_once(world):
    world.now_ns = moment("2026-03-28T12:00", BERLIN)
    world.add(cron="30 2 * * *", time_zone="Europe/Berlin")
    begin = moment("2026-03-29T00:00", BERLIN)
    for minute in range(0, 24 * 60, 10):
        world.now_ns = begin + minute * MINUTE_NS
        world.scheduler.tick()
    assert world.started == ["sizes-20260329-010000"], "03:00 CEST, as 02:30 is not there"


def test_in_autumn_a_run_in_the_hour_that_comes_twice_takes_place_once(world):
    world.now_ns = moment("2026-10-24T12:00", BERLIN)
    world.add(cron="30 2 * * *", time_zone="Europe/Berlin")
    begin = moment("2026-10-25T00:00", BERLIN)
    for minute in range(0, 24 * 60, 10):
        world.now_ns = begin + minute * MINUTE_NS
        world.scheduler.tick()
    assert world.started == ["sizes-20261025-003000"], "02:30 CEST, the first of the two"
