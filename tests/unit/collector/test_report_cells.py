import pytest

from fakes.fake_campaign import CAMPAIGN, FakeJob, failure, store
from fleetmark_collector.report.cells import read_cells
from fleetmark_collector.report.jobs import PlannedJob
from fleetmark_collector.report.judged import reasons_of
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.messages import JobSpec, ModelSpec
from fleetmark_protocol.records import Verdict
from fleetmark_protocol.workloads import Workload


def read(tmp_path, *jobs, plan=()):
    reader = store(tmp_path, *jobs)
    try:
        return read_cells(reader, CAMPAIGN, plan)
    finally:
        reader.close()


def planned(job, workloads=None, quantization="Q4_0", **more):
    spec = JobSpec(
        job_id=job.job_id,
        campaign_id=CAMPAIGN,
        backend=job.backend,
        model=ModelSpec(name=job.model, ref="path:tiny.gguf", quantization=quantization),
        labels=job.options,
        workloads=workloads or (Workload(name="single", kind="single", prompts=("a",)),),
    )
    return PlannedJob(job.fleet, job.device, spec, **more)


def test_trials_are_grouped_by_device_backend_model_quantization_options_and_workload(tmp_path):
    cells, _ = read(
        tmp_path,
        FakeJob(number=1).trial("single").trial("multi"),
        FakeJob(number=2, options={"threads": 4}).trial("single"),
        FakeJob(number=3, quantization="Q8_0").trial("single"),
        FakeJob(number=4, backend="llama_cpp").trial("single"),
        FakeJob(number=5, model="other").trial("single"),
        FakeJob(number=1, device="pi-2").trial("single"),
        FakeJob(number=6).trial("single", 1),  # as the first
    )
    sizes = [len(cell.trials) for cell in cells]
    assert len(cells) == 7
    assert sizes == [2, 1, 1, 1, 1, 1, 1]


def test_warm_ups_and_invalid_trials_are_kept_but_not_in_the_figures(tmp_path):
    job = FakeJob().trial("single", warmup=True, latency_s=99)
    job.trial("single", 0, latency_s=1).trial("single", 1, latency_s=2, verdict="SUSPECT")
    job.trial("single", 2, latency_s=99, verdict="INVALID", verdict_reasons=("THROTTLED",))
    (cell,), _ = read(tmp_path, job)
    assert len(cell.trials) == 4
    assert sorted(cell.values("latency_s").values()) == [1, 2]


def test_a_failed_trial_is_invalid_whatever_its_verdict_says(tmp_path):
    (cell,), _ = read(tmp_path, FakeJob().trial(failure=failure("BACKEND_TIMEOUT")))
    assert cell.values("latency_s") == {}
    assert reasons_of(cell.trials, Verdict.INVALID) == {"BACKEND_TIMEOUT": 1}


def test_an_invalid_trial_without_reasons_is_counted_too(tmp_path):
    (cell,), _ = read(tmp_path, FakeJob().trial(verdict="INVALID"))
    assert reasons_of(cell.trials, Verdict.INVALID) == {"no reason given": 1}


def test_a_trial_measured_again_counts_once_as_its_latest_attempt(tmp_path):
    job = FakeJob().trial(attempt=2, latency_s=2).trial(attempt=1, latency_s=1)
    (cell,), _ = read(tmp_path, job)
    assert list(cell.values("latency_s").values()) == [2]
    assert [trial.record.attempt for trial in cell.superseded] == [1]


def test_a_session_is_as_long_as_all_its_prompts_together(tmp_path):
    job = FakeJob()
    for prompt, latency_s in enumerate((1.0, 2.0, 4.0)):
        job.trial("multi", 0, prompt, latency_s=latency_s)
        job.trial("multi", 1, prompt, latency_s=latency_s * 10)
    (cell,), _ = read(tmp_path, job)
    assert sorted(cell.values("session_latency_s").values()) == [7, 70]


@pytest.mark.parametrize(
    "spoiled", [{"verdict": "INVALID"}, {"failure": failure()}, {"latency_s": None}]
)
def test_a_session_with_an_unusable_prompt_has_no_length(tmp_path, spoiled):
    job = FakeJob().trial("multi", 0, 0).trial("multi", 0, 1, **spoiled)
    (cell,), _ = read(tmp_path, job)
    assert cell.values("session_latency_s") == {}


def test_a_session_that_is_still_running_has_no_length_yet(tmp_path):
    job = FakeJob().trial("multi", 0, 0).trial("multi", 0, 1)
    plan = [planned(job, (Workload(name="multi", kind="multi", prompts=("a", "b", "c")),))]
    (cell,), _ = read(tmp_path, job, plan=plan)
    assert cell.values("session_latency_s") == {}
    assert len(cell.values("latency_s")) == 2


def test_a_single_prompt_has_no_session_latency(tmp_path):
    (cell,), _ = read(tmp_path, FakeJob().trial("single"))
    assert cell.values("session_latency_s") == {}


