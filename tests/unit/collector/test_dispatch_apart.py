"""What is wrong with one campaign, or takes long of one, is no matter for the others."""

import logging

import pytest

from fakes.fake_fleet import CAMPAIGN, FakeDevice, FakeWorld, S
from fleetmark_collector.campaigns.clearing import to_clear
from fleetmark_collector.campaigns.intake import LATE_NS
from fleetmark_collector.campaigns.tables import CampaignState
from fleetmark_protocol.errors import StoreError
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
