"""A campaign can be canceled whatever its job is doing; nothing of it is left, and it stays so."""

import fcntl
import os
import signal
import time
from datetime import UTC, datetime

import pytest

import eachphase
from behaviour import Records, jobs, started_by, stays
from eachphase import COOL, HOT, phased_fleet
from fakes.fake_hub import FakeHub
from fakes.fake_llama_server import write_llama_server
from fleetmark_protocol.jobs import JobState
from servers import wait_for

pytestmark = pytest.mark.chaos


@pytest.fixture(scope="module")
def hub():
    with FakeHub() as running:
        yield running


@pytest.fixture(scope="module")
def fleet(tmp_path_factory, hub):
    """One fleet for all of these tests: each leaves the device as it found it."""
    # Of a device that is there the centre waits for its own word, for ten minutes.
    patience = "[patience]\ncancel_offline_s = 1\n"
    with phased_fleet(tmp_path_factory.mktemp("cancel"), hub, patience) as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_is_left(fleet):
    """Whatever state a job was canceled in, its processes end, and the device takes others."""
    yield
    fleet.sysfs.zone(0, "cpu-thermal", COOL)
    write_llama_server(fleet.server)
    wait_for(lambda: started_by(fleet) == {}, 15, "the end of all that the agent had started")


def submit(fleet, *, backend="xllamacpp", **changes):
    return eachphase.submit(fleet, backend=backend, **changes)


def cancel(fleet, campaign_id):
    done = fleet.cli("campaign", "cancel", campaign_id)
    assert done.returncode == 0, done.stderr
    assert fleet.wait_for_end(campaign_id, 20) == "CANCELED"
    assert {str(job.state) for job in jobs(fleet, campaign_id)} == {"CANCELED"}


def assert_never_begun(fleet, campaign_id):
    records = Records(fleet, campaign_id)
    assert records.begun() == []
    assert records.trials == records.loads == []


def assert_device_works(fleet):
    again = submit(fleet, repetitions=1, name="again")
    assert fleet.wait_for_end(again) == "SUCCEEDED"


def test_at_the_quiet_gate_and_behind_it_in_the_queue(fleet):
    fleet.sysfs.zone(0, "cpu-thermal", HOT)
    gate = {"cpu_percent_max": 100, "temperature_c_max": 60, "timeout_s": 600}
    campaign_id = submit(fleet, options={"threads": [1, 2]}, quiet_gate=gate)
    wait_for(lambda: str(jobs(fleet, campaign_id)[0].state) == "IN_PROGRESS", 30, "the first job")
    first, second = jobs(fleet, campaign_id)
    assert (first.assigned_ns is not None, second.assigned_ns) == (True, None)
    cancel(fleet, campaign_id)
    first, second = jobs(fleet, campaign_id)
    assert second.assigned_ns is None
    assert Records(fleet, campaign_id).ends() == [(first.job_id, "CANCELED")]
    assert Records(fleet, campaign_id).loads == []
    fleet.sysfs.zone(0, "cpu-thermal", COOL)
    assert_device_works(fleet)


