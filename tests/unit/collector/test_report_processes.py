"""Cells of several processes, and repetitions that go on until the median is known well enough."""

import random

import pytest

from fakes.fake_campaign import CAMPAIGN, FakeJob, store
from fakes.fake_workloads import coldstarts, planned, workload
from fleetmark_collector.campaigns.blocks import split
from fleetmark_collector.campaigns.cells import Cell as CampaignCell
from fleetmark_collector.report.build import build_report
from fleetmark_collector.report.statistics import Pair, estimate, min_sessions, ratio, sure_of
from fleetmark_collector.report.tables import cell_notes, legend
from fleetmark_protocol.messages import ModelSpec
from fleetmark_protocol.workloads import Adaptive

MODEL = ModelSpec(name="tiny", ref="path:tiny.gguf")


def values(processes, sessions, *, between=0.0, within=0.01, seed=0, slow=1.0, drift=0.0):
    source = random.Random(seed)
    found = {}
    for process in range(processes):
        start = 1 + source.uniform(-between, between) + drift * process
        for session in range(sessions):
            noise = 1 + source.uniform(-within, within)
            found[Pair((process, process * sessions + session), 0)] = slow * start * noise
    return found


def build(tmp_path, *jobs, plan=(), **how):
    reader = store(tmp_path, *jobs)
    try:
        return build_report(reader, CAMPAIGN, plan=plan, **how)
    finally:
        reader.close()


def notes(report):
    return [line for cell in report.cells for line in cell_notes(cell, report.confidence)]


def blocks(count, each=2, **about):
    """One cell measured by several jobs, repetitions counted on."""
    jobs = []
    for block in range(count):
        job = FakeJob(number=1 + block, **about)
        for repetition in range(block * each, (block + 1) * each):
            job.trial("single", repetition)
        jobs.append(job)
    return jobs


def test_what_differs_between_processes_is_in_the_interval():
    many = values(8, 3, between=0.2)
    apart = estimate(many, confidence=0.95, seed=0)
    alone = {Pair((0, place.session[1]), 0): value for place, value in many.items()}
    together = estimate(alone, confidence=0.95, seed=0)
    assert (apart.processes, together.processes) == (8, 1)
    assert apart.high - apart.low > 1.3 * (together.high - together.low)


def test_processes_of_different_length_are_resampled_as_long_as_they_are():
    ragged = values(6, 4)
    for session in (21, 22, 23):
        del ragged[Pair((5, session), 0)]
    found = estimate(ragged, confidence=0.95, seed=0)
    assert (found.count, found.sessions, found.processes) == (21, 21, 6)
    assert 0.98 < found.low <= found.median <= found.high < 1.02


def test_the_intervals_of_processes_cover_the_true_median_about_as_often_as_they_say():
    hits = 0
    for seed in range(60):
        found = estimate(values(8, 2, between=0.1, seed=seed), confidence=0.95, seed=seed)
        hits += found.low <= 1 <= found.high
    assert hits >= 51  # 57 expected; of the repetitions alone it would be about 45


def test_cells_that_were_measured_block_by_block_are_resampled_together():
    # The machine gets slower from block to block, for both alike.
    fast, slow = values(6, 2, drift=0.1), values(6, 2, drift=0.1, slow=2.0)
    paired = ratio(slow, fast, confidence=0.95, seed=0)
    moved = {Pair((place.session[0] + 1, place.session[1]), 0): v for place, v in fast.items()}
    apart = ratio(slow, moved, confidence=0.95, seed=0)
    assert paired.paired
    assert 1.9 < paired.low <= paired.ratio <= paired.high < 2.1
    assert apart.high - apart.low > 3 * (paired.high - paired.low)


def test_repetitions_of_a_block_are_drawn_together_as_well():
    # Within each block both get slower alike.
    places = [Pair((block, 4 * block + number), 0) for block in range(6) for number in range(4)]
    base = {place: 1 + 0.2 * (place.session[1] % 4) for place in places}
    found = ratio({p: 2 * v for p, v in base.items()}, base, confidence=0.95, seed=0)
    assert (found.low, found.high) == pytest.approx((2.0, 2.0))


def test_a_side_of_one_process_can_be_held_against_one_of_several():
    found = ratio(values(1, 8, slow=2.0), values(4, 2), confidence=0.95, seed=0)
    assert not found.paired
    assert found.low < 2.0 < found.high


def test_the_jobs_of_a_cell_are_its_processes_and_their_repetitions_count_on(tmp_path):
    (cell,) = build(tmp_path, *blocks(4)).cells
    figure = cell.figures["latency_s"]
    assert (figure.count, figure.sessions, figure.processes) == (8, 8, 4)
    assert (cell.repeats.made, cell.repeats.processes) == (8, 4)


def test_few_processes_say_how_sure_they_are_and_enough_do_not(tmp_path):
    assert sure_of(4) == 0.875
    (few,) = notes(build(tmp_path, *blocks(4)))
    assert few.startswith("4 processes of the engine; where these differ more")
    assert "sure to 88% only, not to 95%" in few
    (tmp_path / "more").mkdir()
    assert notes(build(tmp_path / "more", *blocks(6, 1))) == ["6 processes of the engine"]


def legend_of(report):
    return " ".join(legend(report))


