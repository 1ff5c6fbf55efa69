"""A state file of an older fleetmark is brought up to date, with all that is in it."""

from contextlib import closing

import pytest

from fakes.fake_fleet import START_NS, FakeDevice, FakeWorld, make_campaign
from fleetmark_collector.campaigns.plan import make_plan
from fleetmark_collector.campaigns.policy import Policy
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.campaigns.statefile import has_campaigns
from fleetmark_collector.campaigns.tables import CampaignState
from fleetmark_collector.sqlitefile import connect
from fleetmark_protocol.errors import StoreError
from fleetmark_protocol.jobs import JobState

FIRST = """
CREATE TABLE campaign_schema (version INTEGER NOT NULL);
INSERT INTO campaign_schema VALUES (1);
CREATE TABLE campaigns (
    campaign_id TEXT PRIMARY KEY, name TEXT NOT NULL, description TEXT NOT NULL,
    file_name TEXT NOT NULL, file_text TEXT NOT NULL, campaign_s REAL NOT NULL,
    created_ns INTEGER NOT NULL, state TEXT NOT NULL, stop_reason TEXT, stop_ns INTEGER,
    finished_ns INTEGER) WITHOUT ROWID;
CREATE TABLE jobs (
    job_id TEXT PRIMARY KEY, campaign_id TEXT NOT NULL REFERENCES campaigns,
    position INTEGER NOT NULL, fleet TEXT NOT NULL, device TEXT NOT NULL, cell TEXT NOT NULL,
    job_s REAL NOT NULL, trials_planned INTEGER NOT NULL, spec TEXT NOT NULL,
    state TEXT NOT NULL, attempt INTEGER NOT NULL, failure TEXT, trials_recorded INTEGER,
    assigned_ns INTEGER, started_ns INTEGER, cleared_ns INTEGER, updated_ns INTEGER NOT NULL
    ) WITHOUT ROWID;
CREATE INDEX jobs_by_campaign ON jobs (campaign_id, position);
CREATE TABLE late_reports (
    fleet TEXT NOT NULL, device TEXT NOT NULL, epoch TEXT NOT NULL, seq INTEGER NOT NULL,
    job_id TEXT NOT NULL, noted_ns INTEGER NOT NULL, record TEXT NOT NULL,
    PRIMARY KEY (fleet, device, epoch, seq)) WITHOUT ROWID;
INSERT INTO campaigns VALUES
    ('old', 'sizes', '', 'f.yaml', 'version: 1', 60.0, 5, 'RUNNING', NULL, NULL, NULL);
"""
"""As the first version made it, with a campaign of one job under way."""


@pytest.fixture
def old(tmp_path):
    file = tmp_path / "state.db"
    campaign = make_campaign(tmp_path)
    spec = make_plan(campaign, "old", [FakeDevice("pi")]).jobs[0].spec
    with closing(connect(file, "rwc")) as db:
        db.executescript(FIRST)
        db.execute(
            "INSERT INTO jobs VALUES ('old.pi.001', 'old', 0, 'lab', 'pi', 'a cell', 7200.0, 3, ?, "
            "'IN_PROGRESS', 1, NULL, NULL, 6, 7, NULL, 7)",
            (spec.model_dump_json(),),
        )
    return file


def test_campaigns_and_jobs_are_kept_and_go_on(old):
    with closing(CampaignStore(old, lambda: START_NS)) as store:
        (row,) = store.campaigns()
        assert (row.campaign_id, row.state, row.retry_of) == ("old", CampaignState.RUNNING, None)
        (job,) = store.jobs("old")
        assert (job.state, job.attempt, job.retry_of) == (JobState.IN_PROGRESS, 1, None)
        assert store.moves("old") == []
        assert store.set_job_state("old.pi.001", JobState.SUCCEEDED, trials_recorded=3)
        assert [move.state for move in store.moves("old")] == [JobState.SUCCEEDED]
        assert store.campaign("old").state is CampaignState.SUCCEEDED


