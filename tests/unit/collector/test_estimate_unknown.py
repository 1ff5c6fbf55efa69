"""What a plan says where nothing tells how long a job takes: never that it takes no time."""

import json

import pytest

from campaigncli import Cli
from fakes.fake_fleet import CAMPAIGN, FakeDevice, make_campaign, make_inventory
from fleetmark_collector.campaigns.estimate import estimate_plan
from fleetmark_collector.campaigns.history import History
from fleetmark_collector.campaigns.plan import make_plan
from fleetmark_collector.campaigns.submit import permitted
from fleetmark_collector.config import CollectorSettings
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.messages import Hardware

PI = Hardware(arch="aarch64", os="Linux", kernel="6", hostname="pi", cores_logical=4)
ONE_CELL = CAMPAIGN.replace("[Q8_0, Q4_0]", "Q8_0").replace("[1, 2]", "1")
SOAK = "  - {name: heat, kind: soak, prompt: hello, duration_s: 3500, repetitions: 2}\n"
PRICED = "cost: {usd_per_hour: {pi4: 1000}}\n"
LIMITS = "limits: {cost_usd: 10000, duration_s: 90000}\n"
WHY = "nothing tells how large tiny is"


@pytest.fixture
def cli(tmp_path):
    made = Cli(tmp_path)
    made.add_device("pi-1", hardware=PI, tags=("pi4",))
    return made


def write(cli, text):
    cli.file.write_text(text)
    return str(cli.file)


def estimate(tmp_path, text, tags=("pi4",)):
    campaign = make_campaign(tmp_path, text)
    devices = [FakeDevice("pi", inventory=make_inventory(hardware=PI, tags=tags))]
    plan = make_plan(campaign, "c1", devices)
    return estimate_plan(campaign, plan, devices, History())


def test_totals_without_any_estimate_are_unknown_and_not_nothing(cli):
    file = write(cli, ONE_CELL + PRICED)
    done = cli("plan", file)
    assert done.exit_code == 0, done.output
    assert "From start to end unknown (1 job(s) have no estimate)" in done.output
    assert "Cost unknown (1 job(s) have no estimate)" in done.output
    assert "0:00" not in done.output
    assert " 0.00" not in done.output
    told = json.loads(cli("plan", file, "--json").stdout)["estimate"]
    for span in (told["seconds"], told["usd"], told["devices"][0]["seconds"]):
        assert (span["likely"], span["high"]) == (None, None)
    assert told["devices"][0]["usd"]["likely"] is None
    assert told["jobs_unknown"] == 1


def test_a_soak_lasts_as_long_as_it_says_whatever_the_model(cli):
    file = write(cli, ONE_CELL + SOAK + PRICED)
    done = cli("plan", file)
    assert "runs, at least 1:56:40" in done.output
    assert "From start to end at least 1:56:40 (1 job(s) have no estimate)" in done.output
    assert "Cost at least 1944.44 USD (1 job(s) have no estimate)" in done.output
    assert f"no estimate for 1 job(s), {WHY}: all but their soaks comes on top" in (
        " ".join(done.output.split())
    )
    told = json.loads(cli("plan", file, "--json").stdout)
    assert told["jobs"][0]["seconds"] == {"low": 7000, "likely": None, "high": None}
    assert told["estimate"]["seconds"] == {"low": 7000, "likely": None, "high": None}


@pytest.mark.parametrize("command", ["plan", "run"])
def test_limits_that_nobody_knows_to_be_kept_refuse_it_unless_it_is_wanted(cli, command):
    file = write(cli, ONE_CELL + PRICED + LIMITS)
    detach = ("--detach",) if command == "run" else ()
    done = cli(command, file, *detach)
    assert isinstance(done.exception, ConfigError), done.output
    said = str(done.exception)
    for key in ("cost_usd", "duration_s"):
        assert (
            f"limits.{key}: nobody knows whether it is kept: 1 job(s) have no estimate (xllamacpp "
            f"tiny Q8_0 threads=1 on pi-1), {WHY}"
        ) in said
    assert done.exception.hint == "--yes starts it all the same"
    assert cli("list").output.startswith("No campaigns")
    done = cli(command, file, "--yes", *detach)
    assert done.exit_code == 0, done.output
    if command == "run":
        assert "note: started all the same: " in done.output
        assert "limits.cost_usd: nobody knows" in done.output


def test_a_schedule_is_registered_with_such_limits_only_where_it_is_wanted(cli):
    file = write(cli, ONE_CELL + PRICED + LIMITS + 'schedule: {cron: "0 2 * * *"}\n')
    done = cli("schedule", file)
    assert "limits.duration_s: nobody knows whether it is kept" in str(done.exception)
    done = cli("schedule", file, "--yes")
    assert done.exit_code == 0, done.output
    assert "registered all the same: " in done.output


def test_what_is_known_to_be_too_much_is_said_so(tmp_path):
    made = estimate(tmp_path, ONE_CELL + SOAK + PRICED + "limits: {cost_usd: 1, duration_s: 9}\n")
    cost, duration = made.over
    assert duration.endswith(
        "limits.duration_s: would take about 7000 s (7000 to 7000 s) and 1 job(s) without an "
        "estimate on top, more than 9 s"
    )
    assert "would cost about 1944.44 USD" in cost
    assert made.unsure == ()


def test_a_cost_is_sure_where_the_jobs_without_an_estimate_cost_nothing(tmp_path):
    free = "cost: {usd_per_hour: {pi4: 0}}\nlimits: {cost_usd: 1}\n"
    assert estimate(tmp_path, ONE_CELL + free).unsure == ()
    assert estimate(tmp_path, ONE_CELL + PRICED + "limits: {cost_usd: 1}\n").unsure
    assert estimate(tmp_path, ONE_CELL + PRICED).unsure == ()


def test_a_soak_that_fits_into_no_window_is_told_without_an_estimate_of_the_rest(tmp_path):
    night = "windows: {times: 02:00-02:30, time_zone: UTC}\n"
    (told,) = estimate(tmp_path, ONE_CELL + SOAK + night).over
    assert "no window is longer than 1800 s" in told


def test_the_dispatcher_is_told_what_is_known_of_a_job(cli, tmp_path):
    settings = CollectorSettings(data_dir=cli.data_dir)
    for text, known in ((ONE_CELL, None), (ONE_CELL + SOAK, 7000)):
        campaign = make_campaign(tmp_path, text + PRICED + LIMITS)
        (job,) = permitted(settings, campaign, accept_limits=True).jobs
        assert job.estimate_s == known