def test_cold_latency_is_taken_from_the_warm_up_because_it_comes_first(tmp_path):
    job = FakeJob().trial(warmup=True, latency_cold_s=3.0).trial("single", 0)
    (cell,), _ = read(tmp_path, job)
    assert list(cell.values("latency_cold_s").values()) == [3.0]


def test_trials_without_energy_do_not_hide_that_of_the_others(tmp_path):
    job = FakeJob().trial("single", 0, energy_j=1.0, energy_source="rapl").trial("single", 1)
    (cell,), _ = read(tmp_path, job)
    assert list(cell.values("energy_j").values()) == [1.0]


def test_energy_of_mixed_sources_in_one_cell_is_not_pooled(tmp_path):
    job = FakeJob().trial("single", 0, energy_j=1.0, energy_source="rapl")
    job.trial("single", 1, energy_j=5.0, energy_source="model")
    (cell,), _ = read(tmp_path, job)
    assert cell.values("energy_j") == {}


def test_loads_are_shared_by_the_workloads_and_failed_ones_give_no_time(tmp_path):
    job = FakeJob().load(load_s=0.5).load(load_s=None, failure=failure()).load(load_s=0.7)
    job.trial("single").trial("multi")
    cells, _ = read(tmp_path, job)
    assert [sorted(cell.values("load_s").values()) for cell in cells] == [[0.5, 0.7]] * 2


def test_a_job_that_failed_at_its_load_is_a_cell_with_nothing_in_it(tmp_path):
    job = FakeJob().load(load_s=None, failure=failure()).job(JobState.FAILED, failure=failure())
    (cell,), (found,) = read(tmp_path, job)
    assert cell.workload == ""
    assert cell.values("latency_s") == cell.values("load_s") == {}
    assert found.failure.code == "OUT_OF_MEMORY"


def test_a_planned_job_without_any_record_is_a_cell_too(tmp_path):
    other = FakeJob(number=2, quantization="Q8_0")
    plan = [planned(other, quantization="Q8_0"), planned(FakeJob())]
    cells, jobs = read(tmp_path, FakeJob().trial(), plan=plan)
    assert [(cell.config.quantization, len(cell.trials)) for cell in cells] == [
        ("Q8_0", 0),
        ("Q4_0", 1),
    ]
    assert [job.state for job in jobs] == [JobState.QUEUED, JobState.QUEUED]
    assert cells[0].planned == 9


def test_what_the_device_says_of_the_quantization_beats_the_plan(tmp_path):
    job = FakeJob(quantization="Q4_1").trial()
    (cell,), _ = read(tmp_path, job, plan=[planned(job, quantization=None)])
    assert cell.config.quantization == "Q4_1"


def test_a_load_that_failed_before_it_knew_the_quantization_keeps_the_planned_one(tmp_path):
    job = FakeJob(quantization=None).load(load_s=None, failure=failure())
    (cell,), _ = read(tmp_path, job, plan=[planned(job, quantization="Q4_0")])
    assert cell.config.quantization == "Q4_0"


def test_a_record_about_another_devices_job_stays_with_the_device_that_sent_it(tmp_path):
    rogue = FakeJob(device="pi-2")
    rogue.trial(job_id=FakeJob(device="pi-1").job_id, latency_s=0.0001)
    cells, _ = read(tmp_path, FakeJob(device="pi-1").trial(latency_s=1.0), rogue)
    assert {cell.config.device: list(cell.values("latency_s").values()) for cell in cells} == {
        "pi-1": [1.0],
        "pi-2": [0.0001],
    }


def test_a_jobs_terminal_state_is_not_undone_by_a_record_that_comes_late(tmp_path):
    job = FakeJob().job(JobState.FAILED, attempt=1).job(JobState.IN_PROGRESS, attempt=2)
    _, (found,) = read(tmp_path, job)
    assert found.state is JobState.FAILED


def test_a_job_is_not_done_while_the_centre_waits_for_its_trials(tmp_path):
    job = FakeJob().trial().job(JobState.SUCCEEDED)
    _, (waiting,) = read(tmp_path, job, plan=[planned(job, state=JobState.IN_PROGRESS)])
    assert waiting.state is JobState.IN_PROGRESS


def test_what_the_centre_decided_of_a_job_counts(tmp_path):
    job = FakeJob().trial().job(JobState.IN_PROGRESS)
    plan = [planned(job, state=JobState.TIMED_OUT, failure=failure("DEVICE_SILENT"))]
    _, (given_up,) = read(tmp_path, job, plan=plan)
    assert (given_up.state, given_up.failure.code) == (JobState.TIMED_OUT, "DEVICE_SILENT")


def test_without_a_plan_jobs_come_in_the_order_of_their_numbers(tmp_path):
    jobs = [FakeJob(number=n, quantization=f"Q{n}_0").trial() for n in (10, 2, 1)]
    _, found = read(tmp_path, *jobs)
    assert [int(job.key.job_id[-3:]) for job in found] == [1, 2, 10]
