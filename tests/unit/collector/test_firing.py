"""Schedules over a real state file: what is started when, and what becomes of the rest."""

import errno
import json
from contextlib import closing
from dataclasses import replace

import pytest

from fakes.fake_fleet import CAMPAIGN, FakeDevice, make_campaign
from fleetmark_collector.campaigns import firing
from fleetmark_collector.campaigns.firing import Together
from fleetmark_collector.campaigns.plan import make_plan
from fleetmark_collector.campaigns.recurrence import NS, moment
from fleetmark_collector.campaigns.schedule_keys import read_keys
from fleetmark_collector.campaigns.schedules import RUNS_KEPT
from fleetmark_collector.campaigns.tables import CampaignState
from fleetmark_collector.sqlitefile import connect
from fleetmark_protocol.errors import ConfigError, StoreUnavailable
from schedules import UTC, Centre

DAY_NS = 86_400 * NS


@pytest.fixture
def world(tmp_path):
    made = Centre(tmp_path)
    yield made
    made.close()


def test_it_starts_a_campaign_when_it_comes_due_and_only_then(world):
    world.add()
    world.at("2026-12-02T01:59:59")
    assert world.started == []
    world.at("2026-12-02T02:00:00")
    world.at("2026-12-02T02:00:01")
    world.at("2026-12-02T13:00:00")
    assert world.started == ["sizes-20261202-020000"]
    row = world.campaigns.campaign("sizes-20261202-020000")
    assert (row.schedule, row.created_ns) == ("nightly", moment("2026-12-02T02:00", UTC))
    assert len(world.campaigns.jobs(row.campaign_id)) == 4
    assert world.schedules.get("nightly").next_ns == moment("2026-12-03T02:00", UTC)
    ((run, state),) = world.schedules.runs("nightly", 9)
    assert (run.outcome, run.campaign_id, run.due_ns) == (
        "started",
        row.campaign_id,
        moment("2026-12-02T02:00", UTC),
    )
    assert state is CampaignState.RUNNING


@pytest.mark.parametrize(("missed", "started"), [("skip", 0), ("once", 1)])
def test_what_came_due_while_no_collector_ran_follows_the_policy(world, missed, started):
    world.add(missed=missed)
    world.scheduler.close()
    world.scheduler = world.collector()
    world.at("2026-12-05T10:00:00")
    world.at("2026-12-05T10:00:01")
    assert len(world.started) == started
    assert world.schedules.get("nightly").next_ns == moment("2026-12-06T02:00", UTC)
    world.at("2026-12-06T02:00:00")
    assert len(world.started) == started + (1 - started), "the one before runs still, or it is due"


def test_while_the_run_before_goes_on_it_is_skipped_and_the_reason_kept(world):
    world.add(overlap="skip")
    world.at("2026-12-02T02:00:00")
    world.at("2026-12-03T02:00:00")
    assert world.outcomes() == ["started", "skipped"]
    assert world.schedules.runs("nightly", 1)[0][0].reason == "sizes-20261202-020000 had not ended"
    world.end(world.started[0])
    world.at("2026-12-04T02:00:00")
    assert world.outcomes() == ["started", "skipped", "started"]


def test_one_run_waits_for_the_one_before_also_through_a_restart(world):
    world.add(overlap="queue")
    world.at("2026-12-02T02:00:00")
    world.at("2026-12-03T02:00:00")
    world.at("2026-12-04T02:00:00")
    assert world.outcomes() == ["started", "queued", "skipped"]
    world.restart()
    world.end(world.started[0])
    world.at("2026-12-04T05:00:00")
    world.at("2026-12-04T05:00:01")
    assert world.outcomes() == ["started", "queued", "skipped", "started"]
    newest = world.schedules.runs("nightly", 1)[0][0]
    assert newest.due_ns == moment("2026-12-03T02:00", UTC)
    assert newest.campaign_id == "sizes-20261204-050000"


def test_a_run_may_take_the_place_of_the_one_before_which_is_canceled(world):
    world.add(overlap="replace")
    world.at("2026-12-02T02:00:00")
    world.at("2026-12-03T02:00:00")
    first, second = world.started
    assert world.campaigns.campaign(first).stop_reason == "cancel"
    assert world.campaigns.campaign(second).stop_reason is None


def test_a_campaign_begun_by_hand_is_none_of_the_schedule_s_business(world):
    world.add(overlap="skip")
    campaign = make_campaign(world.file.parent)
    world.campaigns.create(campaign, make_plan(campaign, "sizes-20261202-020000", world.devices))
    world.at("2026-12-02T02:00:00")
    assert len(world.started) == 1, "its id is taken, for this second"
    world.at("2026-12-02T02:00:01")
    assert world.started[1:] == ["sizes-20261202-020001"]
    assert world.outcomes() == ["started"]


