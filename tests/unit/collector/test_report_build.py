import pytest

from fakes.fake_campaign import CAMPAIGN, FakeJob, digest, failure, store, usual_jobs
from fleetmark_collector.report.build import build_report
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.jobs import JobState


def build(tmp_path, *jobs, **how):
    reader = store(tmp_path, *jobs)
    try:
        return build_report(reader, CAMPAIGN, **how)
    finally:
        reader.close()


def cell(report, label, workload="single"):
    (found,) = [c for c in report.cells if label in c.label and c.cell.workload == workload]
    return found


def findings(report, workload="single", device=None):
    return [f.text for f in report.findings if (f.workload, f.device) == (workload, device)]


def test_an_unknown_campaign_is_the_users_mistake_and_the_known_ones_are_listed(tmp_path):
    reader = store(tmp_path, FakeJob().trial())
    with pytest.raises(ConfigError, match=r"no campaign 'nope'.*known: one, two"):
        build_report(reader, "nope", known_campaigns=["one", "two"])
    reader.close()


@pytest.mark.parametrize("confidence", [0, 0.4, 1, 95])
def test_a_confidence_that_is_none_is_refused(tmp_path, confidence):
    with pytest.raises(ConfigError, match=r"between 0\.5 and 0\.999"):
        build(tmp_path, FakeJob().trial(), confidence=confidence)


def test_the_same_records_and_seed_give_the_same_report(tmp_path):
    reader = store(tmp_path, *usual_jobs())
    assert build_report(reader, CAMPAIGN, seed=3) == build_report(reader, CAMPAIGN, seed=3)
    reader.close()


def test_cells_are_shown_by_device_and_the_least_compressed_first(tmp_path):
    report = build(tmp_path, *usual_jobs())
    assert [c.label for c in report.cells if c.cell.workload == "single"] == [
        "ec2-1/xllamacpp/tiny/Q8_0/threads=2",
        "ec2-1/xllamacpp/tiny/Q4_0/threads=2",
        "pi-1/xllamacpp/tiny/Q8_0/threads=2",
        "pi-1/xllamacpp/tiny/Q4_0/threads=2",
    ]


def test_short_labels_hold_what_differs_and_the_rest_is_said_once(tmp_path):
    report = build(tmp_path, *usual_jobs())
    assert cell(report, "pi-1/xllamacpp/tiny/Q4_0").short == "pi-1/Q4_0"
    assert report.common == ("backend xllamacpp", "model tiny", "threads=2")


def test_devices_of_the_same_name_in_two_fleets_are_told_apart(tmp_path):
    report = build(tmp_path, FakeJob(fleet="lab").trial(), FakeJob(fleet="field").trial())
    assert [c.label.split("/")[:2] for c in report.cells] == [["field", "pi-1"], ["lab", "pi-1"]]


def test_the_default_baseline_is_one_that_others_can_be_compared_with(tmp_path):
    odd = FakeJob(device="aaa", number=9).trial("single", output_tokens=5)
    report = build(tmp_path, odd, *usual_jobs())
    assert report.baseline == "ec2-1/xllamacpp/tiny/Q8_0/threads=2"


def test_the_default_baseline_is_never_a_cell_without_usable_trials(tmp_path):
    report = build(tmp_path, FakeJob(device="aaa").trial(verdict="INVALID"), FakeJob().trial())
    assert report.baseline == "pi-1/xllamacpp/tiny/Q4_0/threads=2"


@pytest.mark.parametrize("wanted", ["pi-1/xllamacpp/tiny/Q4_0/threads=2", "PI-1/xllamacpp/tiny/q4"])
def test_a_baseline_is_chosen_by_a_unique_part_of_its_label(tmp_path, wanted):
    report = build(tmp_path, *usual_jobs(), baseline=wanted)
    assert report.baseline == "pi-1/xllamacpp/tiny/Q4_0/threads=2"
    assert cell(report, "pi-1/xllamacpp/tiny/Q4_0").is_baseline
    assert cell(report, "ec2-1/xllamacpp/tiny/Q4_0").versus.comparisons[
        "latency_s"
    ].gain.ratio == pytest.approx(3, rel=0.05)


def test_a_label_that_is_part_of_another_can_be_chosen_in_full(tmp_path):
    jobs = [FakeJob(number=n, options={"threads": t}).trial() for n, t in ((1, 2), (2, 22))]
    assert build(tmp_path, *jobs, baseline="pi-1/xllamacpp/tiny/Q4_0/threads=2").baseline


@pytest.mark.parametrize(
    ("wanted", "problem", "candidates"), [("Q4_0", "more than one", 2), ("Q9", "no cell", 4)]
)
def test_a_baseline_that_is_not_unique_is_refused_and_candidates_listed(
    tmp_path, wanted, problem, candidates
):
    with pytest.raises(ConfigError, match=problem) as error:
        build(tmp_path, *usual_jobs(), baseline=wanted)
    assert str(error.value).count("\n") == candidates


def test_a_workload_that_the_baseline_lacks_has_no_speed_ups(tmp_path):
    report = build(tmp_path, FakeJob().trial("single"), FakeJob(number=2, quantization="Q8_0")
                   .trial("single").trial("multi"), baseline="Q4_0")  # fmt: skip
    assert cell(report, "Q8_0", "multi").versus is None
    assert cell(report, "Q8_0", "single").versus is not None


