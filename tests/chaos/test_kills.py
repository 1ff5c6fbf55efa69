"""Kill -9 anything at any moment: every measured trial is in the store exactly once."""

import signal
import sqlite3
from contextlib import closing

import psutil
import pytest

from servers import wait_for

pytestmark = pytest.mark.chaos

REPETITIONS = 30
PLANNED = REPETITIONS + 1


@pytest.fixture
def running(fleet):
    """A fleet in the middle of a campaign of one job."""
    fleet.start_collector()
    fleet.start_agent("pi-sim")
    fleet.wait_for_devices("pi-sim")
    fleet.campaign_id = fleet.submit(fleet.write_campaign(repetitions=REPETITIONS))
    wait_for(lambda: fleet.stored_trials(fleet.campaign_id) >= 3, 60, "three trials in the store")
    return fleet


def job(fleet):
    (only,) = fleet.status(fleet.campaign_id)["jobs"]
    return only


def on_device(fleet, sql):
    """Return the one value that this asks of the device's own database."""
    file = f"file:{fleet.state_dir('pi-sim') / 'outbox.db'}?mode=ro"
    with closing(sqlite3.connect(file, uri=True)) as database:
        return database.execute(sql).fetchone()[0]


def assert_outbox_empties(fleet):
    waiting = "SELECT count(*) FROM records WHERE kind != 'telemetry'"
    wait_for(lambda: on_device(fleet, waiting) == 0, 60, "every result acknowledged")


def test_a_collector_killed_in_the_middle_and_started_again_loses_and_repeats_nothing(running):
    running.kill("collector")
    running.start_collector()
    wait_for(lambda: running.stored_trials(running.campaign_id) >= 10, 60, "more trials")
    running.kill("collector")
    running.start_collector()
    assert running.wait_for_end(running.campaign_id) == "SUCCEEDED"
    running.assert_each_trial_once(running.campaign_id, PLANNED)
    assert_outbox_empties(running)
    assert job(running)["attempt"] == 1, "the device noticed nothing"


def test_an_agent_killed_in_the_middle_of_a_trial_resumes_at_the_first_one_missing(running):
    worker = psutil.Process(running.pid("pi-sim")).children()
    running.kill("pi-sim")
    psutil.wait_procs(worker, timeout=10)
    assert not any(process.is_running() for process in worker), "the worker died with the agent"
    running.start_agent("pi-sim")
    assert running.wait_for_end(running.campaign_id) == "SUCCEEDED"
    running.assert_each_trial_once(running.campaign_id, PLANNED)
    attempts = {item.record.attempt for item in running.trials(running.campaign_id)}
    assert attempts == {1, 2}
    assert job(running)["attempt"] == 2


def test_an_agent_that_may_not_resume_fails_the_job_as_interrupted(fleet):
    fleet.start_collector()
    fleet.start_agent("pi-sim")
    fleet.wait_for_devices("pi-sim")
    campaign_id = fleet.submit(fleet.write_campaign(repetitions=500, resume=False))
    wait_for(lambda: fleet.stored_trials(campaign_id) >= 3, 60, "three trials in the store")
    fleet.kill("pi-sim")
    fleet.start_agent("pi-sim")
    assert fleet.wait_for_end(campaign_id) == "FAILED"
    (only,) = fleet.status(campaign_id)["jobs"]
    assert only["failure"]["code"] == "INTERRUPTED"


def test_a_worker_killed_by_the_system_is_a_typed_failure_and_the_agent_goes_on(running):
    agent = psutil.Process(running.pid("pi-sim"))
    (worker,) = agent.children()
    worker.send_signal(signal.SIGKILL)
    assert running.wait_for_end(running.campaign_id) == "FAILED"
    assert job(running)["failure"]["code"] == "BACKEND_CRASHED"
    assert agent.is_running()
    assert agent.children() == []
    again = running.submit(running.write_campaign(repetitions=2, name="again"))
    assert running.wait_for_end(again) == "SUCCEEDED"


def test_a_broker_killed_in_the_middle_and_back_with_nothing_retained_converges(running):
    running.broker.kill()
    running.broker.start()
    assert running.wait_for_end(running.campaign_id) == "SUCCEEDED"
    running.assert_each_trial_once(running.campaign_id, PLANNED)
    assert_outbox_empties(running)


def test_an_agent_killed_while_everything_else_is_down_delivers_what_it_had_measured(running):
    running.kill("collector")
    running.broker.kill()
    # Its process is gone a moment before the device has noted that the job has ended.
    ended = "SELECT count(*) FROM jobs WHERE state = 'SUCCEEDED'"
    wait_for(lambda: on_device(running, ended) == 1, 120, "the end of the job on the device")
    running.kill("pi-sim")
    running.broker.start()
    running.start_collector()
    running.start_agent("pi-sim")
    assert running.wait_for_end(running.campaign_id) == "SUCCEEDED"
    running.assert_each_trial_once(running.campaign_id, PLANNED)
    assert job(running)["attempt"] == 1, "the job had ended before the kill"


def test_everything_may_start_before_the_broker_does(fleet):
    fleet.broker.kill()
    fleet.start_collector()
    fleet.start_agent("pi-sim")
    wait_for(lambda: "broker_unreachable" in fleet.log("pi-sim"), 20, "the agent says so")
    fleet.broker.start()
    fleet.wait_for_devices("pi-sim")
    campaign_id = fleet.submit(fleet.write_campaign())
    assert fleet.wait_for_end(campaign_id) == "SUCCEEDED"