def test_while_another_agent_has_the_machine(fleet):
    lock = os.open(fleet.directory / "bench.lock", os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        campaign_id = submit(fleet)
        wait_for(lambda: f"{campaign_id}.pi-sim" in waiting(fleet), 20, "the job waits")
        cancel(fleet, campaign_id)
    finally:
        os.close(lock)
    assert_never_begun(fleet, campaign_id)


def waiting(fleet):
    lines = fleet.log("pi-sim").splitlines()
    return "\n".join(line for line in lines if "waiting_for_machine" in line)


def test_while_the_model_is_downloaded(fleet, hub):
    path = "/o/r/resolve/main/slow.gguf"
    hub.serve(path, b"GGUF" + bytes(50 * 2**20), piece_pause_s=0.2)
    campaign_id = submit(fleet, ref="hf://o/r/slow.gguf", model={"sha256": "1" * 64})
    wait_for(lambda: path in [asked for asked, _ in hub.requests], 20, "the download")
    time.sleep(0.5)
    cancel(fleet, campaign_id)
    assert_never_begun(fleet, campaign_id)


def test_while_the_model_is_converted(fleet):
    campaign_id = submit(fleet, matrix={"quantization": ["Q5_1"]})
    wait_for(
        lambda: any("fleetmark_agent.models" in line for line in started_by(fleet).values()),
        20,
        "the conversion",
    )
    cancel(fleet, campaign_id)
    assert_never_begun(fleet, campaign_id)
    assert list(fleet.models.glob("*Q5_1*")) == []
    assert list((fleet.models / ".tmp").glob("*")) == []


def test_while_the_model_is_loaded(fleet):
    write_llama_server(fleet.server, "never ready")
    campaign_id = submit(fleet, backend="llama_server")
    wait_for_server(fleet)
    cancel(fleet, campaign_id)
    records = Records(fleet, campaign_id)
    assert len(records.begun()) == 1
    assert records.trials == []


def test_in_the_middle_of_a_trial(fleet):
    write_llama_server(fleet.server, "never answers")
    campaign_id = submit(fleet, backend="llama_server")
    wait_for_server(fleet)
    wait_for(lambda: len(Records(fleet, campaign_id).loads) == 1, 20, "the load")
    cancel(fleet, campaign_id)
    assert Records(fleet, campaign_id).trials == []
    assert_device_works(fleet)


def wait_for_server(fleet):
    def server():
        return any("fake_llama_server" in line and "--port" in line for line in found())

    def found():
        return started_by(fleet).values()

    wait_for(server, 30, "an engine that is the worker's child")


def test_between_two_trials_what_was_measured_stays(fleet):
    """It waits for the device to cool down before the next repetition; the engine is loaded."""
    cool_down = {"temperature_c": 60, "before": "repetition", "timeout_s": 600}
    campaign_id = submit(fleet, repetitions=3000, cool_down=cool_down)
    wait_for(lambda: fleet.stored_trials(campaign_id) >= 3, 30, "trials")
    fleet.sysfs.zone(0, "cpu-thermal", HOT)
    wait_for(lambda: stands_still(fleet, campaign_id), 20, "a pause between trials")
    assert started_by(fleet) != {}, "the engine is kept"
    cancel(fleet, campaign_id)
    kept = Records(fleet, campaign_id)
    (end,) = [one for one in kept.jobs if one.state.terminal]
    assert end.trials_recorded == len(kept.counted()) >= 3
    assert not [trial for trial in kept.trials if trial.failure is not None]


def stands_still(fleet, campaign_id):
    before = fleet.stored_trials(campaign_id)
    time.sleep(1.5)
    return fleet.stored_trials(campaign_id) == before


def test_as_trials_follow_one_another(fleet):
    campaign_id = submit(fleet, repetitions=3000)
    wait_for(lambda: fleet.stored_trials(campaign_id) >= 3, 30, "trials")
    cancel(fleet, campaign_id)
    kept = Records(fleet, campaign_id)
    assert not [trial for trial in kept.trials if trial.failure is not None]
    assert_device_works(fleet)


def test_after_its_end_nothing_changes(fleet):
    campaign_id = submit(fleet, repetitions=1)
    assert fleet.wait_for_end(campaign_id) == "SUCCEEDED"
    done = fleet.cli("campaign", "cancel", campaign_id)
    assert (done.returncode, "has ended already: SUCCEEDED" in done.stdout) == (0, True)
    stays(fleet, campaign_id, JobState.SUCCEEDED, 2)


def test_sent_to_a_device_that_is_away_and_it_never_runs(fleet):
    fleet.kill("pi-sim", signal.SIGTERM)
    campaign_id = submit(fleet)
    wait_for(lambda: jobs(fleet, campaign_id)[0].assigned_ns is not None, 20, "the job is sent")
    cancel(fleet, campaign_id)
    fleet.start_agent("pi-sim", fleet.toml)
    assert_device_works(fleet)
    assert_never_begun(fleet, campaign_id)
    stays(fleet, campaign_id, JobState.CANCELED, 0.5)


def test_while_the_agent_is_away_in_the_middle_of_its_job(fleet):
    campaign_id = submit(fleet, repetitions=3000)
    wait_for(lambda: fleet.stored_trials(campaign_id) >= 1, 30, "a trial")
    fleet.kill("pi-sim")
    cancel(fleet, campaign_id)
    fleet.start_agent("pi-sim", fleet.toml)
    assert_device_works(fleet)
    # It may have gone on before it heard: that is stopped, told as late, and changes nothing.
    late = Records(fleet, campaign_id)
    stays(fleet, campaign_id, JobState.CANCELED, 1)
    assert len(Records(fleet, campaign_id).trials) == len(late.trials)


def canceled_at_the_centre(fleet, campaign_id):
    """Cancel a campaign of which nothing is on the device; return the states of its jobs."""
    done = fleet.cli("campaign", "cancel", campaign_id)
    assert done.returncode == 0, done.stderr
    assert fleet.wait_for_end(campaign_id, 20) == "CANCELED"
    assert_device_works(fleet)
    return [(str(job.state), job.assigned_ns is not None) for job in jobs(fleet, campaign_id)]


def test_while_it_is_paused_what_had_ended_stays(fleet):
    """The first job stands still until the pause is there, however long a command takes."""
    fleet.sysfs.zone(0, "cpu-thermal", HOT)
    cool_down = {"temperature_c": 60, "before": "job", "timeout_s": 600}
    campaign_id = submit(fleet, options={"threads": [1, 2]}, repetitions=8, cool_down=cool_down)
    wait_for(lambda: str(jobs(fleet, campaign_id)[0].state) == "IN_PROGRESS", 30, "the first job")
    assert fleet.cli("campaign", "pause", campaign_id).returncode == 0
    fleet.sysfs.zone(0, "cpu-thermal", COOL)
    wait_for(lambda: jobs(fleet, campaign_id)[0].state.terminal, 60, "the end of what ran")
    ends = canceled_at_the_centre(fleet, campaign_id)
    assert ends == [("SUCCEEDED", True), ("CANCELED", False)]


def test_while_its_job_waits_for_a_window(fleet):
    hour = datetime.now(UTC).hour
    times = f"{(hour + 6) % 24:02d}:00-{(hour + 7) % 24:02d}:00"
    campaign_id = submit(fleet, windows={"times": [times], "time_zone": "UTC"})
    stays(fleet, campaign_id, JobState.QUEUED, 3)
    assert canceled_at_the_centre(fleet, campaign_id) == [("CANCELED", False)]


def test_while_its_job_waits_to_be_tried_again(fleet):
    retries = {"max": 1, "backoff_s": 3600, "backoff_max_s": 3600, "on": ["REJECTED"]}
    campaign_id = submit(fleet, ref="path:none.gguf", retries=retries)
    wait_for(lambda: len(jobs(fleet, campaign_id)) == 2, 30, "the job's second chance")
    ends = canceled_at_the_centre(fleet, campaign_id)
    assert ends == [("REJECTED", True), ("CANCELED", False)]
