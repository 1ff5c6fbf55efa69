"""A campaign of every kind of workload over simulated devices, through broker and collector."""

import json
import signal

import pytest

from servers import wait_for
from simulations import Simulation

pytestmark = pytest.mark.integration

WORKLOADS = [
    {"name": "qa", "kind": "multi", "prompts": ["one", "two"], "repetitions": 2},
    {
        "name": "until",
        "kind": "single",
        "prompt": "known well enough",
        "repetitions": {"half_width_percent": 20, "min": 3, "max": 40},
    },
    {"name": "sweep", "kind": "context_sweep", "prompt_tokens": [16, 64], "repetitions": 1},
    {"name": "crowd", "kind": "concurrency", "prompt": "p", "clients": [1, 3], "repetitions": 1},
    {"name": "heat", "kind": "soak", "prompt": "p", "duration_s": 900},
    {
        "name": "start",
        "kind": "coldstart",
        "prompt": "p",
        "page_cache": "drop",
        "warmup": 0,
        "repetitions": 2,
    },
]


def test_a_campaign_of_every_kind_of_workload_comes_to_its_end_and_is_reported(fleet):
    fleet.start_collector()
    run = Simulation(
        fleet.directory, fleet.broker.port, *("--devices", 2, "--run-jobs", "--trial-s", 0.05)
    )
    try:
        wait_for(lambda: len(ready(fleet)) == 2, 40, "both devices and their inventories")
        file = fleet.write_campaign(
            workloads=WORKLOADS,
            cool_down={"temperature_c": 60, "before": "repetition", "timeout_s": 5},
            cost={"usd_per_hour": {"simulated": 0.5}},
        )
        done = fleet.cli("campaign", "run", str(file))
        assert done.returncode == 0, done.stdout + done.stderr
        campaign_id = fleet.status()["campaign_id"]
        trials = [item.record for item in fleet.trials(campaign_id)]
        assert len({trial.trial_id for trial in trials}) == len(trials)
        by_kind = {}
        for trial in trials:
            by_kind.setdefault(trial.workload_kind, []).append(trial)
        assert sorted(by_kind) == [
            *("coldstart", "concurrency", "context_sweep", "multi", "single", "soak"),
        ]
        assert all(trial.cold and trial.model_cached_percent < 5 for trial in by_kind["coldstart"])
        assert {trial.clients for trial in by_kind["concurrency"]} == {1, 3}
        assert {trial.workload for trial in by_kind["context_sweep"]} == {"sweep-16", "sweep-64"}
        assert max(trial.soak_s for trial in by_kind["soak"] if not trial.warmup) > 800
        single = [trial for trial in by_kind["single"] if not trial.warmup]
        assert 12 <= len(single) < 80
        assert all(trial.cost_usd is not None for trial in trials)
        report = fleet.cli("report", campaign_id)
        assert report.returncode == 0, report.stderr
    finally:
        run.command.end(signal.SIGINT)


def ready(fleet):
    done = fleet.cli("devices", "--json")
    found = json.loads(done.stdout) if done.returncode == 0 else []
    return [one for one in found if one["online"] and one["backends"]]
