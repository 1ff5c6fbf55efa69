"""Campaigns and jobs on disk: the state machine holds, and several processes may write at once."""

import sys
from contextlib import ExitStack
from subprocess import PIPE, Popen

import pytest

from fakes.fake_fleet import START_NS, FakeDevice, FakeWorld, make_campaign
from fleetmark_collector.campaigns.plan import make_plan
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.campaigns.tables import CampaignState, derive
from fleetmark_collector.sqlitefile import connect
from fleetmark_protocol.errors import ConfigError, StoreError
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.records import Failure

J = JobState


@pytest.fixture
def store(tmp_path):
    store = CampaignStore(tmp_path / "state.db", lambda: START_NS)
    campaign = make_campaign(tmp_path)
    store.create(campaign, make_plan(campaign, "c1", [FakeDevice("pi")]))
    yield store
    store.close()


def job_ids(store, campaign_id="c1"):
    return [job.job_id for job in store.jobs(campaign_id)]


def test_a_campaign_is_kept_with_its_file_and_its_jobs_in_order(store, tmp_path):
    row = store.campaign("c1")
    assert (row.state, row.created_ns, row.campaign_s) == (CampaignState.RUNNING, START_NS, 86400)
    assert store.file_text("c1") == (tmp_path / "campaign.yaml").read_text()
    assert job_ids(store) == [f"c1.pi.{n:03d}" for n in (1, 2, 3, 4)]
    assert {job.state for job in store.jobs("c1")} == {J.QUEUED}
    assert {job.trials_planned for job in store.jobs("c1")} == {3}
    assert store.spec("c1.pi.002").job_id == "c1.pi.002"


def test_another_process_sees_it_at_once_and_after_a_restart(store, tmp_path):
    other = CampaignStore(tmp_path / "state.db")
    assert other.campaigns() == store.campaigns()
    store.set_job_state("c1.pi.001", J.IN_PROGRESS, attempt=1)
    assert other.jobs("c1")[0].state is J.IN_PROGRESS
    other.close()


def test_an_id_is_used_once(store, tmp_path):
    campaign = make_campaign(tmp_path)
    with pytest.raises(ConfigError, match="exists already"):
        store.create(campaign, make_plan(campaign, "c1", [FakeDevice("pi")]))


def test_a_plan_with_problems_is_not_kept(tmp_path):
    store = CampaignStore(tmp_path / "state.db")
    campaign = make_campaign(tmp_path)
    with pytest.raises(ConfigError, match="no devices"):
        store.create(campaign, make_plan(campaign, "c1", []))
    assert store.campaigns() == []
    store.close()


def test_an_unknown_campaign_is_told_with_the_nearest(store):
    with pytest.raises(ConfigError, match="did you mean 'c1'"):
        store.campaign("c11")


def test_a_job_moves_as_the_protocol_says(store):
    assert store.set_job_state("c1.pi.001", J.IN_PROGRESS, attempt=1)
    assert not store.set_job_state("c1.pi.001", J.IN_PROGRESS, attempt=1)
    assert store.set_job_state("c1.pi.001", J.IN_PROGRESS, attempt=2)
    assert not store.set_job_state("c1.pi.001", J.REJECTED)
    failure = Failure(code="BACKEND", message="no")
    assert store.set_job_state("c1.pi.001", J.FAILED, failure=failure, trials_recorded=2)
    job = store.jobs("c1")[0]
    assert (job.state, job.attempt, job.failure, job.trials_recorded) == (J.FAILED, 2, failure, 2)


@pytest.mark.parametrize("end", [state for state in J if state.terminal])
def test_a_terminal_state_never_changes(store, end):
    assert store.set_job_state("c1.pi.001", end)
    for other in J:
        assert not store.set_job_state("c1.pi.001", other, attempt=9)
    assert (store.jobs("c1")[0].state, store.jobs("c1")[0].attempt) == (end, 0)


def test_the_last_word_may_overtake_the_first(store):
    assert store.set_job_state("c1.pi.001", J.SUCCEEDED, attempt=1, trials_recorded=3)
    assert not store.set_job_state("c1.pi.001", J.IN_PROGRESS, attempt=1)


def test_a_job_that_is_not_there_is_an_error(store):
    with pytest.raises(StoreError):
        store.set_job_state("c1.pi.099", J.FAILED)
    with pytest.raises(StoreError):
        store.spec("c1.pi.099")


