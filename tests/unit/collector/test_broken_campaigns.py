"""Broken campaign files, each with the exact words it must be refused with: place, what, remedy.

Beside each `tests/fixtures/broken_campaigns/NAME.yaml` stands NAME.txt: one line a mistake.
"""

from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from fakes.fake_fleet import FakeDevice, make_inventory
from fleetmark_collector.campaigns.estimate import estimate_plan
from fleetmark_collector.campaigns.file import campaign_json_schema, load_campaign
from fleetmark_collector.campaigns.history import History
from fleetmark_collector.campaigns.plan import make_plan
from fleetmark_collector.campaigns.submit import Outlook
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.messages import Hardware

FILES = sorted((Path(__file__).parents[2] / "fixtures" / "broken_campaigns").glob("*.yaml"))
PI4 = Hardware(
    arch="aarch64", os="Linux", kernel="6", hostname="pi", board="Raspberry Pi 4", cores_logical=4
)
FLEET = [
    FakeDevice(f"pi-{number}", inventory=make_inventory(hardware=PI4, tags=tags))
    for number, tags in enumerate((("pi4", "bench"), ("pi4", "slow"), ("pi4",)), 1)
]
"""What the files that are right by themselves are planned for."""

BEYOND_A_SCHEMA = {
    "answer_longer_than_its_context",
    "blocks_without_order",
    "context_too_small",
    "costs_too_much",
    "cron_step_too_large",
    "entries_twice",
    "exclude_matches_nothing",
    "exclude_misspelled",
    "include_makes_a_cell_twice",
    "job_longer_than_its_window",
    "limits_that_nobody_can_check",
    "longer_than_its_windows",
    "name_not_in_file",
    "no_such_source",
    "price_missing",
    "prompts_file_missing",
    "sample_too_large",
    "schedule_ends_before_it_starts",
    "schedule_out_of_time",
    "schedule_starts_never",
    "soak_with_cold_starts",
    "takes_too_long",
    "where_not_an_expression",
    "where_unknown_tag",
    "workload_named_twice",
}
"""Files whose mistake lies between keys, in other files, or in what devices there are."""
NOT_YAML = {"key_given_twice", "not_yaml"}


def plan_it(file: Path) -> None:
    campaign = load_campaign(file)
    plan = make_plan(campaign, "c1", FLEET)
    estimate = estimate_plan(campaign, plan, FLEET, History())
    Outlook(plan, estimate).check(accept_limits=False)


def test_there_are_more_than_ten():
    assert len(FILES) > 10


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_broken_file_is_refused_with_these_words(file):
    with pytest.raises(ConfigError) as caught:
        plan_it(file)
    said = caught.value.message.replace(f"{file.parent}/", "")
    assert said == file.with_suffix(".txt").read_text("utf-8").rstrip("\n")


@pytest.mark.parametrize(
    "file", [one for one in FILES if one.stem not in NOT_YAML], ids=lambda file: file.stem
)
def test_editors_refuse_what_a_schema_can_tell(file):
    data = YAML(typ="safe").load(file)
    try:
        jsonschema.validate(data, campaign_json_schema())
    except jsonschema.ValidationError:
        refused = True
    else:
        refused = False
    assert refused == (file.stem not in BEYOND_A_SCHEMA)
