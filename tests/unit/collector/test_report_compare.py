import pytest

from fakes.fake_campaign import CAMPAIGN, FakeJob, digest, store
from fleetmark_collector.report.cells import read_cells
from fleetmark_collector.report.compare import (
    comparable_groups,
    compare,
    same_outputs,
    why_not_comparable,
)
from fleetmark_collector.report.statistics import Outcome


def cell_pair(tmp_path, mine, theirs, workload="single", repetitions=8, **how):
    """Two cells with the same trials, but for the fields given."""
    for job, fields in zip(jobs := two_jobs(**how), (mine, theirs), strict=True):
        for repetition in range(repetitions):
            job.trial(workload, repetition, **fields)
    reader = store(tmp_path, *jobs)
    cells, _ = read_cells(reader, CAMPAIGN)
    reader.close()
    return cells


def two_jobs(speeds=(0.010, 0.014), seeds=(0, 0), **how):
    return [
        FakeJob(number=n, quantization=q, tpot_s=s, seed=seed, **how)
        for n, q, s, seed in zip((1, 2), ("Q4_0", "Q8_0"), speeds, seeds, strict=True)
    ]


def versus(mine, theirs, same_machine=False):
    return compare(mine, theirs, confidence=0.95, seed=0, same_machine=same_machine)


def test_equal_work_on_weights_of_the_same_origin_is_comparable(tmp_path):
    assert why_not_comparable(*cell_pair(tmp_path, {}, {})) is None


@pytest.mark.parametrize(
    ("mine", "why"),
    [
        ({"model_origin_sha256": digest("x")}, "weights of different origin"),
        ({"model_origin_sha256": None}, "where the weights come from is unknown"),
        ({"output_tokens": 20}, "generated 20 tokens against 32"),
        ({"output_tokens": None}, "the number of generated tokens is unknown"),
        ({"prompt_ids_sha256": digest("x")}, "prompt tokenized differently (20 tokens, other ids)"),
        ({"prompt_ids_sha256": None, "prompt_sha256": digest("x")}, "different prompts"),
        (
            {"prompt_ids_sha256": None, "prompt_tokens": 21},
            "prompt tokenized differently (21 vs 20 tokens)",
        ),
        (
            {"prompt_ids_sha256": None, "prompt_tokens": None},
            "the number of prompt tokens is unknown",
        ),
        ({"verdict": "INVALID"}, "no usable trial on one side"),
    ],
)
def test_unequal_work_is_not_compared_and_the_reason_is_told(tmp_path, mine, why):
    first, second = cell_pair(tmp_path, mine, {})
    assert why_not_comparable(first, second) == why
    assert versus(first, second).comparisons == {}


def test_the_very_same_file_is_comparable_though_its_origin_is_unknown(tmp_path):
    same = {"model_origin_sha256": None, "model_sha256": digest("one file")}
    assert why_not_comparable(*cell_pair(tmp_path, same, same)) is None


def test_prompts_without_token_ids_are_comparable_by_text_and_count(tmp_path):
    assert why_not_comparable(*cell_pair(tmp_path, {"prompt_ids_sha256": None}, {})) is None


def test_one_odd_trial_makes_a_cell_incomparable(tmp_path):
    jobs = two_jobs()
    for job in jobs:
        job.trial("single", 0).trial("single", 1)
    jobs[0].trial("single", 2, output_tokens=31)
    reader = store(tmp_path, *jobs)
    cells, _ = read_cells(reader, CAMPAIGN)
    reader.close()
    assert why_not_comparable(*cells) == "generated 31 to 32 tokens against 32"


def test_sessions_of_different_prompts_are_not_compared(tmp_path):
    jobs = two_jobs()
    jobs[0].trial("multi", 0, 0)
    jobs[1].trial("multi", 0, 0).trial("multi", 0, 1)
    reader = store(tmp_path, *jobs)
    cells, _ = read_cells(reader, CAMPAIGN)
    reader.close()
    assert why_not_comparable(*cells) == "prompts 0 against 0, 1"


