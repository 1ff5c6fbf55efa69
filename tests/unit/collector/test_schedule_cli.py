"""`campaign schedule` and `schedule list|show|next|rm`, as an operator gives them."""

import json
import time
from itertools import pairwise

import pytest
from typer.testing import CliRunner

from campaigncli import Cli
from fakes.fake_fleet import CAMPAIGN
from fleetmark_collector.campaigns.firing import Scheduler
from fleetmark_collector.campaigns.recurrence import NS
from fleetmark_collector.campaigns.schedules import ScheduleStore
from fleetmark_collector.cli.main import build
from fleetmark_collector.devices import DeviceRegistry
from fleetmark_protocol.errors import ConfigError, StoreError

WEEKLY = CAMPAIGN + 'schedule: {cron: "0 2 * * mon", time_zone: Asia/Tokyo}\n'
BEYOND = WEEKLY.replace("tiny.gguf", "tiny-135m.gguf") + "limits: {duration_s: 5}\n"
DAY_NS = 86_400 * NS


class Operator:
    def __init__(self, directory):
        self.cli = Cli(directory)
        self.cli.add_device("pi")
        self.file = self.cli.file
        self.state_file = self.cli.data_dir / "state.db"
        self.file.write_text(WEEKLY)

    def __call__(self, *args):
        where = ["--data-dir", str(self.cli.data_dir)]
        return CliRunner().invoke(build(), [*args, *where], env={"COLUMNS": "200"})

    def json(self, *args):
        done = self(*args, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def tick(self, now_ns):
        registry = DeviceRegistry(self.state_file)
        scheduler = Scheduler(self.state_file, registry, lambda: now_ns)
        scheduler.tick()
        scheduler.close()
        registry.close()


@pytest.fixture
def run(tmp_path):
    return Operator(tmp_path)


def test_a_schedule_is_registered_listed_shown_and_removed(run):
    done = run("campaign", "schedule", str(run.file))
    assert done.exit_code == 0, done.output
    assert "Schedule sizes: registered; 4 jobs a run as things are now." in done.output
    assert "02:00:00 JST (Asia/Tokyo); here" in done.output
    (listed,) = run.json("schedule", "list")
    assert listed["name"] == "sizes"
    assert listed["schedule"] == {
        "cron": "0 2 * * mon",
        "time_zone": "Asia/Tokyo",
        "overlap": "skip",
        "missed": "skip",
    }
    assert listed["next_ns"] > time.time_ns()
    assert "0 2 * * mon  Asia/Tokyo" in run("schedule", "list").output
    shown = run("schedule", "show", "sizes").output
    assert "overlap: skip; missed: skip" in shown
    assert "no runs yet" in shown
    assert run.json("schedule", "rm", "sizes") == {
        "name": "sizes",
        "removed": True,
        "campaigns_running": [],
    }
    assert run.json("schedule", "list") == []
    assert "No schedules" in run("schedule", "list").output


def test_its_runs_are_shown_with_what_became_of_them(run):
    run("campaign", "schedule", str(run.file))
    due_ns = run.json("schedule", "show", "sizes")["next_ns"]
    run.tick(due_ns)
    run.tick(due_ns + 7 * DAY_NS)
    run.tick(due_ns + 14 * DAY_NS + 3600 * NS)
    found = run.json("schedule", "show", "sizes")
    missed, skipped, started = found["runs"]
    assert [one["outcome"] for one in (started, skipped, missed)] == [
        "started",
        "skipped",
        "missed",
    ]
    assert found["campaigns_running"] == [started["campaign_id"]]
    assert (started["due_ns"], started["campaign_state"]) == (due_ns, "RUNNING")
    assert skipped["reason"] == f"{started['campaign_id']} had not ended"
    assert missed["reason"] == "no collector was at work"
    table = run("schedule", "show", "sizes").output
    for word in (f"{started['campaign_id']} RUNNING", "had not ended", "no collector was at work"):
        assert word in table
    assert len(run.json("schedule", "show", "sizes", "-n", "1")["runs"]) == 1
    status = run.json("campaign", "status", started["campaign_id"])
    assert status["schedule"] == "sizes"
    (listed,) = run.json("campaign", "list")
    assert listed["schedule"] == "sizes"
    assert "scheduled by sizes" in run("campaign", "list").output
    gone = run("schedule", "rm", "sizes").output
    assert f"note: {started['campaign_id']} goes on" in gone


@pytest.fixture
def centre_in_berlin(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("centre_in_berlin")
def test_the_next_times_are_told_by_both_clocks(run):
    run.file.write_text(WEEKLY.replace("Tokyo}", "Tokyo, start: 2030-01-01}"))
    run("campaign", "schedule", str(run.file))
    times = run.json("schedule", "next", "sizes", "-n", "3")
    assert [one["in_time_zone"][10:] for one in times] == ["T02:00:00+09:00"] * 3
    assert {b["time_ns"] - a["time_ns"] for a, b in pairwise(times)} == {7 * DAY_NS}
    assert times[0]["in_centre"] == "2030-01-06T18:00:00+01:00"
    (line,) = run("schedule", "next", "-n", "1").output.splitlines()[1:]
    assert line.split() == [
        "sizes",
        "Asia/Tokyo",
        *("2030-01-07", "02:00:00", "JST"),
        *("2030-01-06", "18:00:00", "CET"),
    ]


def test_without_a_name_the_times_of_all_are_told_in_order(run):
    run("campaign", "schedule", str(run.file))
    run.file.write_text(CAMPAIGN + 'schedule: {cron: "0 5 * * *"}\n')
    run("campaign", "schedule", str(run.file), "--name", "daily")
    times = run.json("schedule", "next", "-n", "20")
    assert [one["time_ns"] for one in times] == sorted(one["time_ns"] for one in times)
    assert {one["schedule"] for one in times} == {"sizes", "daily"}


def test_what_is_kept_needs_no_other_file(run):
    prompts = run.cli.directory / "prompts.txt"
    prompts.write_text("hello\nciao\n")
    single = "- {name: one, kind: single, prompt: hello, warmup: 1, repetitions: 2}"
    multi = "- {name: one, kind: multi, prompts_file: prompts.txt}  # short ones"
    run.file.write_text(WEEKLY.replace(single, multi))
    assert run("campaign", "schedule", str(run.file)).exit_code == 0
    prompts.unlink()
    run.file.unlink()
    shown = run.json("schedule", "show", "sizes")
    assert "# short ones" in shown["file_text"]
    run.tick(shown["next_ns"])
    store = run.cli.store()
    (campaign,) = store.campaigns()
    job = store.jobs(campaign.campaign_id)[0]
    assert store.spec(job.job_id).workloads[0].prompts == ("hello", "ciao")
    assert store.file_text(campaign.campaign_id) == shown["file_text"]
    store.close()


def test_a_name_is_used_once_unless_it_is_to_be_replaced(run):
    run("campaign", "schedule", str(run.file))
    again = run("campaign", "schedule", str(run.file))
    assert isinstance(again.exception, ConfigError)
    assert "--replace" in again.exception.hint
    run.file.write_text(CAMPAIGN + 'schedule: {cron: "0 5 * * *"}\n')
    assert run("campaign", "schedule", str(run.file), "--replace").exit_code == 0
    (only,) = run.json("schedule", "list")
    assert only["schedule"]["cron"] == "0 5 * * *"
    assert run.json("campaign", "schedule", str(run.file), "--replace")["replaced"] is True
    assert run("campaign", "schedule", str(run.file), "--name", "other").exit_code == 0
    assert [one["name"] for one in run.json("schedule", "list")] == ["other", "sizes"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (CAMPAIGN, "it has no schedule"),
        (CAMPAIGN + 'schedule: {cron: "0 2 * * *", end: 2020-01-01}\n', "no run is left before"),
        (WEEKLY.replace("{all: true}", "{devices: [pj]}"), "no device 'pj'"),
        (
            WEEKLY.replace("Asia/Tokyo", "Asia/Tokio"),
            "11:44: schedule.time_zone: no time zone 'Asia/Tokio' (did you mean 'Asia/Tokyo'?)",
        ),
        (BEYOND, "limits.duration_s: would take about"),
    ],
)
def test_what_could_never_run_is_refused_and_not_kept(run, text, says):
    run.file.write_text(text)
    done = run("campaign", "schedule", str(run.file))
    assert isinstance(done.exception, ConfigError)
    assert says in str(done.exception)
    assert run.json("schedule", "list") == []


def test_limits_are_looked_at_when_it_is_registered_and_yes_passes_them(run):
    run.file.write_text(BEYOND)
    done = run("campaign", "schedule", str(run.file), "--yes")
    assert done.exit_code == 0, done.output
    assert "registered beyond its limits" in done.output


def test_a_name_that_is_none_is_refused(run):
    done = run("campaign", "schedule", str(run.file), "--name", "No Name")
    assert isinstance(done.exception, ConfigError)
    assert "--name No Name" in str(done.exception)


@pytest.mark.parametrize("command", ["show", "next", "rm"])
def test_a_name_that_nobody_has_is_told_with_the_nearest(run, command):
    run("campaign", "schedule", str(run.file))
    done = run("schedule", command, "size")
    assert isinstance(done.exception, ConfigError)
    assert "did you mean 'sizes'" in str(done.exception)


def test_where_no_collector_has_ever_been_nothing_is_made(tmp_path):
    empty = ["--data-dir", str(tmp_path / "nowhere")]
    done = CliRunner().invoke(build(), ["schedule", "list", *empty])
    assert (done.exit_code, "No schedules" in done.output) == (0, True)
    done = CliRunner().invoke(build(), ["schedule", "show", "x", *empty])
    assert isinstance(done.exception, ConfigError)
    assert not (tmp_path / "nowhere").exists()


def test_run_runs_a_file_with_a_schedule_once_and_says_so(run):
    done = run("campaign", "run", str(run.file), "--detach")
    assert done.exit_code == 0, done.output
    assert "note: runs once, now; `fleetmark campaign schedule" in done.output
    assert run.json("schedule", "list") == []
    (campaign,) = run.json("campaign", "list")
    assert campaign["schedule"] is None


def test_names_of_schedules_are_completed(run):
    from fleetmark_collector.cli.completion import complete_schedule

    run("campaign", "schedule", str(run.file))
    run("campaign", "schedule", str(run.file), "--name", "nightly")

    class Context:
        params = {"data_dir": str(run.cli.data_dir)}  # noqa: RUF012

    assert complete_schedule(Context(), "") == ["nightly", "sizes"]
    assert complete_schedule(Context(), "n") == ["nightly"]


def test_one_that_has_ended_says_so(run):
    run.file.write_text(CAMPAIGN + 'schedule: {cron: "0 2 * * *", end: 2099-01-01}\n')
    run("campaign", "schedule", str(run.file))
    store = ScheduleStore(run.state_file)
    row = store.get("sizes")
    store._file.rows("UPDATE schedules SET next_ns = NULL")
    store.close()
    assert row.next_ns is not None
    assert "never: it has ended" in run("schedule", "list").output
    assert "Nothing comes due any more." in run("schedule", "next", "sizes").output


def test_a_schedule_may_end_with_the_calendar(run):
    run.file.write_text(WEEKLY.replace("Asia/Tokyo", 'America/New_York, end: "9999-12-31"'))
    assert run("campaign", "schedule", str(run.file)).exit_code == 0
    assert len(run.json("schedule", "next", "-n", "3")) == 3


def test_one_that_this_version_cannot_read_keeps_none_of_the_others_back(run):
    run("campaign", "schedule", str(run.file))
    run("campaign", "schedule", str(run.file), "--name", "of-the-future")
    store = ScheduleStore(run.state_file)
    store._file.rows("UPDATE schedules SET keys = '{\"moon\": 1}' WHERE name = 'of-the-future'")
    store.close()
    why = "schedule of-the-future: this version cannot read what is stored of it: "
    listed = run("schedule", "list")
    assert listed.exit_code == 0, listed.output
    assert "0 2 * * mon  Asia/Tokyo" in listed.output
    assert f"note: {why}" in listed.output
    broken, sound = run.json("schedule", "list")
    assert (broken["name"], broken["schedule"]) == ("of-the-future", None)
    assert broken["unreadable"].startswith(why)
    assert (sound["name"], "unreadable" in sound) == ("sizes", False)
    told = run("schedule", "next", "-n", "2")
    assert told.exit_code == 0, told.output
    assert told.stdout.count("sizes") == 2
    assert told.stderr.startswith(f"note: {why}")
    assert {one["schedule"] for one in run.json("schedule", "next")} == {"sizes"}
    for command in ("show", "next"):
        named = run("schedule", command, "of-the-future")
        assert isinstance(named.exception, StoreError)
        assert named.exception.message.startswith(why)
    assert run("schedule", "rm", "of-the-future").exit_code == 0
    assert "note:" not in run("schedule", "list").output
