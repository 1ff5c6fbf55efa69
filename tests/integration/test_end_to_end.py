"""The main job on real parts: broker, collector, agents, llama.cpp, store, report."""

import csv
import json
import signal

import psutil
import pytest

from engines import MODEL_REF, MODEL_SHA256, backends_here
from servers import wait_for

pytestmark = pytest.mark.integration


def test_a_campaign_over_two_devices_ends_in_a_report(fleet):
    fleet.start_collector()
    fleet.start_agent("pi-sim")
    fleet.start_agent("ec2-sim")
    fleet.wait_for_devices("pi-sim", "ec2-sim")
    file = fleet.write_campaign(
        matrix={
            "backend": backends_here(),
            "model": [{"name": "smollm2-135m", "ref": MODEL_REF, "sha256": MODEL_SHA256}],
            "quantization": ["Q8_0", "Q4_0"],
            "options": {"threads": 1, "context_tokens": 256},
        },
        workloads=[
            {
                "name": "single",
                "kind": "single",
                "prompt": "The capital of Italy is",
                "output_tokens": 12,
                "warmup": 1,
                "repetitions": 3,
            },
            {
                "name": "session",
                "kind": "multi",
                "prompts": ["The sun is", "A river is"],
                "output_tokens": 8,
                "warmup": 0,
                "repetitions": 2,
            },
        ],
    )
    run = fleet.cli("campaign", "run", str(file))
    assert run.returncode == 0, run.stdout + run.stderr
    campaign_id = fleet.status()["campaign_id"]
    jobs = 2 * len(backends_here()) * 2
    fleet.assert_each_trial_once(campaign_id, jobs * (1 + 3 + 2 * 2))
    trials = [item.record for item in fleet.trials(campaign_id)]
    assert {trial.quantization for trial in trials} == {"Q8_0", "Q4_0"}
    assert len({trial.model_origin_sha256 for trial in trials}) == 1
    for trial in trials:
        assert trial.failure is None
        assert trial.prompt_tokens_evaluated == trial.prompt_tokens
        assert 0 < trial.ttft_s < trial.latency_s
        assert trial.output_tokens == trial.output_tokens_requested
        assert trial.rss_bytes > 50 * 2**20
        assert trial.backend_cpu_percent_mean > 20
    cold = [trial for trial in trials if trial.latency_cold_s is not None]
    assert len(cold) == jobs, "one cold request after each load"
    assert all(trial.latency_cold_s > trial.latency_s for trial in cold)

    html, table, figures = (fleet.directory / f"r.{end}" for end in ("html", "csv", "json"))
    report = fleet.cli(
        "report", campaign_id, "--html", str(html), "--csv", str(table), "--json", str(figures)
    )
    assert report.returncode == 0, report.stderr
    assert "plotly" in html.read_text("utf-8").lower()
    with table.open(newline="", encoding="utf-8") as lines:
        assert len(list(csv.DictReader(lines))) == len(trials)
    assert campaign_id in figures.read_text("utf-8")
    shown = fleet.cli("report", campaign_id)
    assert shown.returncode == 0
    assert "Q8_0" in shown.stdout
    assert "Q4_0" in shown.stdout


def test_stopping_everything_leaves_no_process_and_an_empty_outbox(fleet):
    fleet.start_collector()
    fleet.start_agent("pi-sim")
    fleet.wait_for_devices("pi-sim")
    campaign_id = fleet.submit(fleet.write_campaign())
    assert fleet.wait_for_end(campaign_id) == "SUCCEEDED"
    agent = psutil.Process(fleet.pid("pi-sim"))
    children = agent.children(recursive=True)
    fleet.kill("pi-sim", signal.SIGTERM)
    assert not any(child.is_running() for child in children)
    fleet.kill("collector", signal.SIGTERM)
    devices = json.loads(fleet.cli("devices", "--json").stdout)
    assert [device["online"] for device in devices] == [False], "it said goodbye"


def test_a_prompt_longer_than_the_context_fails_its_trial_and_the_job_with_the_reason(fleet):
    fleet.start_collector()
    fleet.start_agent("pi-sim")
    fleet.wait_for_devices("pi-sim")
    file = fleet.write_campaign(
        workloads=[
            {"name": "long", "kind": "single", "prompt": "word " * 300, "repetitions": 2},
            {"name": "short", "kind": "single", "prompt": "The sun", "repetitions": 2},
        ]
    )
    run = fleet.cli("campaign", "run", str(file))
    assert run.returncode == 1
    assert "PROMPT_TOO_LONG" in run.stdout
    campaign_id = fleet.status()["campaign_id"]
    fleet.assert_each_trial_once(campaign_id, 6)
    for item in fleet.trials(campaign_id):
        trial = item.record
        assert (trial.failure is not None) == (trial.workload == "long")
        assert (trial.verdict == "INVALID") == (trial.workload == "long")


def test_jobs_that_cannot_run_are_rejected_with_what_to_do(fleet):
    fleet.start_collector()
    fleet.start_agent("pi-sim", "[runner]\nallow_backends = ['xllamacpp']\n")
    fleet.wait_for_devices("pi-sim")
    model = {"name": "m", "ref": "path:nowhere.gguf"}
    file = fleet.write_campaign(
        matrix={"backend": ["xllamacpp", "llama_cpp", "nonsense"], "model": [model]}
    )
    run = fleet.cli("campaign", "run", str(file))
    assert run.returncode == 1, run.stdout + run.stderr
    for expected in ("MODEL_NOT_FOUND", "SOURCE_NOT_ALLOWED", "nonsense"):
        assert expected in run.stdout
    assert fleet.stored_trials(fleet.status()["campaign_id"]) == 0


def test_cancel_stops_the_trial_under_way_and_kills_the_worker(fleet):
    fleet.start_collector()
    fleet.start_agent("pi-sim")
    fleet.wait_for_devices("pi-sim")
    campaign_id = fleet.submit(fleet.write_campaign(repetitions=5000))
    wait_for(lambda: fleet.stored_trials(campaign_id) > 1, 60, "a trial in the store")
    assert fleet.cli("campaign", "cancel", campaign_id).returncode == 0
    assert fleet.wait_for_end(campaign_id, 30) == "CANCELED"
    assert psutil.Process(fleet.pid("pi-sim")).children() == []


def test_a_trial_past_its_deadline_is_a_typed_failure_and_its_worker_is_killed(fleet):
    fleet.start_collector()
    fleet.start_agent("pi-sim")
    fleet.wait_for_devices("pi-sim")
    file = fleet.write_campaign(
        timeouts={"trial_s": 0.5},
        matrix={
            "backend": ["xllamacpp"],
            "model": [{"name": "m", "ref": MODEL_REF, "sha256": MODEL_SHA256}],
            "options": {"threads": 1, "context_tokens": 4096},
        },
        workloads=[
            {"name": "w", "kind": "single", "prompt": "The sun", "output_tokens": 4000, "warmup": 0}
        ],
    )
    run = fleet.cli("campaign", "run", str(file))
    assert run.returncode == 1
    assert "BACKEND_TIMEOUT" in run.stdout, run.stdout
    assert psutil.Process(fleet.pid("pi-sim")).children() == []
