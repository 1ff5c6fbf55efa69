"""What is done with campaigns after they ran, on real parts: broker, collector, agent, engine."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from engines import MODEL_REF, MODEL_SHA256, smollm2
from servers import wait_for

pytestmark = pytest.mark.integration


def test_what_was_rejected_runs_once_its_cause_is_gone_and_everything_can_be_taken_along(fleet):
    models = fleet.directory / "models"
    models.mkdir()
    fleet.start_collector()
    fleet.start_agent("pi-sim", f"[models]\ndir = {json.dumps(str(models))}\n")
    fleet.wait_for_devices("pi-sim")
    file = fleet.write_campaign(
        matrix={
            "backend": ["xllamacpp"],
            "model": [{"name": "later", "ref": "path:later.gguf"}],
            "options": {"threads": 1, "context_tokens": 256},
        }
    )
    run = fleet.cli("campaign", "run", str(file), "--json")
    assert run.returncode == 1, run.stderr
    first = json.loads(run.stdout)
    assert first["jobs_by_state"] == {"REJECTED": 1}
    job_id = first["jobs"][0]["job_id"]
    shown = fleet.cli("job", "show", job_id)
    assert shown.returncode == 1
    assert "failure: MODEL_NOT_FOUND" in shown.stdout

    shutil.copyfile(smollm2(), models / "later.gguf")
    retry = fleet.cli("campaign", "retry", first["campaign_id"])
    assert retry.returncode == 0, retry.stdout + retry.stderr
    assert fleet.cli("campaign", "retry", first["campaign_id"]).returncode == 2, "it is done"
    second = json.loads(fleet.cli("campaign", "show", "--json").stdout)
    assert (second["state"], second["retry_of"]) == ("SUCCEEDED", first["campaign_id"])
    assert second["jobs"][0]["retry_of"] == job_id
    assert fleet.status(first["campaign_id"])["state"] == "FAILED"
    fleet.assert_each_trial_once(second["campaign_id"], 4)

    log = fleet.cli("job", "logs", second["jobs"][0]["job_id"], "--json")
    entries = [json.loads(line) for line in log.stdout.splitlines()]
    both = [(entry["source"], entry["what"]) for entry in entries]
    for expected in ("QUEUED", "ASSIGNED", "IN_PROGRESS", "SUCCEEDED"):
        assert ("centre", expected) in both
    assert ("device", "IN_PROGRESS") in both
    assert ("device", "SUCCEEDED") in both

    target = fleet.directory / "out"
    export = fleet.cli("campaign", "export", "--output", str(target), "--json")
    assert export.returncode == 0, export.stderr
    lines = json.loads(export.stdout)["lines"]
    assert (lines["jobs.jsonl"], lines["trials.jsonl"], lines["loads.jsonl"]) == (1, 4, 1)
    assert lines["telemetry.jsonl"] > 0, "samples of the job"
    for name, count in lines.items():
        assert len((target / name).read_text("utf-8").splitlines()) == count

    plan = json.loads(fleet.cli("campaign", "plan", str(file), "--json").stdout)
    (job,) = plan["jobs"]
    assert job["basis"] == "same device"
    assert 0 < job["seconds"]["low"] < job["seconds"]["likely"] < job["seconds"]["high"]

    delete = fleet.cli("campaign", "delete", second["campaign_id"], "--yes", "--records")
    assert delete.returncode == 0, delete.stderr
    assert "4 trial records" in delete.stdout
    assert fleet.stored_trials(second["campaign_id"]) == 0
    assert fleet.status()["campaign_id"] == first["campaign_id"]


def test_following_a_job_ends_with_it(fleet):
    fleet.start_collector()
    fleet.start_agent("pi-sim")
    fleet.wait_for_devices("pi-sim")
    file = fleet.write_campaign(
        repetitions=5000,
        matrix={
            "backend": ["xllamacpp"],
            "model": [{"name": "smollm2-135m", "ref": MODEL_REF, "sha256": MODEL_SHA256}],
            "options": {"threads": 1, "context_tokens": 256},
        },
    )
    campaign_id = fleet.submit(file)
    job_id = f"{campaign_id}.pi-sim.001"
    follow = subprocess.Popen(
        [sys.executable, "-m", "fleetmark_collector", "job", "logs", job_id, "--follow"]
        + ["--data-dir", str(fleet.data_dir)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        wait_for(lambda: fleet.stored_trials(campaign_id) > 1, 60, "a trial in the store")
        refused = fleet.cli("campaign", "delete", campaign_id, "--yes")
        assert refused.returncode == 2
        assert "is running" in refused.stderr
        assert fleet.cli("campaign", "cancel", campaign_id).returncode == 0
        output, _ = follow.communicate(timeout=60)
    finally:
        follow.kill()
        follow.wait(10)
    assert follow.returncode == 0
    words = [line.split()[3] for line in output.splitlines()]
    assert words[:2] == ["QUEUED", "ASSIGNED:"]
    assert words.count("CANCELED") + words.count("CANCELED:") == 2, output
    shown = fleet.cli("job", "show", job_id, "--json")
    assert shown.returncode == 1
    assert json.loads(shown.stdout)["failure"]["code"] == "CANCELED"
