"""Past any of its time limits a job ends, and no process of it is left: no child, no orphan."""

import signal

import psutil
import pytest

from behaviour import (
    SHORT_PATIENCE,
    Records,
    jobs,
    late_reports,
    started_by,
    stays,
    wait_for_job,
)
from fakes.fake_llama_server import write_llama_server
from fleet import Fleet
from fleetmark_protocol.jobs import JobState
from servers import Mosquitto, wait_for

pytestmark = pytest.mark.chaos


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """One fleet whose engine is a server, and so a child of the worker."""
    directory = tmp_path_factory.mktemp("timeouts")
    broker = Mosquitto(directory).start()
    made = Fleet(directory, broker)
    made.settings(SHORT_PATIENCE)
    made.toml = f"[engines.llama_server]\nexecutable = '{directory / 'llama-server'}'\n"
    write_llama_server(directory)
    made.start_collector()
    made.start_agent("pi-sim", made.toml)
    made.wait_for_devices("pi-sim")
    yield made
    made.close()
    broker.kill()


def submit(fleet, fault, **timeouts):
    write_llama_server(fleet.directory, fault)
    file = fleet.write_campaign(repetitions=2, timeouts=timeouts)
    text = file.read_text("utf-8").replace('"xllamacpp"', '"llama_server"')
    file.write_text(text, "utf-8")
    return fleet.submit(file)


def wait_for_engine(fleet):
    """Wait until worker and server are there, so that their end is worth something."""

    def there():
        lines = list(started_by(fleet).values())
        return any("fleetmark_agent.worker" in line for line in lines) and any(
            "fake_llama_server" in line and "--port" in line for line in lines
        )

    wait_for(there, 30, "a worker and its server")


def assert_nothing_left(fleet):
    wait_for(lambda: started_by(fleet) == {}, 10, "the end of worker and server")
    assert psutil.Process(fleet.pid("pi-sim")).children() == []


@pytest.mark.parametrize(
    ("fault", "limit", "state", "code"),
    [
        ("never ready", "load_s", "FAILED", "BACKEND_TIMEOUT"),
        ("never answers", "trial_s", "FAILED", "BACKEND_TIMEOUT"),
        ("never answers", "job_s", "TIMED_OUT", "JOB_TIMED_OUT"),
        ("never answers", "campaign_s", "TIMED_OUT", "CAMPAIGN_TIMED_OUT"),
    ],
)
def test_nothing_runs_on_past_its_time(fleet, fault, limit, state, code):
    campaign_id = submit(fleet, fault, **{limit: 5})
    wait_for_engine(fleet)
    last = wait_for_job(fleet, campaign_id, state, timeout_s=30)
    assert last.failure.code == code, last
    assert_nothing_left(fleet)


def test_an_agent_killed_with_its_engine_leaves_no_server_behind(fleet):
    campaign_id = submit(fleet, "never answers", campaign_s=600)
    wait_for_engine(fleet)
    fleet.kill("pi-sim")
    wait_for(lambda: started_by(fleet) == {}, 10, "the end of worker and server")
    assert fleet.cli("campaign", "cancel", campaign_id).returncode == 0
    fleet.start_agent("pi-sim", fleet.toml)
    wait_for_job(fleet, campaign_id, "CANCELED")
    assert_nothing_left(fleet)
    again = fleet.submit(fleet.write_campaign(repetitions=1, name="again"))
    assert fleet.wait_for_end(again) == "SUCCEEDED", "after all of this it takes other jobs"


def test_a_device_that_hangs_past_the_limits_is_given_up_and_what_it_says_later_is_kept(fleet):
    """The whole agent is stopped, not only its engine: nobody there can keep a time limit."""
    campaign_id = submit(fleet, "never answers", campaign_s=5)
    wait_for_engine(fleet)
    fleet.signal("pi-sim", signal.SIGSTOP)
    try:
        last = wait_for_job(fleet, campaign_id, "TIMED_OUT", timeout_s=30)
        assert last.failure.code == "CAMPAIGN_TIMED_OUT"
    finally:
        fleet.signal("pi-sim", signal.SIGCONT)
    # Awake again it hears that nobody waits for the job, stops it, and says so: too late.
    wait_for(lambda: Records(fleet, campaign_id).ends() != [], 30, "the device's last word")
    assert Records(fleet, campaign_id).ends() == [(last.job_id, "CANCELED")]
    assert_nothing_left(fleet)
    stays(fleet, campaign_id, JobState.TIMED_OUT, 2)
    (job,) = jobs(fleet, campaign_id)
    assert (job.failure, job.attempt) == (last.failure, last.attempt)
    assert [one.record.state for one in late_reports(fleet, campaign_id)] == ["CANCELED"]
