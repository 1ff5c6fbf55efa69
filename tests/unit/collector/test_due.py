"""What a schedule does at a moment: each policy, and what is told of each time."""

import pytest

from fleetmark_collector.campaigns.due import PUNCTUAL_NS, Note, next_step
from fleetmark_collector.campaigns.recurrence import NS, moment, zone_named
from fleetmark_collector.campaigns.schedule_keys import ScheduleKeys

DAY_NS = 86_400 * NS
DUE = moment("2026-12-01T02:00", zone_named("UTC"))
NOW = DUE + NS


def keys(**changes):
    return ScheduleKeys(**{"cron": "0 2 * * *", **changes})


def test_before_its_time_nothing_is_done():
    assert next_step(keys(), DUE, None, [], DUE - 1) is None
    assert next_step(keys(), None, None, [], NOW) is None


def test_at_its_time_it_starts_and_is_due_again_a_day_later():
    step = next_step(keys(), DUE, None, [], DUE)
    assert (step.start_ns, step.next_ns, step.waiting_ns) == (DUE, DUE + DAY_NS, None)
    assert (step.stop_first, step.notes) == (False, ())


def test_after_its_last_time_it_never_comes_due_again():
    assert next_step(keys(end="2026-12-01"), DUE, None, [], NOW).next_ns is None


@pytest.mark.parametrize("missed", ["skip", "once"])
def test_within_a_minute_it_was_not_missed(missed):
    step = next_step(keys(missed=missed), DUE, None, [], DUE + PUNCTUAL_NS)
    assert (step.start_ns, step.reason) == (DUE, "")


def test_a_missed_run_is_skipped_and_told():
    step = next_step(keys(missed="skip"), DUE, None, [], DUE + PUNCTUAL_NS + 1)
    assert (step.start_ns, step.next_ns) == (None, DUE + DAY_NS)
    assert step.notes == (Note(DUE, "missed", "no collector was at work"),)


def test_of_many_missed_runs_only_the_latest_is_made_up_for():
    now = DUE + 3 * DAY_NS + 3600 * NS
    step = next_step(keys(missed="once"), DUE, None, [], now)
    assert (step.start_ns, step.next_ns) == (DUE + 3 * DAY_NS, DUE + 4 * DAY_NS)
    assert step.reason.startswith("late: no collector was at work")
    (note,) = step.notes
    assert (note.due_ns, note.outcome) == (DUE + 2 * DAY_NS, "missed")
    assert "all since 2026-12-01 02:00:00 UTC" in note.reason


def test_many_missed_runs_that_are_skipped_are_one_note():
    now = DUE + 3 * DAY_NS + 3600 * NS
    step = next_step(keys(missed="skip"), DUE, None, [], now)
    assert (step.start_ns, step.next_ns) == (None, DUE + 4 * DAY_NS)
    (note,) = step.notes
    assert note.due_ns == DUE + 3 * DAY_NS
    assert "all since" in note.reason


@pytest.mark.parametrize("missed", ["skip", "once"])
def test_a_run_that_is_due_now_starts_though_others_were_missed(missed):
    step = next_step(keys(missed=missed), DUE, None, [], NOW + DAY_NS)
    assert (step.start_ns, step.reason) == (DUE + DAY_NS, "")
    assert [note.due_ns for note in step.notes] == [DUE]


def test_while_the_one_before_runs_it_is_skipped():
    step = next_step(keys(overlap="skip"), DUE, None, ["c1"], NOW)
    assert (step.start_ns, step.next_ns, step.waiting_ns) == (None, DUE + DAY_NS, None)
    assert step.notes == (Note(DUE, "skipped", "c1 had not ended"),)


def test_or_it_waits_and_starts_once_the_one_before_has_ended():
    asked = keys(overlap="queue")
    step = next_step(asked, DUE, None, ["c1"], NOW)
    assert (step.start_ns, step.next_ns, step.waiting_ns) == (None, DUE + DAY_NS, DUE)
    assert [note.outcome for note in step.notes] == ["queued"]
    assert next_step(asked, DUE + DAY_NS, DUE, ["c1"], NOW + NS) is None
    step = next_step(asked, DUE + DAY_NS, DUE, [], NOW + 2 * NS)
    assert (step.start_ns, step.next_ns, step.waiting_ns) == (DUE, DUE + DAY_NS, None)


def test_one_waits_at_most():
    step = next_step(keys(overlap="queue"), DUE + DAY_NS, DUE, ["c1"], NOW + DAY_NS)
    assert (step.start_ns, step.waiting_ns) == (None, DUE)
    (note,) = step.notes
    assert (note.due_ns, note.outcome) == (DUE + DAY_NS, "skipped")
    assert "the run of 2026-12-01 02:00:00 UTC waits" in note.reason


def test_one_that_waits_has_its_turn_before_one_that_is_due():
    step = next_step(keys(overlap="queue"), DUE + DAY_NS, DUE, [], NOW + DAY_NS)
    assert (step.start_ns, step.next_ns) == (DUE, DUE + DAY_NS)


def test_one_that_waits_starts_although_the_schedule_has_ended():
    step = next_step(keys(overlap="queue", end="2026-12-01"), None, DUE, [], NOW)
    assert (step.start_ns, step.next_ns) == (DUE, None)


def test_or_it_takes_the_place_of_the_one_before():
    step = next_step(keys(overlap="replace"), DUE, None, ["c1"], NOW)
    assert (step.start_ns, step.stop_first, step.reason) == (DUE, True, "in place of c1")
    assert next_step(keys(overlap="replace"), DUE, None, [], NOW).stop_first is False
