"""The job log: what the device remembers of jobs over restarts."""

import pytest

from fleetmark_agent.adaptive import Outcome
from fleetmark_agent.course import Past
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


def test_no_number_of_an_attempt_is_given_again_by_a_device_that_has_forgotten(joblog):
    assert joblog.accept(spec(), attempts_begun=3).attempts_before == 3
    assert joblog.begin("c.d.000") == 4
    # The centre says again what it has heard of, which is ours.
    entry = joblog.accept(spec(), attempts_begun=4)
    assert (entry.attempt, entry.attempts_before, entry.attempts_heard) == (4, 3, 4)
    assert joblog.begin("c.d.000") == 5
    assert joblog.accept(spec(), attempts_begun=1).attempts_heard == 4


def test_what_the_centre_has_heard_counts_even_if_it_comes_late(joblog):
    joblog.accept(spec())
    assert joblog.begin("c.d.000") == 1
    entry = joblog.accept(spec(), attempts_begun=6)
    assert (entry.attempt, entry.attempts_before) == (1, 0), "the one under way keeps its number"
    assert joblog.begin("c.d.000") == 7
    assert joblog.accept(spec(1)).attempts_heard == 0


@pytest.mark.parametrize(
    ("resume", "before", "begun", "since"),
    [(True, 0, 2, None), (True, 3, 2, 4), ("restart", 0, 1, None), ("restart", 3, 2, 5)],
)
def test_trials_count_from_the_attempt_that_began_the_job_here(
    joblog, resume, before, begun, since
):
    job = spec().model_copy(update={"resume": resume})
    joblog.accept(job, attempts_begun=before)
    for _ in range(begun):
        joblog.begin("c.d.000")
    assert joblog.get("c.d.000").since_attempt == since


def test_what_came_of_trials_is_kept_for_the_next_attempt_and_forgotten_with_the_job(tmp_path):
    database = Database(tmp_path / "o.db")
    joblog = JobLog(database)
    joblog.accept(spec())
    joblog.mark_trial("c.d.000", "t.0")
    known = [Outcome("t.0", 1.5, 2.0), Outcome("t.1", None, 0.5)]
    joblog.note_outcomes("c.d.000", known)
    joblog.note_outcomes("c.d.001", [Outcome("t.0", 9.0, 9.0)])
    joblog.note_outcomes("c.d.001", [])
    database.close()
    past = JobLog(Database(tmp_path / "o.db")).past("c.d.000")
    assert past.done == {"t.0"}
    assert past.outcomes == {one.of: one for one in known}


def test_a_job_that_is_begun_from_its_start_knows_nothing_of_what_came_of_it_before(joblog):
    joblog.accept(spec().model_copy(update={"resume": "restart"}))
    joblog.begin("c.d.000")
    joblog.mark_trial("c.d.000", "t.0")
    joblog.note_outcomes("c.d.000", [Outcome("t.0", 1.5, 2.0)])
    joblog.begin("c.d.000")
    assert joblog.past("c.d.000") == Past()


def test_only_the_newest_ended_jobs_are_remembered(joblog):
    for number in range(KEPT_TERMINAL_JOBS + 5):
        joblog.accept(spec(number), attempts_begun=7)
        joblog.begin(spec(number).job_id)
        joblog.mark_trial(spec(number).job_id, "t")
        joblog.note_outcomes(spec(number).job_id, [Outcome("t", 1.0, 1.0)])
        joblog.end(final(spec(number)))
    assert len(joblog.known()) == KEPT_TERMINAL_JOBS
    assert joblog.get("c.d.000") is None
    assert joblog.past("c.d.000") == Past()
    assert joblog.get(spec(KEPT_TERMINAL_JOBS + 4).job_id) is not None
    assert joblog.accept(spec(0)).attempts_heard == 0


def test_the_job_that_runs_is_known_however_many_have_ended_before(joblog):
    for number in range(KEPT_TERMINAL_JOBS + 1):
        joblog.accept(spec(number))
        joblog.begin(spec(number).job_id)
        if number:
            joblog.end(final(spec(number)))
    joblog.accept(spec(KEPT_TERMINAL_JOBS + 1))
    known = {one.job_id: one.state for one in joblog.known()}
    assert len(known) == KEPT_TERMINAL_JOBS + 2
    assert known["c.d.000"] is JobState.IN_PROGRESS
    assert known[f"c.d.{KEPT_TERMINAL_JOBS + 1}"] is JobState.QUEUED


def test_what_has_ended_is_not_read_where_only_open_jobs_are_asked_for(joblog, monkeypatch):
    for number in range(3):
        joblog.accept(spec(number))
    joblog.begin("c.d.001")
    joblog.end(final(spec(1)))
    read = []
    parse = JobSpec.model_validate_json
    monkeypatch.setattr(
        JobSpec, "model_validate_json", lambda text: read.append(text) or parse(text)
    )
    assert len(joblog.open_jobs()) == len(read) == 2


def test_what_is_known_of_a_job_names_the_centre_that_gave_it(joblog):
    joblog.accept(spec(0).model_copy(update={"centre": "here"}))
    joblog.accept(spec(1))
    assert [known.centre for known in joblog.known()] == ["here", None]


def test_a_job_that_has_ended_is_kept_without_its_prompts(joblog):
    job = spec()
    work = job.workloads[0].model_copy(update={"prompts": ("x" * 200_000,)})
    long = job.model_copy(update={"workloads": (work, work), "centre": "here"})
    joblog.accept(long)
    assert joblog.open_count() == 1
    assert joblog.get(job.job_id).spec == long
    joblog.end(final(job, JobState.REJECTED))
    entry = joblog.get(job.job_id)
    assert len(entry.spec.model_dump_json()) < 2000
    assert (joblog.open_count(), entry.final) == (0, final(job, JobState.REJECTED))
    assert [known.centre for known in joblog.known()] == ["here"]
