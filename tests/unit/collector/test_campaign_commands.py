"""`fleetmark campaign plan|show|watch|retry|clone|export|delete`: output, JSON and exit codes."""

import json

import pytest

from campaigncli import Cli
from collected import stored, trial
from fleetmark_collector.sinks.sqlite import SqliteSink
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.messages import Hardware

HARDWARE = Hardware(
    arch="aarch64", os="Linux", kernel="6", hostname="pi", board="Raspberry Pi 4", cores_logical=4
)


@pytest.fixture
def cli(tmp_path):
    made = Cli(tmp_path)
    made.add_device("pi-1", hardware=HARDWARE, tags=("pi4",))
    return made


def begin(cli) -> str:
    done = cli("run", str(cli.file), "--detach", "--json")
    assert done.exit_code == 0, done.output
    return str(json.loads(done.stdout)["campaign_id"])


def end(cli, campaign_id, *states):
    """End the jobs of a campaign, each in a state; the last one for all that are left."""
    store = cli.store()
    for number, job in enumerate(store.jobs(campaign_id)):
        store.set_job_state(job.job_id, states[min(number, len(states) - 1)])
    store.close()


def change(cli, *changes):
    text = cli.file.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    cli.file.write_text(text)


BY_NAME = ("name: tiny", "name: tiny-135m")
"""Tells the size of the model."""


def test_a_plan_says_how_long_it_takes_and_what_that_goes_by(cli):
    change(cli, BY_NAME)
    done = cli("plan", str(cli.file))
    assert done.exit_code == 0, done.output
    assert "runs, about " in done.output
    assert "model size" in done.output
    assert "From start to end about " in done.output
    assert "USD" not in done.output


def test_a_plan_for_programs_has_the_estimate_of_each_job_and_device(cli):
    change(cli, BY_NAME, ("name: sizes", "name: sizes\ncost: {usd_per_hour: {pi4: 3.6}, note: x}"))
    plan = json.loads(cli("plan", str(cli.file), "--json").stdout)
    job = plan["jobs"][0]
    assert (job["basis"], job["workloads"]) == ("model size", ["one"])
    assert job["because"].endswith("going by its name")
    assert job["seconds"]["low"] < job["seconds"]["likely"] < job["seconds"]["high"]
    estimate = plan["estimate"]
    likely_s = estimate["seconds"]["likely"]
    assert likely_s == pytest.approx(sum(job["seconds"]["likely"] for job in plan["jobs"]))
    assert estimate["usd"]["likely"] == pytest.approx(likely_s * 0.001)
    assert estimate["price_note"] == "x"
    (device,) = estimate["devices"]
    assert (device["basis"], device["usd_per_hour"]) == ({"model size": 4}, 3.6)


def test_an_earlier_run_in_the_store_makes_the_estimate_better(cli):
    campaign_id = begin(cli)
    end(cli, campaign_id, JobState.SUCCEEDED)
    store = cli.store()
    job = store.jobs(campaign_id)[0]
    store.close()
    sink = SqliteSink(cli.data_dir / "store.db")
    sink.write(
        [
            stored(
                trial(
                    number,
                    f"{job.job_id}.one.{number}.0",
                    campaign_id=campaign_id,
                    job_id=job.job_id,
                    prompt_tokens=5,
                    output_tokens=64,
                    ttft_s=0.5,
                    latency_s=100.0,
                ),
                seq=number,
                device="pi-1",
            )
            for number in range(1, 4)
        ]
    )
    sink.close()
    plan = json.loads(cli("plan", str(cli.file), "--json").stdout)
    (known,) = [one for one in plan["jobs"] if one["basis"] == "same device"]
    assert known["because"] == "3 trials of 1 job on pi-1"
    assert known["seconds"]["likely"] > 300
    assert [one["basis"] for one in plan["jobs"]].count("unknown") == 3


def test_a_store_that_cannot_be_read_costs_the_estimate_only(cli):
    end(cli, begin(cli), JobState.SUCCEEDED)
    (cli.data_dir / "store.db").write_text("no database" * 100)
    change(cli, BY_NAME)
    done = cli("plan", str(cli.file))
    # Nothing of the past is asked for: another model, so the store is not even opened.
    assert done.exit_code == 0
    change(cli, ("name: tiny-135m", "name: tiny"))
    done = cli("plan", str(cli.file))
    assert done.exit_code == 0
    assert "note: earlier runs are not counted in: " in done.output


