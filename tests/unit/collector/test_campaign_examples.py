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


def test_there_are_examples():
    assert {file.stem for file in EXAMPLES} >= {"demo", "quickstart", "options"}


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_is_valid_for_the_reader_and_for_editors(file):
    load_campaign(file)
    jsonschema.validate(YAML(typ="safe").load(file), campaign_json_schema())


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
