"""Roll-out, retries, abort, pause and newcomers on real processes; only figures are made up."""

import json
import signal
import time
from contextlib import closing

import pytest

from behaviour import jobs
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_protocol.jobs import JobState
from servers import wait_for
from simulations import Simulation

pytestmark = pytest.mark.integration

J = JobState
WORK = {
    "targets": {"tags": ["simulated"]},
    "matrix": {"backend": ["xllamacpp"], "model": [{"name": "m", "ref": "path:m.gguf"}]},
}


@pytest.fixture
def simulate(fleet):
    """Start simulated devices that answer jobs for one engine."""
    started = []

    def start(count: int, *flags, backend: str = "xllamacpp", trial_s: float = 0.1):
        one = Simulation(
            *(fleet.directory, fleet.broker.port, "--devices", count, "--duration", 600),
            *("--run-jobs", "--backends", backend, "--trial-s", trial_s, *flags),
        )
        started.append(one)
        return one

    yield start
    for one in started:
        for _ in range(2):
            if one.command.process.poll() is None:
                one.command.process.send_signal(signal.SIGINT)
                time.sleep(0.2)
        one.command.end(signal.SIGCONT)


def online(fleet, count: int) -> None:
    def there() -> int:
        done = fleet.cli("devices", "--json")
        found = json.loads(done.stdout) if done.returncode == 0 else []
        return sum(one["online"] and bool(one["backends"]) for one in found)

    wait_for(lambda: there() >= count, 40, f"{count} devices online")


def at_once(rows) -> int:
    """How many devices had a job at the same time, at most, by the centre's clock."""
    spans = [(job.assigned_ns, job.updated_ns, job.device) for job in rows if job.assigned_ns]
    return max(
        len({device for begin, end, device in spans if begin <= moment < end})
        for moment, _, _ in spans
    )


def test_a_roll_out_keeps_its_limit_through_a_pause_and_a_kill(fleet, simulate):
    fleet.start_collector()
    simulate(6, trial_s=3)
    online(fleet, 6)
    file = fleet.write_campaign(**WORK, rollout={"devices_at_once": 2}, repetitions=2)
    campaign_id = fleet.submit(file)
    wait_for(lambda: any(job.assigned_ns for job in jobs(fleet, campaign_id)), 20, "the first job")
    paused = fleet.cli("campaign", "pause", campaign_id)
    assert "paused" in paused.stdout, paused.stderr
    fleet.kill("collector")
    fleet.start_collector()
    wait_for(
        lambda: all(job.state.terminal for job in jobs(fleet, campaign_id) if job.assigned_ns),
        30,
        "the end of what runs",
    )
    rows = jobs(fleet, campaign_id)
    assert sum(job.state is J.QUEUED for job in rows) >= 2
    time.sleep(3)
    assert [job.state for job in jobs(fleet, campaign_id)] == [job.state for job in rows]
    assert fleet.status(campaign_id)["paused"] is True
    assert fleet.cli("campaign", "resume", campaign_id).returncode == 0
    assert fleet.wait_for_end(campaign_id) == "SUCCEEDED"
    assert at_once(jobs(fleet, campaign_id)) == 2


def test_what_is_refused_is_run_again_and_too_much_of_it_aborts(fleet, simulate):
    fleet.start_collector()
    simulate(4, backend="llama_cpp")
    online(fleet, 4)
    retries = {"max": 1, "backoff_s": 1, "on": ["REJECTED"]}
    file = fleet.write_campaign(
        **WORK,
        retries=retries,
        rollout={"devices_at_once": 1},
        abort={"of": "rejected", "share_percent": 50, "after_devices": 2},
    )
    campaign_id = fleet.submit(file)
    assert fleet.wait_for_end(campaign_id) == "FAILED"
    told = fleet.status(campaign_id)
    assert told["stop_reason"] == "abort"
    assert "rejected on 2 of the 2 devices" in told["failure"]["message"]
    ends = [(job.state, job.retries) for job in jobs(fleet, campaign_id)]
    assert ends[:4] == [(J.REJECTED, 0), (J.REJECTED, 1)] * 2
    assert {state for state, _ in ends[4:]} == {J.CANCELED}


def test_devices_that_come_later_take_part_until_the_time_is_up(fleet, simulate):
    fleet.start_collector()
    simulate(1)
    online(fleet, 1)
    targets = {"tags": ["simulated"], "selection": "continuous"}
    file = fleet.write_campaign(**{**WORK, "targets": targets}, timeouts={"campaign_s": 30})
    campaign_id = fleet.submit(file)
    simulate(2, "--prefix", "later")
    wait_for(lambda: len(jobs(fleet, campaign_id)) == 3, 30, "jobs of those that joined")
    assert fleet.wait_for_end(campaign_id) == "SUCCEEDED"
    assert {job.state for job in jobs(fleet, campaign_id)} == {J.SUCCEEDED}


def test_what_devices_do_for_a_state_file_that_was_lost_is_stopped(fleet, simulate):
    fleet.start_collector()
    simulate(1, trial_s=5)
    online(fleet, 1)
    campaign_id = fleet.submit(fleet.write_campaign(**WORK, repetitions=50))
    wait_for(
        lambda: jobs(fleet, campaign_id)[0].state is J.IN_PROGRESS, 30, "the beginning of the job"
    )
    fleet.kill("collector")
    for file in fleet.data_dir.glob("state.db*"):
        file.unlink()
    fleet.start_collector()
    wait_for(lambda: "job_withdrawn" in fleet.log("collector"), 40, "the withdrawal")
    again = fleet.submit(fleet.write_campaign(**WORK, repetitions=1, name="next"))
    assert fleet.wait_for_end(again, 60) == "SUCCEEDED"
    with closing(CampaignStore(fleet.data_dir / "state.db")) as store:
        assert [row.campaign_id for row in store.campaigns()] == [again]
