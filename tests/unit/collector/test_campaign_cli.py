"""`fleetmark campaign ...`: messages, exit codes, and that nothing is written by mistake."""

import json

import pytest

from campaigncli import Cli
from fakes.fake_fleet import CAMPAIGN
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.campaigns.wording import NO_COLLECTOR
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.messages import BackendInfo


@pytest.fixture
def cli(tmp_path):
    return Cli(tmp_path)


def test_a_valid_file_is_said_to_be_so_without_any_device(cli):
    done = cli("validate", str(cli.file), data=False)
    assert done.exit_code == 0
    assert "valid. On each device: 4 jobs, 12 trials." in done.output


def test_a_wrong_file_is_the_users_mistake(cli):
    cli.file.write_text("version: 1\nnam: x\n")
    for command in ("validate", "plan", "run"):
        done = cli(command, str(cli.file), data=command != "validate")
        assert isinstance(done.exception, ConfigError)
        assert "2:1: nam: unknown key (did you mean 'name'?)" in str(done.exception)
    assert not cli.data_dir.exists()


def test_planning_shows_jobs_and_refusals_and_writes_nothing(cli):
    cli.add_device("pi-1")
    missing = BackendInfo(name="xllamacpp", available=False, reason="not installed")
    cli.add_device("pi-2", backends=(missing,))
    before = (cli.data_dir / "state.db").read_bytes()
    done = cli("plan", str(cli.file))
    assert done.exit_code == 0
    assert "8 jobs, 24 trials." in done.output
    assert done.output.count("refused (1)") == 4
    assert done.output.count("(1) refused: backend 'xllamacpp' is not available there") == 1
    assert (cli.data_dir / "state.db").read_bytes() == before


def test_a_plan_for_programs_is_json_with_its_problems(cli):
    cli.add_device("pi-1")
    cli.file.write_text(CAMPAIGN.replace("all: true", "devices: [pi-1, pi-2]"))
    done = cli("plan", str(cli.file), "--json")
    assert isinstance(done.exception, ConfigError)
    plan = json.loads(done.output)
    assert len(plan["jobs"]) == 4
    assert {job["options"]["threads"] for job in plan["jobs"]} == {1, 2}
    assert "no device 'pi-2'" in plan["problems"][0]


def test_running_on_devices_that_are_not_there_starts_nothing(cli):
    done = cli("run", str(cli.file))
    assert isinstance(done.exception, ConfigError)
    assert not cli.data_dir.exists()


def test_a_detached_run_starts_the_campaign_and_says_how_to_go_on(cli):
    cli.add_device("pi-1")
    done = cli("run", str(cli.file), "--detach")
    assert done.exit_code == 0, done.output
    store = cli.store()
    (row,) = store.campaigns()
    assert len(store.jobs(row.campaign_id)) == 4
    store.close()
    assert row.campaign_id.startswith("sizes-2")
    assert f"campaign cancel {row.campaign_id} --data-dir {cli.data_dir}" in done.output
    assert NO_COLLECTOR in done.output


def test_two_runs_within_one_second_get_ids_of_their_own(cli):
    cli.add_device("pi-1")
    cli.beat()
    for _ in range(2):
        assert cli("run", str(cli.file), "--detach").exit_code == 0
    store = cli.store()
    assert len({row.campaign_id for row in store.campaigns()}) == 2
    store.close()


def test_an_id_that_another_process_takes_after_the_look_is_planned_again(cli, monkeypatch):
    cli.add_device("pi-1")
    cli.beat()
    looks: list[bool] = []
    real = CampaignStore.has

    def blind_at_first(store, campaign_id):
        looks.append(real(store, campaign_id))
        return looks[-1] and len(looks) > 2

    monkeypatch.setattr(CampaignStore, "has", blind_at_first)
    for _ in range(2):
        done = cli("run", str(cli.file), "--detach")
        assert done.exit_code == 0, done.output
    store = cli.store()
    assert len({row.campaign_id for row in store.campaigns()}) == 2
    store.close()


@pytest.mark.parametrize(
    ("end", "code"), [(JobState.SUCCEEDED, 0), (JobState.FAILED, 1), (JobState.CANCELED, 1)]
)
def test_watching_tells_by_its_exit_code_how_the_campaign_ended(cli, end, code):
    cli.add_device("pi-1")
    cli("run", str(cli.file), "--detach")
    store = cli.store()
    (row,) = store.campaigns()
    for job in store.jobs(row.campaign_id):
        store.set_job_state(job.job_id, end)
    store.close()
    done = cli("status", "--watch")
    assert done.exit_code == code
    assert f"4 {end}" in done.output


def test_interrupting_ends_the_watching_only(cli, monkeypatch):
    cli.add_device("pi-1")

    def interrupt(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr("fleetmark_collector.campaigns.watch.gather", interrupt)
    done = cli("run", str(cli.file))
    assert done.exit_code == 130
    assert "goes on without you" in done.output
    assert "campaign cancel sizes-" in done.output
    store = cli.store()
    assert store.newest().state == "RUNNING"
    store.close()


def test_the_status_is_of_the_newest_campaign_unless_one_is_named(cli):
    cli.add_device("pi-1")
    cli("run", str(cli.file), "--detach")
    cli.file.write_text(CAMPAIGN.replace("name: sizes", "name: other"))
    cli("run", str(cli.file), "--detach")
    newest = json.loads(cli("status", "--json").output)
    assert newest["campaign_id"].startswith("other-")
    assert newest["jobs_by_state"] == {"QUEUED": 4}
    assert newest["collector_running"] is False
    store = cli.store()
    first = store.campaigns()[0].campaign_id
    store.close()
    done = cli("status", first)
    assert done.exit_code == 0
    assert first in done.output


def test_canceling_says_what_it_did(cli):
    cli.add_device("pi-1")
    cli("run", str(cli.file), "--detach")
    store = cli.store()
    (row,) = store.campaigns()
    store.assign(store.jobs(row.campaign_id)[0].job_id)
    done = cli("cancel", row.campaign_id)
    assert "asked devices to stop 1 job(s) under way" in done.output
    assert NO_COLLECTOR in done.output
    store.set_job_state(store.jobs(row.campaign_id)[0].job_id, JobState.CANCELED)
    store.close()
    assert "has ended already: CANCELED" in cli("cancel", row.campaign_id).output


def test_listing_shows_all_and_makes_nothing_where_nothing_is(cli):
    assert "No campaigns in" in cli("list").output
    assert not cli.data_dir.exists()
    assert json.loads(cli("list", "--json").output) == []
    cli.add_device("pi-1")
    cli("run", str(cli.file), "--detach")
    assert "0/4" in cli("list").output
    (listed,) = json.loads(cli("list", "--json").output)
    assert (listed["state"], listed["jobs"]) == ("RUNNING", 4)


@pytest.mark.parametrize("args", [("status",), ("cancel", "c1")])
def test_the_wrong_data_directory_is_told(cli, args):
    done = cli(*args)
    assert isinstance(done.exception, ConfigError)
    assert f"no campaigns in {cli.data_dir}" in str(done.exception)
    assert not cli.data_dir.exists()
