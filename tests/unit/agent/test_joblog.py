"""The job log: what the device remembers of jobs over restarts."""

import pytest

from fleetmark_agent.database import Database
from fleetmark_agent.joblog import KEPT_TERMINAL_JOBS, JobLog
from fleetmark_protocol.errors import ContractError
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.messages import JobSpec
from fleetmark_protocol.records import JobRecord


def spec(number: int = 0) -> JobSpec:
    return JobSpec.model_validate(
        {
            "job_id": f"c.d.{number:03d}",
            "campaign_id": "c",
            "backend": "xllamacpp",
            "model": {"name": "m", "ref": "path:m.gguf"},
            "workloads": [{"name": "single", "kind": "single", "prompts": ["p"]}],
        }
    )


def final(job: JobSpec, state: JobState = JobState.SUCCEEDED) -> JobRecord:
    return JobRecord(
        time_ns=1, campaign_id="c", job_id=job.job_id, attempt=1, state=state, trials_recorded=2
    )


@pytest.fixture
def joblog(tmp_path):
    return JobLog(Database(tmp_path / "o.db"))


def test_the_same_assignment_twice_is_one_job(joblog):
    first = joblog.accept(spec())
    joblog.begin(first.spec.job_id)
    assert joblog.accept(spec()).state is JobState.IN_PROGRESS
    assert len(joblog.open_jobs()) == 1


def test_open_jobs_come_in_order_of_arrival_but_the_one_begun_first(joblog):
    for number in (2, 0, 1):
        joblog.accept(spec(number))
    joblog.begin("c.d.001")
    assert [e.spec.job_id for e in joblog.open_jobs()] == ["c.d.001", "c.d.002", "c.d.000"]


def test_each_begin_is_another_attempt_and_survives_a_restart(tmp_path):
    database = Database(tmp_path / "o.db")
    JobLog(database).accept(spec())
    assert JobLog(database).begin("c.d.000") == 1
    database.close()
    again = JobLog(Database(tmp_path / "o.db"))
    assert again.begin("c.d.000") == 2
    assert again.open_jobs()[0].attempt == 2


def test_a_terminal_state_never_changes_and_its_record_is_kept(joblog):
    joblog.accept(spec())
    joblog.begin("c.d.000")
    joblog.end(final(spec()))
    for state in JobState:
        with pytest.raises(ContractError):
            joblog.end(final(spec(), state))
    with pytest.raises(ContractError):
        joblog.begin("c.d.000")
    entry = joblog.accept(spec())
    assert entry.final == final(spec())
    assert joblog.open_jobs() == []


def test_marked_trials_are_counted_once(joblog):
    joblog.accept(spec())
    for trial in ("t.0", "t.1", "t.0"):
        joblog.mark_trial("c.d.000", trial)
    assert joblog.marked_trials("c.d.000") == {"t.0", "t.1"}
    assert joblog.marked_trials("c.d.001") == set()


def test_only_the_newest_ended_jobs_are_remembered(joblog):
    for number in range(KEPT_TERMINAL_JOBS + 5):
        joblog.accept(spec(number))
        joblog.begin(spec(number).job_id)
        joblog.mark_trial(spec(number).job_id, "t")
        joblog.end(final(spec(number)))
    assert len(joblog.known()) == KEPT_TERMINAL_JOBS
    assert joblog.get("c.d.000") is None
    assert joblog.marked_trials("c.d.000") == set()
    assert joblog.get(spec(KEPT_TERMINAL_JOBS + 4).job_id) is not None
