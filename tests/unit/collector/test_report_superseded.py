"""What was measured twice counts once: attempts, jobs begun anew, jobs sent in another's place."""

import pytest

from fakes.fake_campaign import CAMPAIGN, FakeJob, failure, store
from fakes.fake_workloads import planned, soak, workload
from fleetmark_collector.report.build import build_report
from fleetmark_collector.report.cells import read_cells
from fleetmark_collector.report.superseded import origin_of, turn_of
from fleetmark_protocol.jobs import JobState


class Successor(FakeJob):
    """A job that was sent in another's place."""

    turn = 1

    @property
    def job_id(self):
        return f"{super().job_id}.r{self.turn}"


def read(tmp_path, *jobs, plan=()):
    reader = store(tmp_path, *jobs)
    try:
        return read_cells(reader, CAMPAIGN, plan)
    finally:
        reader.close()


@pytest.mark.parametrize(
    ("job_id", "origin", "turn"),
    [
        ("study-20261121-220000.pi-1.003", "study-20261121-220000.pi-1.003", 0),
        ("study-20261121-220000.pi-1.003.r1", "study-20261121-220000.pi-1.003", 1),
        ("study-20261121-220000.pi-1.003.r12", "study-20261121-220000.pi-1.003", 12),
        ("bar1.pi-r2.004", "bar1.pi-r2.004", 0),
        ("demo", "demo", 0),
    ],
)
def test_a_successor_is_known_by_the_end_of_its_id(job_id, origin, turn):
    assert (origin_of(job_id), turn_of(job_id)) == (origin, turn)


def test_a_trial_that_a_successor_measured_again_counts_once(tmp_path):
    first = FakeJob().trial("single", 0, latency_s=9.0).trial("single", 1, latency_s=9.1)
    second = Successor().trial("single", 0, latency_s=1.0)
    (cell,), jobs = read(tmp_path, first, second)
    assert sorted(cell.values("latency_s").values()) == [1.0, 9.1]
    assert len(cell.superseded) == 1
    assert [job.replaced for job in jobs] == [True, False]


def test_the_newest_successor_counts_however_many_attempts_the_others_made(tmp_path):
    first = FakeJob().trial("single", 0, attempt=7, latency_s=9.0)
    second = Successor().trial("single", 0, latency_s=2.0)
    third = Successor()
    third.turn = 2
    third.trial("single", 0, latency_s=1.0)
    (cell,), _ = read(tmp_path, first, second, third)
    assert list(cell.values("latency_s").values()) == [1.0]
    assert len(cell.superseded) == 2


def test_jobs_of_one_cell_with_the_same_numbers_are_no_successors_of_one_another(tmp_path):
    one, other = FakeJob(number=1).trial("single", 0), FakeJob(number=2).trial("single", 0)
    (cell,), jobs = read(tmp_path, one, other)
    assert len(cell.values("latency_s")) == 2
    assert not any(job.replaced for job in jobs)


def test_progress_counts_a_job_and_its_successor_as_one(tmp_path):
    first = FakeJob().trial("single", 0).job(JobState.FAILED, failure=failure())
    second = Successor().trial("single", 0).job(JobState.SUCCEEDED)
    reader = store(tmp_path, first, second)
    report = build_report(reader, CAMPAIGN)
    reader.close()
    assert (report.progress.jobs_done, report.progress.jobs) == (1, 1)
    assert report.progress.trials_planned == 1
    assert [one.what for one in report.troubles] == ["job FAILED, run again"]


def test_what_was_planned_for_a_cell_is_planned_once(tmp_path):
    asked = workload("single", "single", repetitions=4, warmup=1)
    first, second = FakeJob().trial("single", 0), Successor().trial("single", 0)
    plan = [planned(first, asked), planned(second, asked)]
    (cell,), _ = read(tmp_path, first, second, plan=plan)
    assert cell.planned == 5


def test_trials_before_a_job_began_anew_count_no_more_measured_again_or_not(tmp_path):
    job = FakeJob().trial("single", 0, latency_s=9.0).trial("single", 1, latency_s=9.1)
    job.trial("single", 0, attempt=2, latency_s=1.0)
    job.job(JobState.SUCCEEDED, attempt=2, since_attempt=2)
    (cell,), _ = read(tmp_path, job)
    assert list(cell.values("latency_s").values()) == [1.0]
    assert len(cell.superseded) == 2


def test_a_soak_that_was_cut_short_is_no_part_of_the_one_that_was_made_instead(tmp_path):
    job = soak(FakeJob(), until_s=700, fast=99.0, slow=99.0)
    soak(job, attempt=2, duration_s=600.0)
    job.job(JobState.SUCCEEDED, attempt=2)
    (cell,), _ = read(tmp_path, job)
    assert {trial.record.attempt for trial in cell.trials} == {2}
    assert len(cell.superseded) == 70
    assert max(cell.values("burst_tps").values()) < 99


@pytest.mark.parametrize("known", ["its job succeeded", "all that was planned is there"])
def test_what_a_failed_job_left_over_counts_no_more_once_its_successor_is_through(tmp_path, known):
    first = FakeJob().trial("single", 0, latency_s=9.0).trial("single", 1, latency_s=9.1)
    second = Successor().trial("single", 0, latency_s=1.0)
    plan = []
    if known == "its job succeeded":
        second.job(JobState.SUCCEEDED)
    else:
        asked = workload("single", "single", repetitions=1, warmup=0)
        plan = [planned(job, asked) for job in (first, second)]
    (cell,), _ = read(tmp_path, first, second, plan=plan)
    assert list(cell.values("latency_s").values()) == [1.0]
    assert len(cell.superseded) == 2


def test_what_is_left_of_another_workload_counts_until_that_one_is_through_too(tmp_path):
    shapes = [workload(name, "single", repetitions=1, warmup=0) for name in ("one", "two")]
    first = FakeJob().trial("one", 0).trial("one", 1).trial("two", 0)
    second = Successor().trial("one", 0)
    plan = [planned(job, *shapes) for job in (first, second)]
    cells, _ = read(tmp_path, first, second, plan=plan)
    assert {cell.workload: len(cell.trials) for cell in cells} == {"one": 1, "two": 1}