def test_it_is_done_once_and_others_may_have_the_file_open(old):
    with closing(CampaignStore(old)) as first, closing(CampaignStore(old)) as second:
        assert first.campaigns() == second.campaigns()
    with closing(connect(old, "ro")) as db:
        assert db.execute("SELECT version FROM campaign_schema").fetchall() == [(3,)]


def test_an_update_that_breaks_off_changes_nothing(old, monkeypatch):
    broken = {1: ("ALTER TABLE campaigns ADD COLUMN retry_of TEXT", "no sql")}
    monkeypatch.setattr("fleetmark_collector.campaigns.statefile.MIGRATIONS", broken)
    with pytest.raises(StoreError):
        CampaignStore(old)
    monkeypatch.undo()
    with closing(CampaignStore(old)) as store:
        assert store.campaign("old").retry_of is None


def test_looking_whether_there_are_campaigns_makes_and_changes_nothing(tmp_path, old):
    assert not has_campaigns(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()
    before = old.read_bytes()
    assert has_campaigns(old)
    assert old.read_bytes() == before


def test_every_change_of_a_jobs_state_is_kept(tmp_path):
    world = FakeWorld(tmp_path, FakeDevice("pi", ends={"002": JobState.FAILED}))
    ids = world.submit()
    for _ in range(40):
        world.step()
    store = world.store()
    moves = [(move.job_id, str(move.state)) for move in store.moves("c1")]
    assert [state for job_id, state in moves if job_id == ids[0]] == ["IN_PROGRESS", "SUCCEEDED"]
    assert [state for job_id, state in moves if job_id == ids[1]] == ["IN_PROGRESS", "FAILED"]
    failed = next(move for move in store.moves("c1") if move.state is JobState.FAILED)
    assert (failed.attempt, failed.failure.code) == (1, "BACKEND")
    times = [move.time_ns for move in store.moves("c1")]
    assert times == sorted(times)
    store.close()
    world.close()


def test_what_was_never_sent_and_is_canceled_is_kept_as_such(tmp_path):
    world = FakeWorld(tmp_path, FakeDevice("pi"))
    ids = world.submit()
    store = world.store()
    store.request_cancel("c1")
    assert [(m.job_id, m.state) for m in store.moves("c1")] == [
        (job_id, JobState.CANCELED) for job_id in ids
    ]
    assert [move.time_ns for move in store.moves("c1")] == [world.now_ns] * 4
    store.close()
    world.close()


SECOND = FIRST.replace("VALUES (1)", "VALUES (2)").replace(
    "'version: 1', 60.0, 5, 'RUNNING', NULL, NULL, NULL)",
    "'version: 1', 60.0, 5, 'RUNNING', NULL, NULL, NULL, 'older')",
)
for last in ("finished_ns INTEGER", "updated_ns INTEGER NOT NULL\n    "):
    SECOND = SECOND.replace(f"{last}) WITHOUT", f"{last}, retry_of TEXT) WITHOUT")


def test_a_file_of_the_second_version_goes_on_without_any_rule(tmp_path):
    file = tmp_path / "state.db"
    spec = make_plan(make_campaign(tmp_path), "old", [FakeDevice("pi")]).jobs[0].spec
    with closing(connect(file, "rwc")) as db:
        db.executescript(SECOND)
        db.execute(
            "INSERT INTO jobs VALUES ('old.pi.001', 'old', 0, 'lab', 'pi', 'a cell', 7200.0, 3, ?, "
            "'IN_PROGRESS', 1, NULL, NULL, 6, 7, NULL, 7, 'older.pi.001')",
            (spec.model_dump_json(),),
        )
    with closing(CampaignStore(file, lambda: START_NS)) as store:
        (row,) = store.campaigns()
        assert (row.retry_of, row.policy, row.selection) == ("older", Policy(), "snapshot")
        assert (row.paused_ns, row.paused_before_ns, row.failure) == (None, 0, None)
        (job,) = store.jobs("old")
        assert (job.retry_of, job.superseded_by, job.retries) == ("older.pi.001", None, 0)
        assert store.set_job_state("old.pi.001", JobState.FAILED)
        assert store.campaign("old").state is CampaignState.FAILED
