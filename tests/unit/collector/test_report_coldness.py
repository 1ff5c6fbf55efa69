"""Warm and cold in one job: an odd reload, and loads that were made for one request alone."""

import csv

from fakes.fake_campaign import CAMPAIGN, FakeJob, store
from fakes.fake_workloads import coldstarts
from fleetmark_collector.report.build import build_report
from fleetmark_collector.report.export import write_csv
from fleetmark_collector.report.tables import cell_notes
from fleetmark_protocol.jobs import JobState


def build(tmp_path, *jobs):
    reader = store(tmp_path, *jobs)
    try:
        return build_report(reader, CAMPAIGN)
    finally:
        reader.close()


def reloaded(job, repetition):
    """A server had let go of its model, and loaded it within the request."""
    return job.trial(
        "single", repetition, latency_s=None, ttft_s=None, prefill_tps=None, latency_cold_s=9.0
    )


def warm_with_one_reload():
    job = FakeJob().load().trial("single", warmup=True, latency_cold_s=0.9)
    for repetition in range(7):
        job.trial("single", repetition)
    return reloaded(job, 7)


def loads_of(report):
    return {
        cell.cell.workload: sorted(cell.cell.values("load_s").values()) for cell in report.cells
    }


def test_one_reload_leaves_a_warm_cell_warm_and_is_left_out_with_its_reason(tmp_path):
    (cell,) = build(tmp_path, warm_with_one_reload()).cells
    assert not cell.cell.cold
    assert (cell.headline, cell.figures["latency_s"].count) == ("latency_s", 7)
    assert cell.figures["decode_tps"].count == 7
    assert list(cell.cell.values("latency_cold_s").values()) == [0.9]
    assert (cell.counts.valid, cell.counts.invalid) == (7, 1)
    assert "left out 1: load_included (1)" in list(cell_notes(cell, 0.95))


def test_a_trial_that_is_left_out_is_not_counted_in_the_csv(tmp_path):
    write_csv(build(tmp_path, warm_with_one_reload()), tmp_path / "trials.csv")
    with (tmp_path / "trials.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["warmup"] == "false"]
    assert [row["repetition"] for row in rows if row["counted"] == "false"] == ["7"]


def test_a_reload_and_a_warm_cell_are_compared_warm(tmp_path):
    other = FakeJob(number=2, quantization="Q8_0")
    for repetition in range(8):
        other.trial("single", repetition)
    report = build(tmp_path, warm_with_one_reload(), other)
    (versus,) = [cell.versus for cell in report.cells if cell.versus is not None]
    assert versus.not_comparable is None


def test_a_program_that_answers_once_is_cold_in_each_trial(tmp_path):
    job = FakeJob()
    for repetition in range(6):
        reloaded(job, repetition)
    (cell,) = build(tmp_path, job).cells
    assert cell.cell.cold
    assert cell.figures["latency_cold_s"].count == 6
    assert cell.left_out == {}


def test_loads_of_cold_starts_are_not_those_of_the_warm_workloads_of_their_job(tmp_path):
    job = FakeJob().load(load_s=0.5).trial("single", 0)
    for repetition in range(3):
        job.load(load_s=5.0)
        job.trial("start", repetition, workload_kind="coldstart", cold=True, load_s=5.0)
    job.load(load_s=0.6).trial("single", 1)
    assert loads_of(build(tmp_path, job)) == {"single": [0.5, 0.6], "start": [5.0] * 3}


def test_a_load_whose_cold_trial_failed_or_never_came_is_no_warm_one_either(tmp_path):
    job = FakeJob().load(load_s=0.5).trial("single", 0)
    job.load(load_s=5.0).trial(
        "start",
        workload_kind="coldstart",
        cold=True,
        latency_s=None,
        failure={"code": "BACKEND_TIMEOUT", "message": "no answer"},
    )
    job.load(load_s=5.1).job(JobState.FAILED)
    assert loads_of(build(tmp_path, job))["single"] == [0.5]


def test_a_load_that_no_trial_followed_counts_where_nothing_was_cold(tmp_path):
    job = FakeJob().load(load_s=0.5).trial("single", 0).load(load_s=0.6)
    assert loads_of(build(tmp_path, job))["single"] == [0.5, 0.6]


def test_cold_starts_alone_have_the_loads_of_their_trials(tmp_path):
    job = coldstarts(FakeJob(), "start", load_s=1.0, cached=0)
    assert len(loads_of(build(tmp_path, job))["start"]) == 8
