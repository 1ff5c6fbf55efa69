"""The generated docs are up to date, complete and true to what the code accepts."""

import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from ruamel.yaml import YAML

from docs_schemas import COMMAND, MESSAGES, RECORDS, field_text
from fleetmark_protocol import codec, topics
from fleetmark_protocol.errors import all_errors
from fleetmark_protocol.metrics import METRICS
from generate_docs import ROOT, outputs, stale, write
from strategies import instances

DOCS = ROOT / "docs"
MODELS = [*MESSAGES.values(), *RECORDS.values()]

slow = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def schema_of(model):
    """The published schema of a model, found by its title."""
    found = [json.loads(file.read_text()) for file in (DOCS / "schemas").glob("*.json")]
    (schema,) = [schema for schema in found if schema["title"] == model.__name__]
    return schema


def test_the_generated_docs_are_what_the_code_says_now():
    assert stale(DOCS) == [], f"out of date under docs/: run `{COMMAND}`"


def test_a_missing_a_changed_and_an_orphaned_file_are_noticed_and_mended(tmp_path):
    write(tmp_path)
    (tmp_path / "errors.md").write_text("old")
    (tmp_path / "metrics.md").unlink()
    (tmp_path / "schemas" / "gone.schema.json").write_text("{}")
    expected = ["errors.md", "metrics.md", "schemas/gone.schema.json"]
    assert stale(tmp_path) == expected
    assert write(tmp_path) == expected
    assert stale(tmp_path) == []


def test_generating_twice_gives_the_same():
    assert outputs() == outputs()


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_a_published_schema_accepts_whatever_the_code_sends(model):
    schema = schema_of(model)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)

    @slow
    @given(instances(model))
    def check(message):
        validator.validate(json.loads(codec.encode(message)))

    check()


@pytest.mark.parametrize("model", RECORDS.values(), ids=lambda model: model.__name__)
def test_a_published_schema_refuses_a_record_without_its_kind_or_of_another(model):
    validator = jsonschema.Draft202012Validator(schema_of(model))
    assert "kind" in schema_of(model)["required"]
    assert not validator.is_valid({})
    (kind,) = [kind for kind, known in RECORDS.items() if known is model]
    errors = validator.iter_errors({"kind": f"not-{kind}"})
    assert any(error.json_path == "$.kind" for error in errors)


@pytest.mark.parametrize("model", RECORDS.values(), ids=lambda model: model.__name__)
def test_every_field_of_a_record_is_explained(model):
    unexplained = [f for f in model.model_fields if not field_text(model.__name__, f)]
    assert unexplained == [], "give it a docstring, a metric, or a line in tools/docs_fields.py"


def test_the_schema_that_editors_are_told_of_accepts_the_example_of_every_key():
    schema = json.loads((DOCS / "schemas" / "campaign.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    example = YAML(typ="safe").load(ROOT / "campaigns" / "options.yaml")
    jsonschema.validate(example, schema)
    assert "docs/schemas/campaign.schema.json" in (DOCS / "campaigns.md").read_text("utf-8")


def test_every_metric_and_every_error_is_in_its_table():
    metrics_page, errors_page = (DOCS / "metrics.md").read_text(), (DOCS / "errors.md").read_text()
    assert [name for name in METRICS if f"| `{name}` |" not in metrics_page] == []
    codes = [c for c, k in all_errors().items() if k.__module__.startswith("fleetmark_protocol")]
    assert [code for code in codes if f"| `{code}` |" not in errors_page] == []


def test_the_asyncapi_document_has_every_topic_and_no_loose_reference():
    document = YAML(typ="safe").load((DOCS / "asyncapi.yaml").read_text("utf-8"))
    assert document["asyncapi"] == "3.0.0"
    assert set(document["channels"]) == set(topics.CHANNELS)
    for name, channel in document["channels"].items():
        job_id = "j" if name == "jobs" else None
        address = channel["address"].format(fleet="f", device="d", job_id=job_id)
        assert address == topics.topic("f", "d", name, job_id)
        assert {f"{{{p}}}" for p in channel["parameters"]} <= set(channel["address"].split("/"))
    for reference in references(document):
        node = document
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


def references(node):
    """Every `$ref` in a document."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from references(item)


def test_no_page_links_to_a_file_that_is_not_there():
    import re

    for page in DOCS.rglob("*.md"):
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text("utf-8")):
            if "://" not in target:
                assert (page.parent / Path(target)).exists(), f"{page.name} links to {target}"
