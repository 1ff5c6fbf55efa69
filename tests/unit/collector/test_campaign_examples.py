"""The example campaigns are right, and editors are told the same rules as the reader follows."""

from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from fleetmark_collector.campaigns.file import campaign_json_schema, load_campaign
from fleetmark_collector.demo.fleet import CAMPAIGN
from fleetmark_protocol.errors import ConfigError

EXAMPLES = [*sorted((Path(__file__).parents[3] / "campaigns").glob("*.yaml")), CAMPAIGN]
"""Those to start from, and the demo's own."""
STUDIES = ("thesis-five-engines", "cloud-quantized-vs-foundation")


def test_there_are_examples():
    assert {file.stem for file in EXAMPLES} >= {"demo", "quickstart", "options", *STUDIES}


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_is_valid_for_the_reader_and_for_editors(file):
    load_campaign(file)
    jsonschema.validate(YAML(typ="safe").load(file), campaign_json_schema())


def study(name):
    return load_campaign(next(file for file in EXAMPLES if file.stem == name))


@pytest.mark.parametrize("name", STUDIES)
def test_every_kind_of_device_of_a_study_has_a_price_that_says_when_and_where(name):
    campaign = study(name)
    assert campaign.cost.usd_per_hour.keys() == set(campaign.targets.tags)
    assert "us-east-1" in campaign.cost.note
    assert "2026-01-19" in campaign.cost.note


def test_the_study_of_engines_asks_five_of_them_the_same_of_one_model():
    cells = [cell for cell in study(STUDIES[0]).cells if cell.model.name == "tinyllama-chat"]
    assert {cell.backend for cell in cells} == {
        "llama_cpp",
        "ollama",
        "llamafile",
        "ctransformers",
        "langchain",
    }
    assert len({cell.model.sha256 for cell in cells}) == 1
    assert [[work.kind for work in cell.workloads] for cell in cells] == [["single", "multi"]] * 5


def test_the_study_of_the_cloud_has_weights_of_one_file_in_five_forms():
    campaign = study(STUDIES[1])
    forms = [(cell.model.quantization, cell.labels.get("dtype")) for cell in campaign.cells]
    assert sorted(forms, key=str) == [
        ("Q4_0", None),
        ("Q4_K_M", None),
        ("Q8_0", None),
        (None, "bf16"),
        (None, "fp32"),
    ]
    assert len({cell.model.ref for cell in campaign.cells}) == 1
    (workload,) = {cell.workloads for cell in campaign.cells}.pop()
    assert (workload.output_tokens, campaign.timeouts.trial_s) == (512, 900)
    assert {cell.labels["context_tokens"] for cell in campaign.cells} == {2048}
    assert len(set(campaign.targets.tags)) == 17


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 2),
        (("surprise",), 1),
        (("matrix", "backend"), []),
        (("matrix", "options", "threads"), 0),
        (("matrix", "quantization"), "q8"),
        (("workloads", 0, "kind"), "many"),
        (("timeouts", "job_s"), 0),
    ],
)
def test_editors_refuse_what_the_reader_refuses(tmp_path, path, value):
    example = next(file for file in EXAMPLES if file.stem == "options")
    (tmp_path / "prompts.txt").write_text("a\n")
    data = YAML(typ="safe").load(example)
    here = data
    for step in path[:-1]:
        here = here[step]
    here[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, campaign_json_schema())
    file = tmp_path / "wrong.yaml"
    YAML(typ="safe").dump(data, file)
    with pytest.raises(ConfigError):
        load_campaign(file)
