"""What is wrong with one campaign, or takes long of one, is no matter for the others."""

import logging

import pytest

from fakes.fake_fleet import CAMPAIGN, FakeDevice, FakeWorld, S
from fleetmark_collector.campaigns.bounds import MAX_S
from fleetmark_collector.campaigns.clearing import to_clear
from fleetmark_collector.campaigns.intake import LATE_NS, Intake
from fleetmark_collector.campaigns.joining import Joining
from fleetmark_collector.campaigns.rollout import Rollout
from fleetmark_collector.campaigns.tables import CampaignState
from fleetmark_protocol.errors import LeadershipLost, StoreError
from fleetmark_protocol.jobs import JobState

J = JobState


def two(make_world) -> FakeWorld:
    """A world with one campaign for each of two devices."""
    world = make_world(FakeDevice("pi-1"), FakeDevice("pi-2"))
    world.submit("c1", CAMPAIGN.replace("all: true", "devices: [pi-1]"))
    world.submit("c2", CAMPAIGN.replace("all: true", "devices: [pi-2]"))
    return world


def spoil(world: FakeWorld, sql: str) -> None:
    store = world.store()
    with store.file.transaction() as db:
        db.execute(sql)
    store.close()


@pytest.mark.parametrize(
    "sql",
    [
        """UPDATE campaigns SET policy = '{"of_the_future": 1}' WHERE campaign_id = 'c1'""",
        "UPDATE campaigns SET state = 'PENDING' WHERE campaign_id = 'c1'",
        "UPDATE jobs SET state = 'PENDING' WHERE job_id = 'c1.pi-1.001'",
        "UPDATE jobs SET failure = '{}' WHERE job_id = 'c1.pi-1.001'",
        "UPDATE jobs SET spec = '{}' WHERE job_id = 'c1.pi-1.001'",
    ],
)
def test_a_row_that_cannot_be_read_stops_its_campaign_alone_and_is_told_once(
    make_world, caplog, sql
):
    world = two(make_world)
    spoil(world, sql)
    with caplog.at_level(logging.ERROR):
        for _ in range(40):
            world.step()
    assert world.campaign("c2").state is CampaignState.SUCCEEDED
    (told,) = [one for one in caplog.records if one.getMessage().startswith("left_out")]
    assert "c1" in told.values["reason"]


def test_the_error_of_a_row_that_cannot_be_read_names_the_campaign(make_world):
    world = two(make_world)
    spoil(world, """UPDATE campaigns SET policy = '{"of_the_future": 1}'""")
    with pytest.raises(StoreError, match="campaign c2: this version cannot read"):
        world.campaign("c2")


def test_a_report_that_cannot_be_read_stops_the_intake_of_its_campaign_alone(
    make_world, monkeypatch
):
    world = two(make_world)
    read = world.reader.job_records

    def of_the_future(campaign_id):
        if campaign_id == "c1":
            raise StoreError("a stored record cannot be read by this version")
        return read(campaign_id)

    monkeypatch.setattr(world.reader, "job_records", of_the_future)
    for _ in range(40):
        world.step()
    assert world.campaign("c2").state is CampaignState.SUCCEEDED
    first = world.jobs("c1")["pi-1.001"]
    assert (first.state, first.assigned_ns is not None) == (J.QUEUED, True)