LIMITED = ("name: sizes", "name: sizes\nlimits: {duration_s: 5}")


def test_what_would_take_too_long_is_refused_unless_that_is_accepted(cli):
    change(cli, BY_NAME, LIMITED)
    for command in ("plan", "run"):
        done = cli(command, str(cli.file))
        assert isinstance(done.exception, ConfigError)
        assert "3:22: limits.duration_s: would take about" in str(done.exception)
        assert "--yes starts it all the same" in str(done.exception)
    assert cli("plan", str(cli.file), "--yes").exit_code == 0
    done = cli("run", str(cli.file), "--yes", "--detach")
    assert done.exit_code == 0
    assert "started beyond its limits: " in done.output


def test_within_its_limits_a_campaign_just_runs(cli):
    change(cli, BY_NAME, ("name: sizes", "name: sizes\nlimits: {duration_s: 90000}"))
    done = cli("run", str(cli.file), "--detach")
    assert done.exit_code == 0
    assert "beyond" not in done.output


def test_validating_for_programs_tells_the_mistakes_one_by_one(cli):
    shown = json.loads(cli("validate", str(cli.file), "--json", data=False).stdout)
    assert (shown["valid"], shown["jobs_per_device"], shown["trials_per_device"]) == (True, 4, 12)
    change(cli, ("name: sizes", "nam: sizes"), ("kind: single", "kind: sngle"))
    done = cli("validate", str(cli.file), "--json", data=False)
    assert isinstance(done.exception, ConfigError)
    assert len(json.loads(done.stdout)["problems"]) == 3


@pytest.mark.parametrize(
    ("states", "code"),
    [
        ((JobState.SUCCEEDED,), 0),
        ((JobState.SUCCEEDED, JobState.FAILED), 1),
        ((JobState.IN_PROGRESS,), 1),
    ],
)
def test_showing_says_by_its_exit_code_whether_all_succeeded(cli, states, code):
    campaign_id = begin(cli)
    end(cli, campaign_id, *states)
    assert cli("show").exit_code == code
    assert cli("show", campaign_id, "--json").exit_code == code
    assert cli("status", "--json").exit_code == 0, "for scripts that read the JSON"


def test_watching_for_programs_is_an_object_a_line_and_an_exit_code(cli):
    end(cli, begin(cli), JobState.SUCCEEDED, JobState.FAILED)
    done = cli("watch", "--json")
    assert done.exit_code == 1
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["jobs_by_state"] == {"SUCCEEDED": 1, "FAILED": 3}


def test_running_for_programs_ends_in_one_object(cli, monkeypatch):
    def begun_and_ended(settings, campaign_id, **more):
        end(cli, campaign_id, JobState.SUCCEEDED)
        return real(settings, campaign_id, sleep=lambda _: None)

    from fleetmark_collector.campaigns import watch

    real = watch.looks
    monkeypatch.setattr(watch, "looks", begun_and_ended)
    done = cli("run", str(cli.file), "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["state"] == "SUCCEEDED"


def test_a_retry_is_a_campaign_that_names_the_first(cli):
    first = begin(cli)
    end(cli, first, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED, JobState.REJECTED)
    done = cli("retry", first, "--state", "failed", "--state", "rejected", "--detach", "--json")
    assert done.exit_code == 0, done.output
    second = json.loads(done.stdout)
    assert second["jobs"] == 2
    (_, listed) = json.loads(cli("list", "--json").stdout)
    assert (listed["campaign_id"], listed["retry_of"]) == (second["campaign_id"], first)
    assert f"retry of {first}" in cli("list").output
    shown = json.loads(cli("show", second["campaign_id"], "--json").stdout)
    assert [job["retry_of"] for job in shown["jobs"]] == [
        f"{first}.pi-1.002",
        f"{first}.pi-1.004",
    ]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--state", "faild"), "--state faild: no such state (did you mean 'failed'?)"),
        (("--device", "pi-2"), "--device pi-2: not in this campaign (did you mean 'pi-1'?)"),
    ],
)
def test_a_retry_of_what_is_not_there_is_the_users_mistake(cli, args, said):
    end(cli, begin(cli), JobState.FAILED)
    done = cli("retry", *args)
    assert isinstance(done.exception, ConfigError)
    assert said in str(done.exception)


