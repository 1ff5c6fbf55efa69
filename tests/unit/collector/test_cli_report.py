import json

import pytest
import typer
from typer.testing import CliRunner

from fakes.fake_campaign import CAMPAIGN, FakeJob, store, usual_jobs
from fleetmark_collector.campaigns.file import load_campaign
from fleetmark_collector.campaigns.plan import make_plan
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.cli.report import register
from fleetmark_collector.devices import Device
from fleetmark_protocol.errors import ConfigError, StoreUnavailable

CAMPAIGN_FILE = """
version: 1
name: fake
targets: {devices: [pi-1]}
matrix:
  backend: xllamacpp
  model: [{name: tiny, ref: "path:tiny.gguf"}]
  quantization: [Q4_0, Q8_0]
workloads:
  - {name: single, kind: single, prompt: hello}
"""


@pytest.fixture
def run(tmp_path):
    app = typer.Typer()
    register(app)

    def call(*args):
        full = [*args, "--data-dir", str(tmp_path)]
        result = CliRunner().invoke(app, full, catch_exceptions=True)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


def planned(tmp_path, campaign_id):
    """A campaign as `fleetmark campaign run` leaves it; nothing of it has been measured."""
    file = tmp_path / "fake.yaml"
    file.write_text(CAMPAIGN_FILE)
    campaign = load_campaign(file)
    state = CampaignStore(tmp_path / "state.db")
    state.create(campaign, make_plan(campaign, campaign_id, [Device("lab", "pi-1")]))
    state.close()


def test_without_files_tables_are_printed_for_a_hundred_columns(tmp_path, run):
    store(tmp_path, *usual_jobs()).close()
    result = run(CAMPAIGN)
    assert result.exit_code == 0
    assert "pi-1/Q4_0" in result.stdout
    assert 80 < max(map(len, result.stdout.splitlines())) <= 100


def test_all_files_are_written_at_once_and_nothing_is_printed(tmp_path, run):
    store(tmp_path, *usual_jobs()).close()
    paths = [tmp_path / f"out.{kind}" for kind in ("html", "csv", "json")]
    args = [word for path in paths for word in (f"--{path.suffix[1:]}", str(path))]
    result = run(CAMPAIGN, *args)
    assert result.stdout == ""
    assert [path.stat().st_size > 1000 for path in paths] == [True] * 3
    assert f"wrote {paths[0]}" in result.stderr


def test_a_dash_prints_a_file_for_a_pipe(tmp_path, run):
    store(tmp_path, *usual_jobs()).close()
    found = json.loads(run(CAMPAIGN, "--json", "-", "--baseline", "pi-1/xllamacpp/tiny/Q4").stdout)
    assert found["baseline"] == "pi-1/xllamacpp/tiny/Q4_0/threads=2"


def test_only_one_file_goes_to_standard_output(tmp_path, run):
    with pytest.raises(ConfigError, match="only one"):
        run(CAMPAIGN, "--json", "-", "--csv", "-")


def test_a_file_that_cannot_be_written_is_the_users_mistake(tmp_path, run):
    store(tmp_path, FakeJob().trial()).close()
    with pytest.raises(ConfigError, match="cannot be written"):
        run(CAMPAIGN, "--csv", str(tmp_path / "no" / "dir.csv"))


def test_an_unknown_campaign_is_answered_with_the_known_ones(tmp_path, run):
    store(tmp_path, FakeJob().trial()).close()
    planned(tmp_path, "fake-1")
    with pytest.raises(ConfigError, match=r"no campaign 'fake-2'.*known: fake-1"):
        run("fake-2")


def test_jobs_that_were_planned_but_left_no_record_are_shown(tmp_path, run):
    store(tmp_path, FakeJob().trial()).close()
    planned(tmp_path, "fake-1")
    result = run("fake-1")
    assert "0 of 2 jobs done" in result.stdout
    assert "not started yet" in result.stdout


def test_without_a_name_the_newest_campaign_is_reported(tmp_path, run):
    store(tmp_path, FakeJob().trial()).close()
    planned(tmp_path, "fake-1")
    assert "Campaign fake-1" in run().stdout


def test_records_are_reported_even_where_the_campaign_is_not_known_here(tmp_path, run):
    store(tmp_path, FakeJob().trial()).close()
    assert f"Campaign {CAMPAIGN}" in run(CAMPAIGN).stdout


def test_the_wrong_directory_is_told_and_left_as_it_was(tmp_path, run):
    with pytest.raises(StoreUnavailable, match="no data yet"):
        run(CAMPAIGN)
    with pytest.raises(ConfigError, match="no campaign in"):
        run()
    assert list(tmp_path.iterdir()) == []