def test_a_run_that_cannot_be_is_told_and_the_schedule_goes_on(world, capsys):
    text = CAMPAIGN.replace("{all: true}", "{devices: [pi]}")
    world.add(text=text, overlap="replace")
    world.at("2026-12-02T02:00:00")
    world.devices = [FakeDevice("other")]
    world.at("2026-12-03T02:00:00")
    assert world.outcomes() == ["started", "failed"]
    reason = world.schedules.runs("nightly", 1)[0][0].reason
    assert reason.startswith("nightly.yaml:3:21: targets.devices[0]: ")
    assert world.campaigns.campaign(world.started[0]).stop_reason is None, "nothing replaced it"
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (failed,) = [line for line in said if line["event"] == "schedule_run_failed"]
    assert failed["schedule"] == "nightly"
    world.devices = [FakeDevice("pi")]
    world.at("2026-12-04T02:00:00")
    assert world.outcomes() == ["started", "failed", "started"]


def test_a_file_that_this_version_cannot_read_any_more_is_a_failed_run(world):
    world.add(text=CAMPAIGN + "colour: blue\n")
    world.at("2026-12-02T02:00:00")
    (run, _), *_ = world.schedules.runs("nightly", 1)
    assert run.outcome == "failed"
    assert "nightly.yaml:11:1: colour: unknown key" in run.reason


def test_many_schedules_do_not_get_into_each_other_s_way(world):
    for name in ("a", "b"):
        world.add(name)
    world.add("broken", text=CAMPAIGN.replace("{all: true}", "{devices: [gone]}"))
    for second in range(3):
        world.at(f"2026-12-02T02:00:0{second}")
    assert sorted(world.campaigns.campaign(one).schedule for one in world.started) == ["a", "b"]
    assert world.outcomes("broken") == ["failed"]


def test_one_that_is_replaced_lets_go_of_the_run_that_waited(world):
    row = world.add(overlap="queue")
    world.at("2026-12-02T02:00:00")
    world.at("2026-12-03T02:00:00")
    with pytest.raises(ConfigError, match="there is a schedule 'nightly' already"):
        world.schedules.add(row)
    world.schedules.add(replace(row, next_ns=world.now_ns + DAY_NS), replace=True)
    assert world.outcomes() == ["started", "queued", "skipped"]
    world.end(world.started[0])
    world.at("2026-12-03T05:00:00")
    assert len(world.started) == 1


def test_one_that_is_removed_starts_nothing_more_and_its_campaigns_stay(world):
    world.add()
    world.at("2026-12-02T02:00:00")
    world.schedules.remove("nightly")
    world.at("2026-12-03T02:00:00")
    assert len(world.started) == 1
    with pytest.raises(ConfigError, match="no schedule 'nightly'"):
        world.schedules.get("nightly")
    with pytest.raises(ConfigError, match="no schedule 'nightly'"):
        world.schedules.remove("nightly")


def test_what_is_noted_of_a_schedule_does_not_grow_for_ever(world, monkeypatch):
    monkeypatch.setattr("fleetmark_collector.campaigns.schedules.RUNS_KEPT", 3)
    assert RUNS_KEPT == 1000
    world.add(missed="skip", cron="0 * * * *")
    world.add("other", missed="skip")
    for hour in range(14, 22):
        world.at(f"2026-12-01T{hour}:30:00")
    assert len(world.outcomes()) == 3
    world.at("2026-12-02T02:30:00")
    assert world.outcomes("other") == ["missed"]


class Part:
    def __init__(self, trouble=None):
        self.trouble, self.ticks = trouble, 0

    def tick(self):
        self.ticks += 1
        if self.trouble:
            raise self.trouble


def test_trouble_with_schedules_does_not_stop_the_dispatcher():
    dispatcher = Part()
    with pytest.raises(StoreUnavailable):
        Together(dispatcher, Part(StoreUnavailable("locked"))).tick()
    assert dispatcher.ticks == 1


def test_a_schedule_that_this_version_cannot_read_does_not_stop_the_others(world, caplog):
    world.add("nightly")
    world.add("of-the-future")
    with closing(connect(world.file, "rwc")) as db:
        db.execute("UPDATE schedules SET keys = '{}', next_ns = 1 WHERE name = 'of-the-future'")
    world.at("2026-12-02T02:00:00")
    world.at("2026-12-02T02:00:01")
    assert world.started == ["sizes-20261202-020000"]
    (told,) = [one for one in caplog.records if one.getMessage().startswith("left_out")]
    assert "schedule of-the-future" in told.values["reason"]


def test_starting_a_campaign_needs_no_room_for_temporary_files(world, monkeypatch):
    def full(*args, **fields):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.mkdtemp", full)
    world.add()
    world.at("2026-12-02T02:00:00")
    assert world.started == ["sizes-20261202-020000"]


def test_a_schedule_that_fails_in_any_way_is_left_out_alone(world, monkeypatch, caplog):
    world.add("broken")
    world.add("nightly")

    def sometimes(name, text):
        if name == "broken":
            raise OverflowError("date value out of range")
        return read_keys(name, text)

    monkeypatch.setattr(firing, "read_keys", sometimes)
    world.at("2026-12-02T02:00:00")
    assert len(world.started) == 1
    (told,) = [one for one in caplog.records if one.getMessage().startswith("left_out")]
    assert told.values["what"] == "schedule broken"
