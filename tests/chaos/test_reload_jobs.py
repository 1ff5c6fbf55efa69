"""New settings in the middle of a job: it goes on where it may, else ends with a reason."""

import json
import signal
import subprocess
import sys

import pytest

from behaviour import Records, jobs
from servers import free_port, wait_for

pytestmark = pytest.mark.chaos

REPETITIONS = 25


@pytest.fixture
def running(fleet):
    """A fleet in the middle of a job."""
    fleet.start_collector()
    fleet.start_agent("pi-sim")
    fleet.wait_for_devices("pi-sim")
    fleet.campaign_id = fleet.submit(fleet.write_campaign(repetitions=REPETITIONS))
    wait_for(lambda: fleet.stored_trials(fleet.campaign_id) >= 3, 60, "three trials in the store")
    return fleet


def change(fleet, old, new):
    file = fleet.directory / "pi-sim.toml"
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new), "utf-8")


def reload(fleet):
    """Return what the command said, and the exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "fleetmark_agent", "reload", "--config"]
        + [str(fleet.directory / "pi-sim.toml")],
        capture_output=True,
        text=True,
        timeout=90,
    )
    return done.returncode, done.stdout + done.stderr


def events(fleet, name):
    lines = map(json.loads, fleet.log("pi-sim").splitlines())
    return [line for line in lines if line["event"] == name]


def test_another_broker_and_back_and_each_trial_is_stored_once(running):
    here = f"port = {running.broker.port}"
    nowhere = f"port = {free_port()}"
    change(running, here, nowhere)
    assert reload(running)[0] == 0
    wait_for(lambda: events(running, "broker_unreachable"), 20, "nobody there")
    wait_for(lambda: len(events(running, "job_started")) == 2, 30, "the job goes on all the same")
    change(running, nowhere, here)
    assert reload(running)[0] == 0
    assert running.wait_for_end(running.campaign_id) == "SUCCEEDED"
    running.assert_each_trial_once(running.campaign_id, REPETITIONS + 1)


def test_the_name_stays_until_the_job_has_ended(running):
    change(running, 'device_id = "pi-sim"', 'device_id = "pi-other"')
    code, said = reload(running)
    assert code == 1
    assert "stay default/pi-sim while job" in said
    change(running, 'device_id = "pi-other"', 'device_id = "pi-sim"')
    assert reload(running)[0] == 0
    assert running.wait_for_end(running.campaign_id) == "SUCCEEDED"
    change(running, 'device_id = "pi-sim"', 'device_id = "pi-other"')
    assert reload(running)[0] == 0
    running.wait_for_devices("pi-other")


def test_a_backend_that_is_not_allowed_any_more_ends_the_job_and_says_why(running):
    change(running, "[models]", '[runner]\nallow_backends = ["llama_cpp"]\n[models]')
    running.signal("pi-sim", signal.SIGHUP)
    assert running.wait_for_end(running.campaign_id) == "FAILED"
    (job,) = jobs(running, running.campaign_id)
    assert job.failure.code == "SOURCE_NOT_ALLOWED"
    kept = Records(running, running.campaign_id).counted()
    assert len(kept) >= 3
    assert set(kept.values()) == {1}
