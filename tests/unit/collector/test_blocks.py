"""Cells whose repetitions are split over several jobs: nothing lost, nothing twice, in rounds."""

import math

import pytest

from fakes.fake_fleet import CAMPAIGN, FakeDevice, make_campaign, make_inventory
from fleetmark_collector.campaigns.blocks import split
from fleetmark_collector.campaigns.cells import Cell
from fleetmark_collector.campaigns.plan import jobs_of, make_plan
from fleetmark_protocol.messages import ModelSpec
from fleetmark_protocol.workloads import Adaptive, Workload

MODEL = ModelSpec(name="tiny", ref="path:tiny.gguf")


def work(name="w", repetitions=8, **more):
    fields = {"kind": "single", "prompts": ("x",), **more}
    return Workload(name=name, repetitions=repetitions, **fields)


def parts(blocks, *workloads):
    return split(Cell("b", MODEL, {}, workloads), blocks)


def numbers(part, name="w"):
    """The numbers of the repetitions that a part makes of a workload."""
    return [
        number
        for one in part.workloads
        if one.name == name
        for number in range(one.first_repetition, one.first_repetition + one.repetitions)
    ]


@pytest.mark.parametrize(
    ("repetitions", "blocks", "sizes"),
    [(8, 4, [2, 2, 2, 2]), (10, 4, [3, 3, 2, 2]), (3, 4, [1, 1, 1]), (5, 2, [3, 2]), (1, 4, [1])],
)
def test_repetitions_are_split_evenly_and_counted_on(repetitions, blocks, sizes):
    made = parts(blocks, work(repetitions=repetitions))
    assert [len(numbers(part)) for part in made] == sizes
    assert [number for part in made for number in numbers(part)] == list(range(repetitions))


def test_each_part_warms_up_a_new_engine():
    made = parts(4, work(warmup=2))
    assert [part.workloads[0].warmup for part in made] == [2, 2, 2, 2]


def test_a_workload_of_fewer_repetitions_is_in_the_first_parts_only():
    made = parts(4, work("a", 8), work("b", 2))
    assert [[one.name for one in part.workloads] for part in made] == [["a", "b"]] * 2 + [["a"]] * 2


def test_a_soak_is_whole_in_the_last_part():
    soak = work("s", 2, kind="soak", duration_s=60)
    made = parts(3, soak, work("a", 3))
    assert [[one.name for one in part.workloads] for part in made] == [["a"], ["a"], ["s", "a"]]
    assert made[-1].workloads[0] == soak
    assert parts(4, soak) == (Cell("b", MODEL, {}, (soak,)),)


def test_adaptive_parts_know_together_as_much_as_the_whole():
    adaptive = Adaptive(half_width_percent=5, min=6, budget_s=400)
    made = parts(4, work(repetitions=50, adaptive=adaptive))
    mine = [part.workloads[0] for part in made]
    assert {one.adaptive for one in mine} == {
        Adaptive(half_width_percent=5 * math.sqrt(4), min=2, budget_s=100)
    }
    assert [(one.repetitions, one.first_repetition) for one in mine] == [
        (13, 0),
        (13, 13),
        (13, 26),
        (13, 39),
    ]


def test_the_width_of_a_part_stays_lawful_and_no_budget_stays_none():
    (first, *_) = parts(4, work(repetitions=50, adaptive=Adaptive(half_width_percent=80)))
    assert first.workloads[0].adaptive == Adaptive(half_width_percent=100, min=1)


@pytest.mark.parametrize(("most", "count"), [(5, 1), (12, 2), (20, 3), (24, 4), (50, 4)])
def test_no_adaptive_part_is_too_small_to_know_its_median(most, count):
    assert len(parts(4, work(repetitions=most, adaptive=Adaptive(half_width_percent=5)))) == count


# --- in a plan ---------------------------------------------------------------------------------

INTERLEAVED = CAMPAIGN.replace("repetitions: 2", "repetitions: 4") + "order: interleaved\nblocks: 2"


def rounds(tmp_path, text=INTERLEAVED, device="pi-1"):
    campaign = make_campaign(tmp_path, text)
    plan = make_plan(campaign, "c1", [FakeDevice("pi-1"), FakeDevice("pi-2")])
    assert plan.problems == ()
    jobs = [job for job in plan.jobs if job.device == device]
    return [
        [str(job.cell) for job in jobs if job.block is not None and job.block[0] == number]
        for number in (1, 2)
    ]


def test_each_round_runs_all_cells_before_the_next_begins(tmp_path):
    campaign = make_campaign(tmp_path, INTERLEAVED)
    plan = make_plan(campaign, "c1", [FakeDevice("pi-1")])
    assert [job.block for job in plan.jobs] == [(1, 2)] * 4 + [(2, 2)] * 4
    assert [job.spec.job_id[-4:] for job in plan.jobs] == [f".{n:03d}" for n in range(1, 9)]
    assert [job.spec.workloads[0].first_repetition for job in plan.jobs] == [0] * 4 + [2] * 4
    assert sum(job.trials for job in plan.jobs) == 8 * (1 + 2)
    first, second = rounds(tmp_path)
    assert sorted(first) == sorted(second) == sorted(map(str, campaign.cells))


def test_rounds_differ_by_seed_round_and_device_and_are_the_same_for_the_same(tmp_path):
    many = INTERLEAVED.replace("threads: [1, 2]", "threads: [1, 2, 3, 4, 5, 6, 7, 8]")
    first, second = rounds(tmp_path, many)
    assert first != second
    assert rounds(tmp_path, many) == [first, second]
    assert rounds(tmp_path, many + "\nseed: 7") != [first, second]
    assert rounds(tmp_path, many, "pi-2") != [first, second]


def test_jobs_of_a_device_are_counted_with_their_parts(tmp_path):
    assert len(jobs_of(make_campaign(tmp_path, INTERLEAVED))) == 8
    assert len(jobs_of(make_campaign(tmp_path))) == 4


def test_a_cell_that_is_skipped_is_left_out_once_with_all_its_parts(tmp_path):
    campaign = make_campaign(tmp_path, INTERLEAVED + "\nunavailable: skip")
    plan = make_plan(
        campaign,
        "c1",
        [FakeDevice("pi-1"), FakeDevice("pi-2", inventory=make_inventory(backends=()))],
    )
    assert {job.device for job in plan.jobs} == {"pi-1"}
    assert [str(one.cell) for one in plan.left_out] == list(map(str, campaign.cells))
