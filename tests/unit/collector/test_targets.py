"""Which devices a campaign runs on: expressions over tags, samples, and what goes wrong there."""

import random

import pytest

from fakes.fake_fleet import CAMPAIGN, FakeDevice, make_campaign, make_inventory
from fleetmark_collector.campaigns.plan import make_plan
from fleetmark_protocol.errors import ConfigError


def device(name: str, *tags: str, fleet: str = "lab") -> FakeDevice:
    return FakeDevice(name, fleet=fleet, inventory=make_inventory(tags=tags))


FLEET = [
    device("pi-1", "pi4"),
    device("pi-2", "pi4", "bench"),
    device("pi-3", "pi4", "slow"),
    device("pi-4", "pi5"),
    device("ec2-1", "cloud", fleet="cloud"),
    FakeDevice("mute", inventory=None),
]


def plan_of(tmp_path, targets, devices=FLEET, more=""):
    text = CAMPAIGN.replace("{all: true}", targets) + more
    return make_plan(make_campaign(tmp_path, text), "c1", devices)


def chosen(tmp_path, targets, devices=FLEET, more=""):
    plan = plan_of(tmp_path, targets, devices, more)
    assert plan.problems == ()
    return sorted({job.device for job in plan.jobs})


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ('{where: "pi4 and not (bench or slow)"}', ["pi-1"]),
        ("{where: pi4 or cloud}", ["ec2-1", "pi-1", "pi-2", "pi-3"]),
        ("{where: not pi4}", ["ec2-1", "mute", "pi-4"]),
        ("{where: not pi4, fleets: lab}", ["mute", "pi-4"]),
        ("{where: not bench, tags: [pi4, pi5]}", ["pi-1", "pi-3", "pi-4"]),
        ("{where: pi4, devices: [pi-1, pi-4]}", ["pi-1"]),
        ("{where: pi5, all: true}", ["pi-4"]),
    ],
)
def test_an_expression_narrows_what_the_other_keys_name(tmp_path, targets, expected):
    assert chosen(tmp_path, targets) == expected


def many(count: int) -> list[FakeDevice]:
    return [device(f"pi-{number}", "pi4") for number in range(count)]


@pytest.mark.parametrize(
    ("sample", "count"),
    [("3", 3), ("10%", 4), ("'2.5%'", 1), ("100%", 40), ("40", 40), ("7.5%", 3)],
)
def test_a_sample_is_a_number_or_a_share_rounded_up(tmp_path, sample, count):
    assert len(chosen(tmp_path, f"{{all: true, sample: {sample}}}", many(40))) == count


def test_the_same_seed_draws_the_same_devices_in_whatever_order_they_come(tmp_path):
    devices = many(40)
    first = chosen(tmp_path, "{all: true, sample: 8}", devices)
    random.Random(1).shuffle(devices)
    assert chosen(tmp_path, "{all: true, sample: 8}", devices) == first
    assert chosen(tmp_path, "{all: true, sample: 8}", devices, "seed: 1\n") != first


def test_a_device_that_joins_changes_a_sample_by_one_at_most(tmp_path):
    for size in range(20, 30):
        before = set(chosen(tmp_path, "{all: true, sample: 8}", many(size)))
        after = set(chosen(tmp_path, "{all: true, sample: 8}", many(size + 1)))
        assert len(before - after) <= 1


def test_every_device_is_drawn_by_some_seed(tmp_path):
    drawn = {
        name
        for seed in range(40)
        for name in chosen(tmp_path, "{all: true, sample: 3}", many(10), f"seed: {seed}\n")
    }
    assert len(drawn) == 10


def test_a_sample_is_drawn_from_what_fits(tmp_path):
    assert chosen(tmp_path, "{where: pi4 and not slow, sample: 2}") == ["pi-1", "pi-2"]


@pytest.mark.parametrize(
    ("targets", "problem"),
    [
        (
            '{where: "pi4 and not bnech"}',
            "campaign.yaml:3:31: targets.where: no tag 'bnech' (did you mean 'bench'?)",
        ),
        (
            "{where: pi4 and clod}",
            "campaign.yaml:3:26: targets.where: no tag 'clod' (did you mean 'cloud'?)",
        ),
        (
            "{tags: [pi4, pi6]}",
            "campaign.yaml:3:23: targets.tags[1]: no tag 'pi6' (did you mean 'pi5'?)",
        ),
        (
            "{where: pi4 and pi5}",
            "campaign.yaml:3:18: targets.where: no device is left: none has all of this",
        ),
        (
            "{where: pi4, sample: 4}",
            "campaign.yaml:3:31: targets.sample: 4 devices wanted, 3 fit the targets",
        ),
    ],
)
def test_targets_that_are_not_there_are_told_with_their_place(tmp_path, targets, problem):
    plan = plan_of(tmp_path, targets)
    assert [line.removeprefix(f"{tmp_path}/") for line in plan.problems] == [problem]
    with pytest.raises(ConfigError):
        plan.check()


def test_a_text_over_several_lines_is_told_by_where_it_begins(tmp_path):
    plan = plan_of(tmp_path, "\n  where: >-\n    pi4\n    and bnech")
    assert "campaign.yaml:4:10: targets.where: no tag 'bnech'" in plan.problems[0]


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ("{sample: 3}", "3:10: targets: names no device: give devices, tags, fleets or where, or"),
        (
            "{all: true, sample: 0}",
            "3:30: targets.sample: should be a number of devices from 1, or",
        ),
        (
            "{all: true, sample: 0%}",
            "targets.sample: should be a number of devices from 1, or a sh",
        ),
        ("{all: true, sample: 101%}", "targets.sample: should be a number of devices from 1, or a"),
        ("{all: true, sample: true}", "targets.sample: should be a number of devices from 1, or a"),
        ("{where: [pi4]}", "3:18: targets.where: should be an expression over tags, as text"),
        ('{where: "pi4 an slow"}', "3:23: targets.where: `and`, `or` or `)` should stand after"),
        ("{where: pi4 &&}", "3:22: targets.where: '&&' is no tag"),
    ],
)
def test_wrong_targets_are_told_when_the_file_is_read(tmp_path, targets, said):
    with pytest.raises(ConfigError) as caught:
        make_campaign(tmp_path, CAMPAIGN.replace("{all: true}", targets))
    assert said in caught.value.message
