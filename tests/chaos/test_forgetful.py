"""Who forgets everything in the middle of a campaign: a device, a broker. Nothing counts twice."""

import csv
import shutil

import pytest

from behaviour import Records, jobs, wait_for_job
from fleet import Fleet
from servers import Mosquitto, wait_for

pytestmark = pytest.mark.chaos

REPETITIONS = 12
PLANNED = REPETITIONS + 1


def submit_and_wait_for_trials(fleet, **changes):
    campaign_id = fleet.submit(fleet.write_campaign(repetitions=REPETITIONS, **changes))
    wait_for(lambda: fleet.stored_trials(campaign_id) >= 3, 60, "three trials in the store")
    return campaign_id


def counted_rows(fleet, campaign_id):
    file = fleet.directory / "trials.csv"
    done = fleet.cli("report", campaign_id, "--csv", str(file))
    assert done.returncode == 0, done.stderr
    with file.open(newline="", encoding="utf-8") as lines:
        return [row for row in csv.DictReader(lines) if row["superseded"] == "false"]


def test_a_device_whose_state_is_lost_goes_on_counting_its_attempts(fleet):
    fleet.start_collector()
    fleet.start_agent("pi-sim")
    fleet.wait_for_devices("pi-sim")
    campaign_id = submit_and_wait_for_trials(fleet)
    fleet.kill("pi-sim")
    shutil.rmtree(fleet.state_dir("pi-sim"))
    fleet.start_agent("pi-sim")
    last = wait_for_job(fleet, campaign_id, "SUCCEEDED", "FAILED", timeout_s=90)
    records = Records(fleet, campaign_id)
    assert (str(last.state), last.attempt, last.trials_recorded) == ("SUCCEEDED", 2, PLANNED)
    # No two attempts have one number, so that no trial can be taken for another one's.
    job_id = last.job_id
    assert records.begun() == [(job_id, 1), (job_id, 2)]
    keys = [(trial.trial_id, trial.attempt) for trial in records.trials]
    assert len(set(keys)) == len(keys)
    rows = counted_rows(fleet, campaign_id)
    assert sorted(row["trial_id"] for row in rows) == sorted(records.counted())
    assert {row["attempt"] for row in rows} == {"2"}


def test_a_device_whose_state_is_lost_does_not_begin_again_what_may_not_go_on(fleet):
    fleet.start_collector()
    fleet.start_agent("pi-sim")
    fleet.wait_for_devices("pi-sim")
    campaign_id = submit_and_wait_for_trials(fleet, resume=False)
    fleet.kill("pi-sim")
    measured = Records(fleet, campaign_id).counted()
    shutil.rmtree(fleet.state_dir("pi-sim"))
    fleet.start_agent("pi-sim")
    last = wait_for_job(fleet, campaign_id, "SUCCEEDED", "FAILED", timeout_s=60)
    assert (str(last.state), last.attempt, last.failure.code) == ("FAILED", 1, "INTERRUPTED")
    assert Records(fleet, campaign_id).counted() == measured


class KeepingMosquitto(Mosquitto):
    """A broker that keeps what it holds in a file."""

    def __init__(self, directory) -> None:
        super().__init__(directory)
        self.kept = directory / "kept"
        self.kept.mkdir()
        self.kept.chmod(0o777)
        config = self._config.read_text("utf-8")
        kept = f"persistence true\npersistence_location {self.kept}/\nautosave_interval 1\n"
        self._config.write_text(config.replace("persistence false\n", kept), "utf-8")

    def stop(self) -> None:
        """End it in peace, so that everything is in its file."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None


@pytest.fixture
def keeping(tmp_path):
    broker = KeepingMosquitto(tmp_path).start()
    made = Fleet(tmp_path, broker)
    yield made
    made.close()
    broker.kill()


@pytest.mark.parametrize("state", ["in the middle of a job", "before the device has heard"])
def test_a_broker_that_lost_its_file_is_told_everything_again(keeping, state):
    fleet = keeping
    fleet.start_collector()
    fleet.start_agent("pi-sim")
    fleet.wait_for_devices("pi-sim")
    if state == "in the middle of a job":
        campaign_id = submit_and_wait_for_trials(fleet)
    else:
        fleet.kill("pi-sim")
        campaign_id = fleet.submit(fleet.write_campaign(repetitions=REPETITIONS))
        wait_for(lambda: jobs(fleet, campaign_id)[0].assigned_ns is not None, 20, "it is sent")
    fleet.broker.stop()
    database = fleet.broker.kept / "mosquitto.db"
    assert database.exists(), "there was something to lose"
    assert f"jobs/{campaign_id}".encode() in database.read_bytes()
    database.unlink()
    fleet.broker.start()
    if state != "in the middle of a job":
        fleet.start_agent("pi-sim")
    assert fleet.wait_for_end(campaign_id) == "SUCCEEDED"
    fleet.assert_each_trial_once(campaign_id, PLANNED)
    records = Records(fleet, campaign_id)
    assert [attempt for _, attempt in records.begun()] == [1]
    assert len(records.loads) == 1