@pytest.mark.parametrize(
    ("job", "problem"),
    [
        (
            FakeJob().trial(verdict="INVALID", verdict_reasons=("THROTTLED", "SWAPPED")),
            "all 1 trials left out: SWAPPED (1), THROTTLED (1)",
        ),
        (FakeJob().trial(failure=failure("OUT_OF_MEMORY")), "all 1 trials left out: OUT_OF_MEMORY"),
        (
            FakeJob().load(load_s=None, failure=failure()).job(JobState.FAILED, failure=failure()),
            "FAILED: OUT_OF_MEMORY",
        ),
        (FakeJob().load(load_s=None, failure=failure()), "load failed: OUT_OF_MEMORY"),
        (FakeJob().load().job(JobState.IN_PROGRESS), "no result yet"),
        (FakeJob().load().job(JobState.CANCELED), "no trial recorded (CANCELED)"),
        (FakeJob().trial(warmup=True).job(JobState.IN_PROGRESS), "no result yet"),
    ],
)
def test_a_cell_without_usable_trials_is_shown_with_the_reason(tmp_path, job, problem):
    report = build(tmp_path, job)
    assert report.cells[0].problem.startswith(problem)
    assert "latency_s" not in report.cells[0].figures
    assert report.baseline is None


def test_a_job_that_left_nothing_but_its_refusal_is_among_the_failures(tmp_path):
    job = FakeJob().job(JobState.REJECTED, failure=failure("BACKEND_UNAVAILABLE", "not here"))
    report = build(tmp_path, job)
    (found,) = report.troubles
    assert (found.what, found.code, found.message) == (
        "job REJECTED",
        "BACKEND_UNAVAILABLE",
        "not here",
    )


def test_a_load_failure_that_ended_its_job_is_said_once(tmp_path):
    job = FakeJob().load(load_s=None, failure=failure()).job(JobState.FAILED, failure=failure())
    assert len(build(tmp_path, job).troubles) == 1


def test_failed_trials_are_listed_by_code_with_their_number(tmp_path):
    job = FakeJob().trial("single", 0, failure=failure("BACKEND_TIMEOUT", "slow"))
    job.trial("single", 1, failure=failure("BACKEND_TIMEOUT", "slow")).trial("single", 2)
    (found,) = build(tmp_path, job).troubles
    assert (found.what, found.code, found.count) == ("trial", "BACKEND_TIMEOUT", 2)


def test_verdicts_are_counted_with_their_reasons(tmp_path):
    job = FakeJob().trial("single", warmup=True).trial("single", 0)
    job.trial("single", 1, verdict="SUSPECT", verdict_reasons=("BUSY",))
    job.trial("single", 2, verdict="INVALID", verdict_reasons=("THROTTLED",))
    job.trial("single", 0, attempt=2)
    (found,) = build(tmp_path, job).cells
    counts = found.counts
    assert (counts.valid, counts.suspect, counts.invalid) == (1, 1, 1)
    assert (counts.warmup, counts.superseded) == (1, 1)
    assert (found.left_out, found.suspected) == ({"THROTTLED": 1}, {"BUSY": 1})


def test_progress_counts_distinct_trials_and_finished_jobs(tmp_path):
    done = FakeJob(number=1).trial("single", 0).trial("single", 0, attempt=2)
    done.job(JobState.SUCCEEDED)
    running = FakeJob(number=2, quantization="Q8_0").job(JobState.IN_PROGRESS, trials_planned=9)
    progress = build(tmp_path, done, running.trial()).progress
    assert (progress.jobs_done, progress.jobs) == (1, 2)
    assert (progress.trials, progress.trials_planned) == (2, 10)
    assert not progress.complete


def test_the_fastest_cell_is_named_with_interval_and_distance(tmp_path):
    (text, smallest) = findings(build(tmp_path, *usual_jobs()), device="pi-1")
    assert text.startswith("Fastest: pi-1/Q4_0 (Latency 1.0")
    assert "pi-1/Q8_0 takes 1.39x [1.38-1.41]" in text
    assert smallest.startswith("Smallest: pi-1/Q4_0 (PSS 544.2 MiB [")


def test_a_difference_that_the_figures_do_not_show_is_not_claimed(tmp_path):
    jobs = [FakeJob(number=n, backend=b, seed=n).usual() for n, b in ((1, "one"), (2, "two"))]
    (text, _) = findings(build(tmp_path, *jobs), device="pi-1")
    assert text.startswith("Fastest: no difference shown between ")


def test_too_few_repetitions_make_no_finding_sure(tmp_path):
    jobs = [
        FakeJob(number=n, quantization=q, tpot_s=t).usual(repetitions=3)
        for n, q, t in ((1, "Q4_0", 0.01), (2, "Q8_0", 0.05))
    ]
    report = build(tmp_path, *jobs)
    assert "too few repetitions to be sure" in findings(report, device="pi-1")[0]
    assert any("needs at least 6" in note for note in report.notes)


def test_cells_that_may_not_be_compared_are_in_no_finding_together(tmp_path):
    jobs = [FakeJob(number=1).usual(), FakeJob(number=2, model="other")]
    for repetition in range(8):
        jobs[1].trial("single", repetition, model_origin_sha256=digest("other"))
    assert build(tmp_path, *jobs).findings == ()


def test_two_devices_on_one_machine_are_said_to_be(tmp_path):
    machines = {("lab", "pi-1"): "same", ("lab", "ec2-1"): "same"}
    report = build(tmp_path, *usual_jobs(), machine_ids=machines)
    assert any(note.startswith("ec2-1 and pi-1 are the same machine") for note in report.notes)
    versus = cell(report, "pi-1/xllamacpp/tiny/Q4_0").versus
    assert "on the same machine as the baseline" in versus.notes


def test_provenance_tells_digests_and_bits_per_weight(tmp_path):
    (found,) = build(tmp_path, FakeJob().usual()).provenance
    assert found.bits_per_weight == 4.5
    assert found.model_sha256 == digest("tiny Q4_0")
    assert (found.backend_version, found.model_bytes) == ("1.2.3", 100_000_000)
