"""Kill -9 collectors while schedules come due: each run is started exactly once."""

import json
import random
import signal
import sqlite3
import time
from contextlib import closing

import pytest

from campaigncli import Cli
from fakes.fake_fleet import CAMPAIGN
from servers import wait_for

pytestmark = pytest.mark.chaos

ROUNDS = 12
COLLECTORS = ("one", "two")


def ask(fleet, sql, *args):
    with closing(sqlite3.connect(fleet.data_dir / "state.db", timeout=30)) as db, db:
        return db.execute(sql, args).fetchall()


def come_due(fleet):
    """As if the minute were full; what a schedule waits for is in its row."""
    now_ns = time.time_ns() // 10**9 * 10**9
    ask(fleet, "UPDATE schedules SET next_ns = ? WHERE name = 'often'", now_ns)
    return now_ns


def test_collectors_that_are_killed_all_the_time_start_each_run_once(fleet):
    """No device is there to run anything: each run replaces the one before, and that is all."""
    Cli(fleet.directory).add_device("pi")
    file = fleet.directory / "often.yaml"
    file.write_text(CAMPAIGN + 'schedule: {cron: "0 0 1 1 *", overlap: replace, missed: once}\n')
    done = fleet.cli("campaign", "schedule", str(file), "--name", "often")
    assert done.returncode == 0, done.stderr
    for name in COLLECTORS:
        fleet.start_collector(name=name)
    draw = random.Random(5)
    due = []
    for _ in range(ROUNDS):
        due.append(come_due(fleet))
        # Around the moment of the start, and of the takeover from the one killed the time before.
        time.sleep(draw.uniform(0.0, 1.2))
        name = draw.choice(COLLECTORS)
        fleet.kill(name, signal.SIGKILL)
        fleet.start_collector(name=name)
        last_ns = due[-1]
        wait_for(
            lambda last_ns=last_ns: (
                ask(fleet, "SELECT next_ns > ? FROM schedules WHERE name = 'often'", last_ns)
                == [(1,)]
            ),
            30,
            "the schedule moved on",
        )
    runs = ask(fleet, "SELECT due_ns, outcome, campaign_id FROM schedule_runs ORDER BY rowid")
    assert [(run[0], run[1]) for run in runs] == [(due_ns, "started") for due_ns in due]
    campaigns = ask(fleet, "SELECT campaign_id, schedule FROM campaigns ORDER BY created_ns")
    assert campaigns == [(run[2], "often") for run in runs]
    jobs = ask(fleet, "SELECT campaign_id, count(*) FROM jobs GROUP BY 1 ORDER BY 1")
    assert jobs == [(campaign_id, 4) for campaign_id, _ in campaigns]
    # One that had been sent to the device is canceled once that has answered, or been waited for.
    reasons = ask(fleet, "SELECT stop_reason FROM campaigns ORDER BY created_ns")
    assert reasons == [("cancel",)] * (ROUNDS - 1) + [(None,)]


def test_a_schedule_runs_a_campaign_at_the_full_minute_by_itself(fleet):
    fleet.start_collector()
    fleet.start_agent("pi-sim")
    fleet.wait_for_devices("pi-sim")
    file = fleet.write_campaign(schedule={"cron": "* * * * *", "overlap": "skip"})
    done = fleet.cli("campaign", "schedule", str(file), "--json")
    assert done.returncode == 0, done.stderr
    due_ns = json.loads(done.stdout)["next_ns"]
    file.unlink()

    def shown():
        return json.loads(fleet.cli("schedule", "show", "test", "--json").stdout)

    wait_for(lambda: shown()["runs"], 90, "the first run")
    first = shown()["runs"][-1]
    assert (first["due_ns"], first["outcome"]) == (due_ns, "started")
    assert 0 <= first["noted_ns"] - due_ns < 10 * 10**9
    assert fleet.cli("schedule", "rm", "test").returncode == 0
    assert fleet.wait_for_end(first["campaign_id"]) == "SUCCEEDED"
    fleet.assert_each_trial_once(first["campaign_id"], 4)