def test_what_is_said_of_a_campaign_that_has_ended_is_looked_at_now_and_then(
    make_world, monkeypatch
):
    world = make_world(FakeDevice("pi-1"))
    world.submit()
    for _ in range(30):
        world.step()
    assert world.campaign().state is CampaignState.SUCCEEDED
    asked, read = [], world.reader.job_records
    monkeypatch.setattr(world.reader, "job_records", lambda one: asked.append(one) or read(one))
    for _ in range(2 * LATE_NS // S):
        world.step()
    assert len(asked) == 2


def test_a_reconnect_clears_again_what_was_cleared_of_late_and_that_ends(make_world):
    world = make_world(FakeDevice("pi-1"))
    world.submit()
    for _ in range(30):
        world.step()
    before = [job.cleared_ns for job in world.jobs().values()]
    cleared = []
    for _ in range(4):
        world.now_ns += 1700 * S
        world.dispatcher.on_connect()
        sent = len(world.sent)
        world.dispatcher.tick()
        cleared.append(len(world.sent) - sent)
    assert cleared == [4, 4, 0, 0]
    assert [job.cleared_ns for job in world.jobs().values()] == before


def test_a_reconnect_whose_look_fails_is_made_up_for(make_world, monkeypatch):
    world = make_world(FakeDevice("pi-1"))
    world.submit()
    for _ in range(30):
        world.step()
    with monkeypatch.context() as patch:
        patch.setattr(world, "list", lambda: (_ for _ in ()).throw(StoreError("damaged")))
        for _ in range(2):
            world.dispatcher.on_connect()
            with pytest.raises(StoreError):
                world.dispatcher.tick()
            world.now_ns += 3700 * S
    sent = len(world.sent)
    world.dispatcher.tick()
    assert len(world.sent) == sent + 4


def test_what_is_looked_for_at_each_tick_is_found_without_reading_all_jobs(make_world):
    world = make_world(FakeDevice("pi-1"))
    world.submit()
    store = world.store()
    plans: list[str] = []
    rows = store.file.rows

    def explained(sql, args=()):
        plans.extend(row[3] for row in rows(f"EXPLAIN QUERY PLAN {sql}", args))
        return rows(sql, args)

    store.file.rows = explained
    to_clear(store.file, 0)
    store.close()
    looks = [one for one in plans if one.startswith(("SCAN", "SEARCH"))]
    assert ["jobs_to_clear" in looks[0], "jobs_cleared" in looks[1]] == [True, True]
    assert looks[1].startswith("SEARCH")


def told_of(caplog) -> list[dict]:
    found = [one for one in caplog.records if one.getMessage().startswith("left_out")]
    return [{**one.values, "traced": bool(one.exc_info)} for one in found]


@pytest.mark.parametrize("step", ["take_in", "join", "due"])
def test_a_campaign_whose_turn_fails_in_any_way_is_left_out_and_named(
    make_world, monkeypatch, caplog, step
):
    world = make_world(FakeDevice("pi-1"), FakeDevice("pi-2"))
    slow = "rollout: {jobs_per_minute: 60}\n"
    world.submit("c1", CAMPAIGN.replace("all: true", "devices: [pi-1]") + slow)
    world.submit("c2", CAMPAIGN.replace("all: true", "devices: [pi-2]"))

    def beyond(*_):
        raise OverflowError("Python int too large")

    def of_first(real):
        return lambda one, campaign, *more: (
            beyond() if campaign.campaign_id == "c1" else real(one, campaign, *more)
        )

    if step == "take_in":
        monkeypatch.setattr(Intake, step, of_first(Intake.take_in))
    elif step == "join":
        monkeypatch.setattr(Joining, step, of_first(Joining.join))
    else:
        monkeypatch.setattr(Rollout, step, beyond)
    with caplog.at_level(logging.ERROR):
        for _ in range(40):
            world.step()
    assert world.campaign("c2").state is CampaignState.SUCCEEDED
    (told,) = told_of(caplog)
    assert told["what"] == "campaign c1"
    assert told["reason"] == "campaign c1: OverflowError: Python int too large"
    assert told["traced"]


def test_who_leads_no_more_is_no_trouble_of_one_campaign(make_world, monkeypatch):
    world = two(make_world)

    def lost(*_):
        raise LeadershipLost("another one leads")

    monkeypatch.setattr(Intake, "take_in", lost)
    with pytest.raises(LeadershipLost):
        world.step()


def test_a_time_limit_that_an_older_version_took_holds_nothing_up(make_world, caplog):
    world = two(make_world)
    spoil(world, "UPDATE campaigns SET campaign_s = 1e300 WHERE campaign_id = 'c1'")
    with caplog.at_level(logging.ERROR):
        for _ in range(40):
            world.step()
    first = world.campaign("c1")
    assert first.state is CampaignState.SUCCEEDED
    assert first.deadline_ns(world.now_ns) == first.created_ns + int(MAX_S) * S
    assert told_of(caplog) == []


@pytest.mark.parametrize(
    "policy",
    [
        '{"retries": {"max": 1, "backoff_s": 8e9, "backoff_max_s": 8e9, "on": ["FAILED"]}}',
        '{"rollout": {"jobs_per_minute": 1e-300, "devices_at_once": 1000000000000000000000000}}',
        '{"abort": [{"share_percent": 50, "after_devices": 1000000000000000000000000}]}',
    ],
)
def test_numbers_that_an_older_version_took_stop_nothing(make_world, caplog, policy):
    world = two(make_world)
    world.devices[0].ends["001"] = J.FAILED
    spoil(world, f"UPDATE campaigns SET policy = '{policy}' WHERE campaign_id = 'c1'")
    with caplog.at_level(logging.ERROR):
        for _ in range(40):
            world.step()
    assert world.campaign("c2").state is CampaignState.SUCCEEDED
    assert world.jobs("c1")["pi-1.001"].state is J.FAILED
    assert told_of(caplog) == []
