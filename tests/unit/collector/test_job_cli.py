"""`fleetmark job show|logs`: what a job asks for, and all that happened to it, here and there."""

import json
import threading
import time

import pytest
from typer.testing import CliRunner

from fakes.fake_fleet import EPOCH, START_NS, FakeDevice, FakeWorld
from fleetmark_collector.cli.job import app
from fleetmark_collector.sinks.base import Stored
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.records import EventRecord, Failure, JobRecord


@pytest.fixture
def world(tmp_path):
    world = FakeWorld(tmp_path, FakeDevice("pi-1", ends={"002": JobState.FAILED}))
    world.submit("c1")
    yield world
    world.close()


def run(world, *args):
    arguments = [*args, "--data-dir", str(world.directory)]
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "TZ": "UTC"})


def finish(world):
    for _ in range(40):
        world.step()


def event(world, code, job_id, seq, message="said"):
    record = EventRecord(
        time_ns=START_NS + 2, severity="info", code=code, message=message, job_id=job_id
    )
    world.sink.write([Stored("lab", "pi-1", EPOCH, seq, record)])


def test_a_job_that_went_well_is_shown_in_full(world):
    finish(world)
    done = run(world, "show", "c1.pi-1.001")
    assert done.exit_code == 0, done.output
    for piece in (
        "c1.pi-1.001  SUCCEEDED (attempt 1)",
        "device: pi-1 in lab",
        "workload one: single, 1 prompt(s), 64 output tokens, 1 warm-up(s), 2 repetition(s)",
        "centre  ASSIGNED: to pi-1",
        "device  SUCCEEDED attempt 1: 2 of 0 trials recorded",
        "Trials: 2 of 3 in the store",
        "2 VALID",
    ):
        assert piece in done.output


def test_a_job_that_failed_says_why_and_whether_to_try_again(world):
    finish(world)
    done = run(world, "show", "c1.pi-1.002")
    assert done.exit_code == 1
    assert "failure: BACKEND: as told" in done.output
    assert "worth another try: no" in done.output


def test_for_programs_a_job_is_json_with_everything(world):
    finish(world)
    shown = json.loads(run(world, "show", "c1.pi-1.002", "--json").output)
    assert (shown["state"], shown["failure"]["code"]) == ("FAILED", "BACKEND")
    assert shown["spec"]["options"]["threads"] in (1, 2)
    assert [entry["what"] for entry in shown["log"] if entry["source"] == "centre"] == [
        "QUEUED",
        "ASSIGNED",
        "IN_PROGRESS",
        "FAILED",
    ]
    assert len(shown["trials"]) == 2


def test_the_log_has_states_of_both_sides_and_the_jobs_own_events_in_order(world):
    event(world, "waiting_for_machine", "c1.pi-1.001", 900)
    event(world, "agent_started", None, 901)
    finish(world)
    done = run(world, "logs", "c1.pi-1.001", "--json")
    assert done.exit_code == 0
    entries = [json.loads(line) for line in done.output.splitlines()]
    assert [entry["time_ns"] for entry in entries] == sorted(e["time_ns"] for e in entries)
    seen = [(entry["source"], entry["what"]) for entry in entries]
    assert ("device", "waiting_for_machine") in seen
    assert ("device", "agent_started") not in seen
    assert seen.count(("device", "SUCCEEDED")) == seen.count(("centre", "SUCCEEDED")) == 1


def test_what_came_too_late_is_marked(world):
    finish(world)
    late = JobRecord(
        time_ns=world.now_ns,
        campaign_id="c1",
        job_id="c1.pi-1.001",
        attempt=1,
        state=JobState.FAILED,
        failure=Failure(code="BACKEND", message="late"),
    )
    world.devices[0].outbox.append(late)
    world.step()
    # Campaigns that have ended are not looked at each second.
    world.step(10)
    output = run(world, "logs", "c1.pi-1.001").output
    assert "FAILED attempt 1 (too late: it changed nothing): BACKEND: late" in output
    assert "c1.pi-1.001  SUCCEEDED" in run(world, "show", "c1.pi-1.001").output


def test_what_a_device_says_cannot_draw_on_the_terminal(world):
    event(world, "x", "c1.pi-1.001", 900, message="\x1b[2J\nevil")
    finish(world)
    output = run(world, "logs", "c1.pi-1.001").output
    assert "\x1b" not in output
    assert " [2J evil" in output


def test_without_a_store_the_centre_speaks_alone(world):
    finish(world)
    world.reader.close()
    (world.directory / "store.db").rename(world.directory / "away.db")
    for command in ("show", "logs"):
        done = run(world, command, "c1.pi-1.001")
        assert "only the centre speaks: no data yet" in done.output
        assert "centre  SUCCEEDED" in done.output
        assert "  device  " not in done.output


@pytest.mark.parametrize("command", ["show", "logs"])
def test_a_job_that_is_not_there_is_told_with_the_nearest(world, command):
    done = run(world, command, "c1.pi-1.0011")
    assert isinstance(done.exception, ConfigError)
    assert "no job 'c1.pi-1.0011' (did you mean 'c1.pi-1.001'?)" in str(done.exception)


def test_following_prints_what_comes_once_and_ends_with_the_job(world, monkeypatch):
    monkeypatch.setattr("fleetmark_collector.cli.job.FOLLOW_S", 0.01)
    # The world's clock stands in the future: a job that has ended there is over for long here.
    monkeypatch.setattr("fleetmark_collector.cli.job.SETTLE_S", -1e9)
    worker = threading.Thread(target=lambda: [time.sleep(0.1), finish(world)])
    worker.start()
    done = run(world, "logs", "c1.pi-1.001", "--follow", "--json")
    worker.join()
    assert done.exit_code == 0
    entries = [json.loads(line) for line in done.stdout.splitlines()]
    seen = [(entry["source"], entry["what"]) for entry in entries]
    assert seen[0] == ("centre", "QUEUED")
    assert seen.count(("centre", "SUCCEEDED")) == 1
    assert len(seen) == len(set(seen))