@pytest.mark.parametrize(
    ("states", "reason", "expected"),
    [
        ([J.SUCCEEDED, J.QUEUED], None, "RUNNING"),
        ([J.FAILED, J.IN_PROGRESS], "cancel", "RUNNING"),
        ([J.SUCCEEDED, J.SUCCEEDED], None, "SUCCEEDED"),
        ([J.SUCCEEDED, J.SUCCEEDED], "cancel", "SUCCEEDED"),
        ([J.SUCCEEDED, J.REJECTED], None, "FAILED"),
        ([J.SUCCEEDED, J.TIMED_OUT], None, "FAILED"),
        ([J.SUCCEEDED, J.CANCELED], "cancel", "CANCELED"),
        ([J.FAILED, J.SUCCEEDED], "cancel", "FAILED"),
        ([J.CANCELED, J.SUCCEEDED], None, "FAILED"),
        ([J.CANCELED, J.SUCCEEDED], "timeout", "TIMED_OUT"),
        ([J.TIMED_OUT, J.SUCCEEDED], "timeout", "TIMED_OUT"),
    ],
)
def test_a_campaigns_state_follows_from_its_jobs(states, reason, expected):
    assert derive(states, reason) == expected


def test_the_campaign_ends_with_its_last_job(store):
    for job_id in job_ids(store):
        assert store.campaign("c1").state is CampaignState.RUNNING
        store.set_job_state(job_id, J.SUCCEEDED)
    row = store.campaign("c1")
    assert (row.state, row.finished_ns) == (CampaignState.SUCCEEDED, START_NS)


def test_canceling_ends_at_once_what_was_never_sent(store):
    assert store.assign("c1.pi.001")
    row = store.request_cancel("c1")
    assert (row.state, row.stop_reason) == (CampaignState.RUNNING, "cancel")
    assert [job.state for job in store.jobs("c1")] == [J.QUEUED] + [J.CANCELED] * 3
    assert not store.assign("c1.pi.002")
    store.set_job_state("c1.pi.001", J.CANCELED)
    assert store.campaign("c1").state is CampaignState.CANCELED


def test_canceling_before_anything_was_sent_ends_the_campaign(store):
    assert store.request_cancel("c1").state is CampaignState.CANCELED


def test_canceling_a_campaign_that_has_ended_changes_nothing(store):
    for job_id in job_ids(store):
        store.set_job_state(job_id, J.SUCCEEDED)
    before = store.campaign("c1")
    assert store.request_cancel("c1") == before


def test_the_first_reason_to_stop_stays(store):
    store.assign("c1.pi.001")
    store.stop("c1", "timeout")
    assert store.request_cancel("c1").stop_reason == "timeout"


def test_a_job_is_sent_once(store):
    assert store.assign("c1.pi.001")
    assert not store.assign("c1.pi.001")


def test_a_file_of_another_version_is_refused(tmp_path):
    file = tmp_path / "state.db"
    CampaignStore(file).close()
    db = connect(file, "rwc")
    db.execute("UPDATE campaign_schema SET version = 99")
    db.close()
    with pytest.raises(StoreError, match="schema 99"):
        CampaignStore(file)


def test_a_file_that_is_no_database_is_refused(tmp_path):
    file = tmp_path / "state.db"
    file.write_text("not a database, but long enough to look like a file of one" * 20)
    with pytest.raises(StoreError):
        CampaignStore(file)


ASSIGN_ALL = """
import sys
from pathlib import Path
from fleetmark_collector.campaigns.state import CampaignStore
store = CampaignStore(Path(sys.argv[1]))
jobs = [job.job_id for job in store.jobs("c1")]
print("ready", flush=True)
sys.stdin.readline()
print(*(job for job in jobs if store.assign(job)), flush=True)
store.close()
"""


def test_of_several_processes_exactly_one_sends_each_job(tmp_path):
    world = FakeWorld(tmp_path, FakeDevice("pi-1"), FakeDevice("pi-2"))
    ids = world.submit()
    world.close()
    command = [sys.executable, "-c", ASSIGN_ALL, str(tmp_path / "state.db")]
    with ExitStack() as stack:
        rivals = [
            stack.enter_context(Popen(command, stdin=PIPE, stdout=PIPE, text=True))
            for _ in range(3)
        ]
        # All have read the same jobs as theirs to send before the first of them may begin.
        assert [rival.stdout.readline() for rival in rivals] == ["ready\n"] * 3
        for rival in rivals:
            rival.stdin.write("\n")
            rival.stdin.flush()
        won = [rival.communicate(timeout=60)[0].split() for rival in rivals]
    assert [rival.returncode for rival in rivals] == [0, 0, 0]
    assert sorted(job for some in won for job in some) == sorted(ids)


def test_jobs_are_read_again_once_anybody_has_changed_the_file(store, tmp_path, monkeypatch):
    asked, rows = [], store.file.rows
    monkeypatch.setattr(store.file, "rows", lambda *args: asked.append(args) or rows(*args))
    assert store.jobs("c1") == store.jobs("c1")
    assert len(asked) == 1
    other = CampaignStore(tmp_path / "state.db")
    assert other.assign("c1.pi.001")
    assert store.jobs("c1")[0].assigned_ns is not None
    assert store.assign("c1.pi.002")
    assert store.jobs("c1")[1].assigned_ns is not None
    assert len(asked) == 3
    other.close()
