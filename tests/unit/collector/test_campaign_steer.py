"""`fleetmark campaign pause|resume|cancel`: what is said, and what becomes of the campaign."""

import json

import pytest

from campaigncli import Cli
from fleetmark_collector.campaigns.wording import NO_COLLECTOR
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.jobs import JobState


@pytest.fixture
def cli(tmp_path):
    made = Cli(tmp_path)
    made.add_device("pi-1")
    made.add_device("pi-2")
    return made


@pytest.fixture
def begun(cli) -> str:
    """A campaign with one job sent to each device."""
    done = cli("run", str(cli.file), "--detach", "--json")
    campaign_id = str(json.loads(done.stdout)["campaign_id"])
    store = cli.store()
    for job in store.jobs(campaign_id):
        if job.job_id.endswith("001"):
            store.assign(job.job_id)
            store.set_job_state(job.job_id, JobState.IN_PROGRESS, attempt=1)
    store.close()
    return campaign_id


def shown(cli, campaign_id) -> dict:
    return json.loads(cli("show", campaign_id, "--json").stdout)


def test_a_campaign_is_paused_and_goes_on(cli, begun):
    done = cli("pause", begun)
    assert done.exit_code == 0, done.output
    assert "paused; 2 job(s) under way will end." in done.output
    assert NO_COLLECTOR in done.output
    view = shown(cli, begun)
    assert (view["state"], view["paused"], view["deadline_ns"]) == ("RUNNING", True, None)
    waits = {job["job_id"]: job["waits"] for job in view["jobs"]}
    assert waits[f"{begun}.pi-1.001"] is None
    assert waits[f"{begun}.pi-1.002"]["reason"] == "paused"
    assert "paused since" in cli("show", begun).output
    assert "RUNNING (paused)" in cli("list").output
    assert [row["paused"] for row in json.loads(cli("list", "--json").stdout)] == [True]
    assert "is paused already" in cli("pause", begun).output
    done = cli("resume", begun, "--json")
    assert json.loads(done.stdout)["paused"] is False
    assert "is running already" in cli("resume", begun).output
    assert shown(cli, begun)["deadline_ns"] is not None


def test_what_has_ended_or_stops_is_not_paused(cli, begun):
    cli("cancel", begun)
    done = cli("pause", begun)
    assert isinstance(done.exception, ConfigError)
    assert "is being stopped" in str(done.exception)
    cli("cancel", begun, "--force")
    for command in ("pause", "resume"):
        done = cli(command, begun)
        assert isinstance(done.exception, ConfigError)
        assert "has ended: CANCELED" in str(done.exception)


def test_cancel_asks_and_force_does_not(cli, begun):
    done = cli("cancel", begun)
    assert "asked devices to stop 2 job(s) under way." in done.output
    assert shown(cli, begun)["state"] == "RUNNING"
    done = cli("cancel", begun, "--force")
    assert done.exit_code == 0
    assert "CANCELED; the devices were not waited for" in done.output
    view = shown(cli, begun)
    assert view["state"] == "CANCELED"
    assert {job["state"] for job in view["jobs"]} == {"CANCELED"}
    assert "has ended already: CANCELED" in cli("cancel", begun, "--force").output


def test_one_devices_jobs_are_canceled(cli, begun):
    done = cli("cancel", begun, "--device", "pi-1")
    assert "asked devices to stop 1 job(s) of pi-1 under way." in done.output
    view = shown(cli, begun)
    assert (view["state"], view["stop_reason"]) == ("RUNNING", None)
    assert view["jobs_by_state"] == {"IN_PROGRESS": 2, "CANCELED": 3, "QUEUED": 3}
    done = cli("cancel", begun, "--device", "pi-1", "--force")
    assert "the jobs of pi-1 have ended; the others go on." in done.output
    assert shown(cli, begun)["jobs_by_state"] == {"IN_PROGRESS": 1, "CANCELED": 4, "QUEUED": 3}


def test_a_device_that_is_not_in_the_campaign_is_a_mistake(cli, begun):
    done = cli("cancel", begun, "--device", "pi-3")
    assert isinstance(done.exception, ConfigError)
    assert "--device pi-3: not in this campaign (did you mean 'pi-" in str(done.exception)
    assert shown(cli, begun)["jobs_by_state"] == {"IN_PROGRESS": 2, "QUEUED": 6}


@pytest.mark.parametrize("command", ["pause", "resume", "cancel"])
def test_a_campaign_that_is_not_there_is_a_mistake(cli, begun, command):
    done = cli(command, "nonsense")
    assert isinstance(done.exception, ConfigError)
    assert "no campaign 'nonsense'" in str(done.exception)