def test_a_gain_above_one_is_better_in_whichever_direction_a_metric_counts(tmp_path):
    faster, slower = cell_pair(tmp_path, {}, {})
    found = versus(faster, slower).comparisons
    for metric in ("latency_s", "tpot_s", "decode_tps", "rss_bytes"):
        assert found[metric].gain.ratio == pytest.approx(1.4, rel=0.03)
        assert found[metric].outcome is Outcome.BETTER
    back = versus(slower, faster).comparisons["latency_s"]
    assert back.outcome is Outcome.WORSE
    assert back.gain.ratio == pytest.approx(1 / 1.4, rel=0.03)


def test_metrics_without_a_good_direction_are_not_compared(tmp_path):
    assert "cpu_percent_mean" not in versus(*cell_pair(tmp_path, {}, {})).comparisons


def test_equal_speeds_show_no_difference(tmp_path):
    cells = cell_pair(tmp_path, {}, {}, speeds=(0.010, 0.010), seeds=(1, 2))
    assert versus(*cells).comparisons["latency_s"].outcome is Outcome.NO_DIFFERENCE


def test_few_repetitions_are_too_few_to_tell(tmp_path):
    found = versus(*cell_pair(tmp_path, {}, {}, repetitions=3)).comparisons["latency_s"]
    assert found.outcome is Outcome.TOO_FEW


def test_energy_from_different_sources_is_never_ranked(tmp_path):
    cells = cell_pair(
        tmp_path,
        {"energy_j": 1.0, "co2_g": 0.1, "energy_source": "meter"},
        {"energy_j": 9.0, "co2_g": 0.9, "energy_source": "model"},
    )
    found = versus(*cells)
    assert found.comparisons.keys().isdisjoint({"energy_j", "co2_g"})
    assert "energy not compared: meter here, model in the baseline" in found.notes


def test_energy_from_the_same_source_is_compared(tmp_path):
    same = {"energy_source": "rapl"}
    cells = cell_pair(tmp_path, {"energy_j": 1.0, **same}, {"energy_j": 2.0, **same})
    assert versus(*cells).comparisons["energy_j"].gain.ratio == 2.0


def test_cost_and_what_is_made_of_it_are_compared_where_the_records_carry_them(tmp_path):
    cells = cell_pair(tmp_path, {"cost_usd": 1e-5, "eq": 600.0}, {"cost_usd": 2e-5, "eq": 300.0})
    found = versus(*cells).comparisons
    assert found["cost_usd"].gain.ratio == pytest.approx(2.0)
    assert found["eq"].gain.ratio == pytest.approx(2.0)
    assert "eq_per_token" not in found


@pytest.mark.parametrize(
    ("mine", "theirs", "same"),
    [
        ({"output_ids_sha256": digest("a")}, {"output_ids_sha256": digest("a")}, True),
        ({"output_ids_sha256": digest("a")}, {"output_ids_sha256": digest("b")}, False),
        (
            {"output_ids_sha256": None, "output_sha256": digest("a")},
            {"output_sha256": digest("a")},
            True,
        ),
        ({"output_ids_sha256": None, "output_sha256": None}, {}, None),
    ],
)
def test_whether_outputs_are_the_same_is_told_where_it_is_known(tmp_path, mine, theirs, same):
    first, second = cell_pair(tmp_path, mine, theirs)
    assert same_outputs(first, second) is same
    assert versus(first, second).same_outputs is same


def test_two_devices_on_one_machine_are_noted(tmp_path):
    one, two = FakeJob(device="pi-1").trial(), FakeJob(device="ec2-1").trial()
    reader = store(tmp_path, one, two)
    cells, _ = read_cells(reader, CAMPAIGN)
    reader.close()
    assert "on the same machine as the baseline" in versus(*cells, same_machine=True).notes
    assert "on the same machine as the baseline" not in versus(*cells).notes


def test_cells_fall_into_groups_that_may_be_compared(tmp_path):
    jobs = [
        FakeJob(number=1).trial(),
        FakeJob(number=2, quantization="Q8_0").trial(),
        FakeJob(number=3, model="other").trial(model_origin_sha256=digest("other")),
    ]
    reader = store(tmp_path, *jobs)
    cells, _ = read_cells(reader, CAMPAIGN)
    reader.close()
    assert [len(group) for group in comparable_groups(cells)] == [2, 1]
