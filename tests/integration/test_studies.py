"""The two studies, from their files to their reports, on simulated devices of the kinds they name.

A real broker, a real collector and the operator's own commands; devices and figures are made up.
"""

import json
import signal
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from servers import wait_for
from simulations import Simulation

pytestmark = pytest.mark.integration

CAMPAIGNS = Path(__file__).parents[2] / "campaigns"
THESIS = CAMPAIGNS / "thesis-five-engines.yaml"
CLOUD = CAMPAIGNS / "cloud-quantized-vs-foundation.yaml"
EC2_TYPES = tuple(YAML(typ="safe").load(CLOUD)["targets"]["tags"])
ALL_FIVE = "llama_cpp+ollama+llamafile+ctransformers+langchain"
ON_PI = "llama_cpp+ollama+llamafile+langchain"
"""The wheel of CTransformers holds no library for arm64."""


@pytest.fixture
def simulated(fleet):
    """Start devices of these kinds, one each, and wait until the collector knows them all."""
    started = []

    def start(*kinds):
        flags = [part for kind in kinds for part in ("--kind", kind)]
        flags += ["--devices", len(kinds), "--run-jobs", "--trial-s", 0.05]
        started.append(Simulation(fleet.directory, fleet.broker.port, *flags))

        def known():
            done = fleet.cli("devices", "--json")
            found = json.loads(done.stdout) if done.returncode == 0 else []
            return sum(one["online"] and bool(one["backends"]) for one in found) == len(kinds)

        wait_for(known, 60, "all devices and their inventories")

    yield start
    for one in started:
        for _ in range(2):
            if one.command.process.poll() is None:
                one.command.process.send_signal(signal.SIGINT)
        one.command.end(signal.SIGCONT)


def planned(fleet, file):
    """Return the plan of a study's file as it is, which nothing has to be changed in."""
    done = fleet.cli("campaign", "plan", str(file), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def reduced(fleet, file, *changes):
    """Start a study as it is, cancel it, and return its clone with fewer and shorter answers."""
    campaign_id = fleet.submit(file)
    done = fleet.cli("campaign", "cancel", campaign_id)
    assert done.returncode == 0, done.stderr
    clone = fleet.directory / f"reduced-{file.name}"
    flags = [part for change in changes for part in ("--set", change)]
    done = fleet.cli("campaign", "clone", campaign_id, *flags, "--output", str(clone))
    assert done.returncode == 0, done.stderr
    assert fleet.wait_for_end(campaign_id) == "CANCELED"
    return clone


def measured(fleet, file):
    """Run a study to its end; return its id and the report's figures."""
    done = fleet.cli("campaign", "run", str(file), timeout_s=280)
    assert done.returncode == 0, done.stdout + done.stderr
    campaign_id = str(fleet.status()["campaign_id"])
    assert fleet.status(campaign_id)["state"] == "SUCCEEDED"
    html, figures = fleet.directory / "report.html", fleet.directory / "figures.json"
    done = fleet.cli("report", campaign_id, "--html", str(html), "--json", str(figures))
    assert done.returncode == 0, done.stderr
    assert "EQ" in html.read_text("utf-8")
    return campaign_id, json.loads(figures.read_text("utf-8"))


def test_the_five_engines_are_compared_on_both_machines_and_what_is_missing_is_told(
    fleet, simulated
):
    fleet.start_collector()
    simulated(f"pi400:{ON_PI}", f"t3-large:{ALL_FIVE}")
    plan = planned(fleet, THESIS)
    (left_out,) = plan["left_out"]
    assert left_out["device"] == "sim-pi400-00000"
    assert "'ctransformers' is not available there" in left_out["reason"]
    assert len(plan["jobs"]) == 4 * (12 + 13), "four blocks of each cell"
    clone = reduced(
        fleet,
        THESIS,
        *("workloads[0].repetitions=2", "workloads[1].repetitions=2", "blocks=2"),
        *("workloads[0].output_tokens=4", "workloads[1].output_tokens=4"),
    )
    campaign_id, report = measured(fleet, clone)
    trials = [one.record for one in fleet.trials(campaign_id)]
    engines = {(one.backend, one.model) for one in trials}
    assert ("ctransformers", "tinyllama-chat") in engines
    assert ("langchain", "gemma-3-1b-qat") in engines
    assert len(engines) == 4 * 3 + 1
    assert {one.workload_kind for one in trials} == {"single", "multi"}
    assert all(one.cost_usd is not None and one.eq is not None for one in trials)
    assert {one.usd_per_hour for one in trials} == {0.0045, 0.0832}
    # Nothing has a power sensor, so nothing has an energy.
    assert not any(one.energy_j is not None or one.co2_g is not None for one in trials)
    assert [worth["workload"] for worth in report["worth"]] == ["single", "session"]
    assert {over["why_not"] for over in report["overheads"]} == {None}
    assert all("inner_backend=llama_cpp" in over["framework"] for over in report["overheads"])


def test_foundation_and_quantized_weights_are_compared_on_seventeen_types(fleet, simulated):
    assert len(EC2_TYPES) == 17
    fleet.start_collector()
    simulated(
        *(f"{tag}:llama_cpp+transformers" for tag in EC2_TYPES[:-1]), f"{EC2_TYPES[-1]}:llama_cpp"
    )
    plan = planned(fleet, CLOUD)
    assert {one["device"] for one in plan["left_out"]} == {f"sim-{EC2_TYPES[-1]}-00016"}
    assert all("'transformers' is not available" in one["reason"] for one in plan["left_out"])
    assert plan["estimate"]["usd"]["likely"] > 0
    assert len(plan["jobs"]) == 17 * 5 - 2
    clone = reduced(fleet, CLOUD, "workloads.repetitions=1", "workloads.output_tokens=8")
    campaign_id, report = measured(fleet, clone)
    trials = [one.record for one in fleet.trials(campaign_id) if not one.record.warmup]
    assert len(trials) == 17 * 5 - 2
    assert {one.quantization for one in trials} == {"Q4_0", "Q4_K_M", "Q8_0", None}
    assert {one.options.get("dtype") for one in trials} == {"bf16", "fp32", None}
    (worth,) = report["worth"]
    assert len(worth["cells"]) == len(trials)
    assert all(cell["problem"] is None for cell in worth["cells"]), "all are of one origin"
    for one in trials:
        assert one.options["context_tokens"] == 2048
        assert one.cost_usd == pytest.approx(one.usd_per_hour * one.latency_s / 3600)
        assert one.eq == pytest.approx(1 / (one.cost_usd * one.latency_s))