def test_a_clone_goes_to_the_screen_or_to_a_new_file(cli, tmp_path):
    campaign_id = begin(cli)
    assert cli("clone", campaign_id).stdout == cli.file.read_text()
    target = tmp_path / "again.yaml"
    args = ("--name", "again", "--device", "pi-1", "--set", "seed=5", "-o", str(target))
    done = cli("clone", campaign_id, *args)
    assert done.exit_code == 0, done.output
    assert f"fleetmark campaign run {target}" in done.output
    assert "name: again" in target.read_text()
    assert cli("run", str(target), "--detach").exit_code == 0
    shown = json.loads(cli("clone", campaign_id, "--tag", "pi4", "--json").stdout)
    assert shown["file"] is None
    assert "tags" in shown["text"]


def test_a_clone_with_a_change_that_breaks_it_is_not_written(cli, tmp_path):
    begin(cli)
    done = cli("clone", "--set", "order=sideways", "-o", str(tmp_path / "x.yaml"))
    assert isinstance(done.exception, ConfigError)
    assert not (tmp_path / "x.yaml").exists()


def test_an_export_says_what_it_wrote(cli, tmp_path):
    campaign_id = begin(cli)
    SqliteSink(cli.data_dir / "store.db").close()
    done = cli("export", campaign_id, "-o", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    assert "4 jobs, 0 moves, 0 trials" in done.output
    shown = json.loads(cli("export", "-o", str(tmp_path / "o.zip"), "--json").stdout)
    assert shown["lines"]["jobs.jsonl"] == 4


def test_deleting_asks_says_what_goes_and_what_stays(cli):
    campaign_id = begin(cli)
    done = cli("delete", campaign_id)
    assert "is running" in str(done.exception)
    end(cli, campaign_id, JobState.SUCCEEDED)
    done = cli("delete", campaign_id)
    assert done.exit_code == 1, "nobody answered"
    assert "its file, 4 jobs with their history" in done.output
    assert "its records in the store stay" in done.output
    assert len(json.loads(cli("list", "--json").stdout)) == 1
    done = cli("delete", campaign_id, "--yes", "--json")
    assert json.loads(done.stdout) == {"campaign_id": campaign_id, "jobs": 4, "records": None}
    assert json.loads(cli("list", "--json").stdout) == []


def test_deleting_records_says_how_many(cli):
    campaign_id = begin(cli)
    end(cli, campaign_id, JobState.SUCCEEDED)
    SqliteSink(cli.data_dir / "store.db").close()
    done = cli("delete", campaign_id, "--yes", "--records")
    assert "0 trial records" in done.output
    assert "Events and telemetry stay" in done.output


def test_canceling_for_programs_tells_how_it_stands(cli):
    campaign_id = begin(cli)
    shown = json.loads(cli("cancel", campaign_id, "--json").stdout)
    assert (shown["state"], shown["stop_reason"]) == ("CANCELED", "cancel")


@pytest.mark.parametrize(
    "args", [("show",), ("watch",), ("retry",), ("clone",), ("export",), ("delete", "x", "--yes")]
)
def test_the_wrong_data_directory_is_told_and_nothing_is_made(tmp_path, args):
    cli = Cli(tmp_path)
    done = cli(*args)
    assert isinstance(done.exception, ConfigError)
    assert f"no campaigns in {cli.data_dir}" in str(done.exception)
    assert not cli.data_dir.exists()


@pytest.mark.parametrize(
    "args", [("show",), ("watch",), ("retry",), ("clone",), ("export",), ("delete",), ("cancel",)]
)
def test_a_name_that_is_almost_right_is_told_the_right_one(cli, args):
    campaign_id = begin(cli)
    done = cli(*args, campaign_id[:-1])
    assert isinstance(done.exception, ConfigError)
    assert f"(did you mean '{campaign_id}'?)" in str(done.exception)
