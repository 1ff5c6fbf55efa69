"""Which engines the demo compares, and what it says of those that are not here."""

import pytest
from ruamel.yaml import YAML

from fakes.fake_fleet import FakeDevice, make_inventory
from fleetmark_collector.campaigns.file import load_campaign
from fleetmark_collector.campaigns.plan import make_plan
from fleetmark_collector.demo.engines import compared, models, not_compared, write_campaign
from fleetmark_collector.demo.fleet import CAMPAIGN
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.messages import BackendInfo

HERE = ("xllamacpp", "llama_cpp", "langchain")
ALL = {
    "xllamacpp",
    "llama_cpp",
    "llama_server",
    "llamafile",
    "ollama",
    "ctransformers",
    "langchain",
    "transformers",
}


def plan_of(tmp_path, wanted="installed"):
    write_campaign(CAMPAIGN, tmp_path / "campaign.yaml", wanted)
    backends = [BackendInfo(name=name, available=True, version="1") for name in HERE]
    backends += [
        BackendInfo(name=name, available=False, reason="not installed", hint=f"install {name}")
        for name in sorted(ALL - set(HERE))
    ]
    inventory = make_inventory(backends=tuple(backends), tags=("simulated",))
    return make_plan(
        load_campaign(tmp_path / "campaign.yaml"), "c1", [FakeDevice("pi-1", inventory=inventory)]
    )


def test_the_demo_knows_every_engine_that_runs_a_file(tmp_path):
    assert {cell.backend for cell in load_campaign(CAMPAIGN).cells} == ALL


def test_engines_that_are_here_are_compared_and_of_the_others_the_reason_is_told(tmp_path):
    plan = plan_of(tmp_path)
    assert set(compared(plan).split(", ")) == {
        "xllamacpp",
        "llama_cpp",
        "langchain over llama_cpp",
    }
    said = {line.split(":")[0]: line for line in not_compared(plan)}
    assert set(said) == {*(ALL - set(HERE)), "langchain over ctransformers"}
    assert said["ollama"].endswith("is not available there: not installed (install ollama)")
    assert "'ctransformers' is not available" in said["langchain over ctransformers"]


def test_only_engines_that_are_asked_for_are_in_the_campaign(tmp_path):
    plan = plan_of(tmp_path, "llama_cpp, xllamacpp")
    assert set(compared(plan).split(", ")) == {"llama_cpp", "xllamacpp"}
    assert list(not_compared(plan)) == []
    whole, part = (YAML(typ="safe").load(f) for f in (CAMPAIGN, tmp_path / "campaign.yaml"))
    for data in (whole, part):
        del data["matrix"]["backend"]
    assert part == whole


def test_all_entries_of_an_engine_stay(tmp_path):
    write_campaign(CAMPAIGN, tmp_path / "campaign.yaml", "transformers")
    cells = load_campaign(tmp_path / "campaign.yaml").cells
    assert {str(cell.labels.get("load_quantization")) for cell in cells} == {"None", "int8_dynamic"}


@pytest.mark.parametrize("wanted", ["olama", "xllamacpp,olama", "", ","])
def test_an_engine_that_the_demo_does_not_have_is_the_users_mistake(tmp_path, wanted):
    with pytest.raises(ConfigError, match="the demo has no engine"):
        write_campaign(CAMPAIGN, tmp_path / "campaign.yaml", wanted)
    assert not (tmp_path / "campaign.yaml").exists()


def test_only_model_files_that_a_job_needs_are_made(tmp_path):
    assert {quantization for _, _, quantization in models(plan_of(tmp_path))} == {"Q8_0", "Q4_0"}
    assert {q for _, _, q in models(plan_of(tmp_path, "langchain"))} == {"Q8_0"}
