"""Interleaved blocks on simulated devices: each repetition once, in rounds; the plan after it."""

import json
import signal

import pytest

from servers import wait_for
from simulations import Simulation

pytestmark = pytest.mark.integration

WORKLOADS = [
    {"name": "one", "kind": "single", "prompt": "hello", "repetitions": 5},
    {"name": "crowd", "kind": "concurrency", "prompt": "p", "clients": [3], "repetitions": 2},
]


def test_blocks_run_in_rounds_and_the_next_plan_goes_by_what_they_took(fleet):
    fleet.start_collector()
    run = Simulation(
        fleet.directory, fleet.broker.port, *("--devices", 1, "--run-jobs", "--trial-s", 0.05)
    )
    try:
        wait_for(lambda: ready(fleet), 40, "the device and its inventory")
        file = fleet.write_campaign(workloads=WORKLOADS, order="interleaved", blocks=2)
        file.write_text(file.read_text().replace('"threads": 1', '"threads": [1, 2]'))
        done = fleet.cli("campaign", "run", str(file))
        assert done.returncode == 0, done.stdout + done.stderr
        campaign_id = fleet.status()["campaign_id"]
        counted = [item.record for item in fleet.trials(campaign_id) if not item.record.warmup]
        numbers = sorted(one.repetition for one in counted if one.workload == "one")
        cells = {one.options["threads"] for one in counted}
        assert cells == {1, 2}
        assert numbers == sorted([0, 1, 2, 3, 4] * len(cells))
        crowds = [(one.repetition, one.client) for one in counted if one.workload == "crowd-3"]
        assert sorted(set(crowds)) == [(number, who) for number in range(2) for who in range(3)]
        ordered = sorted(counted, key=lambda one: one.time_ns)
        blocks = [one.repetition >= 3 for one in ordered if one.workload == "one"]
        assert blocks == sorted(blocks)  # no second block before the last of the first
        planned = json.loads(fleet.cli("campaign", "plan", str(file), "--json").stdout)
        assert {job["basis"] for job in planned["jobs"]} == {"same device"}
        assert [job["block"]["number"] for job in planned["jobs"]] == sorted([1, 2] * len(cells))
    finally:
        run.command.end(signal.SIGINT)


def ready(fleet):
    done = fleet.cli("devices", "--json")
    found = json.loads(done.stdout) if done.returncode == 0 else []
    return [one for one in found if one["online"] and one["backends"]]