def test_one_run_of_the_engine_is_remarked_only_where_it_is_one(tmp_path):
    for name in ("one", "several", "both", "cold"):
        (tmp_path / name).mkdir()
    one = legend_of(build(tmp_path / "one", *blocks(1, 8)))
    assert "A warm cell is one run of its engine" in one
    assert "resample these processes" not in one
    several = legend_of(build(tmp_path / "several", *blocks(4)))
    assert "one run of its engine" not in several
    assert "resample these processes" in several
    mixed = [*blocks(4), FakeJob(number=9, quantization="Q8_0").trial("single")]
    assert "A warm cell of one job is one run" in legend_of(build(tmp_path / "both", *mixed))
    cold = coldstarts(FakeJob(), "start", load_s=1.0, cached=0)
    assert "one run of its engine" not in legend_of(build(tmp_path / "cold", cold))


@pytest.mark.parametrize(
    ("repetitions", "reached"),
    [(8, "8 repetitions: ±0.8% of the latency, asked for ±5.0%"), (3, "it needs 6")],
)
def test_adaptive_repetitions_tell_how_many_they_were_and_what_they_reached(
    tmp_path, repetitions, reached
):
    (job,) = blocks(1, repetitions)
    asked = workload(
        "single", "single", repetitions=50, adaptive=Adaptive(half_width_percent=5, min=3)
    )
    report = build(tmp_path, job, plan=[planned(job, asked)])
    (cell,) = report.cells
    assert (cell.repeats.made, cell.repeats.most, cell.repeats.target) == (repetitions, 50, 0.05)
    assert reached in " ".join(notes(report))
    half = cell.figures["latency_s"].relative_half_width
    assert cell.repeats.reached == half


def test_fixed_repetitions_have_no_target(tmp_path):
    report = build(tmp_path, *blocks(1, 8))
    assert report.cells[0].repeats.target is None
    assert notes(report) == []


@pytest.mark.parametrize(("quantile", "least"), [(0.5, 6), (0.95, 59), (0.05, 59), (0.9, 29)])
def test_a_rarer_quantile_needs_more_sessions(quantile, least):
    assert min_sessions(0.95, quantile) == least
    assert 1 - quantile**least - (1 - quantile) ** least >= 0.95
    assert 1 - quantile ** (least - 1) - (1 - quantile) ** (least - 1) < 0.95


def test_another_quantile_than_the_median_can_be_estimated():
    few = estimate(values(1, 21), confidence=0.95, seed=0, quantile=0.95)
    many = estimate(values(1, 80), confidence=0.95, seed=0, quantile=0.95)
    assert few.low is None
    assert 1.0 < many.low <= many.median <= many.high <= 1.01


def test_each_attempt_of_a_job_is_a_process_of_the_engine(tmp_path):
    job = FakeJob()
    for repetition in range(8):
        job.trial("single", repetition, attempt=1 if repetition < 5 else 2)
    (cell,) = build(tmp_path, job).cells
    assert (cell.repeats.made, cell.repeats.processes) == (8, 2)
    assert cell.figures["latency_s"].processes == 2


def test_a_session_that_an_interruption_cut_in_two_has_no_length(tmp_path):
    job = FakeJob()
    for repetition in range(2):
        for prompt in range(2):
            job.trial("multi", repetition, prompt, attempt=1 + repetition * prompt)
    (cell,) = build(tmp_path, job).cells
    assert (cell.figures["session_latency_s"].count, cell.figures["latency_s"].count) == (1, 4)
    assert cell.repeats.made == 2


def test_blocks_of_which_one_began_in_a_second_attempt_are_still_held_side_by_side(tmp_path):
    fast, slow = blocks(3), blocks(3, quantization="Q8_0")
    for number, job in enumerate(slow):
        job.number = 10 + number
        job.records[:] = [
            one.model_copy(update={"job_id": job.job_id, "attempt": 1 + number % 2})
            for one in job.records
        ]
    report = build(tmp_path, *fast, *slow)
    (versus,) = [cell.versus for cell in report.cells if cell.versus is not None]
    assert versus.comparisons["latency_s"].gain.paired


@pytest.mark.parametrize(("asked_percent", "target"), [(5, 0.05), (80, None)])
def test_of_blocks_the_target_of_the_file_is_told_and_not_that_of_a_block(
    tmp_path, asked_percent, target
):
    whole = workload(
        "single",
        "single",
        repetitions=24,
        adaptive=Adaptive(half_width_percent=asked_percent, min=3),
    )
    parts = split(CampaignCell("xllamacpp", MODEL, {}, (whole,)), 4)
    jobs = blocks(4)
    plan = [planned(job, *part.workloads) for job, part in zip(jobs, parts, strict=True)]
    (cell,) = build(tmp_path, *jobs, plan=plan).cells
    assert cell.repeats.target == target


def test_the_legend_says_that_intervals_of_few_repetitions_are_a_little_narrow(tmp_path):
    for name in ("few", "enough", "none"):
        (tmp_path / name).mkdir()
    words = "in about 93 of 100 cases"
    assert words in legend_of(build(tmp_path / "few", *blocks(1, 8)))
    assert words not in legend_of(build(tmp_path / "enough", *blocks(1, 21)))
    assert words not in legend_of(build(tmp_path / "none", *blocks(1, 5)))


def test_processes_that_are_the_same_ones_are_drawn_on_both_sides_together():
    # Soaks differ much from one another, and each keeps the same share of its own speed.
    over = {Pair((soak, n), 0): 0.8 * (1 + soak) for soak in range(6) for n in range(9)}
    under = {Pair((soak, n), 0): 1.0 + soak for soak in range(6) for n in range(9, 12)}
    same = ratio(over, under, confidence=0.95, seed=0, same_processes=True)
    apart = ratio(over, under, confidence=0.95, seed=0)
    assert (same.low, same.high, same.paired) == (pytest.approx(0.8), pytest.approx(0.8), False)
    assert apart.high - apart.low > 0.5
