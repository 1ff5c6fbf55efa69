"""What an operator does to a campaign under way: pause, resume, cancel by force or one device's."""

import pytest

from fakes.fake_fleet import CAMPAIGN, FakeDevice, FakeWorld, S, make_inventory
from fleetmark_collector.campaigns.steering import (
    cancel_campaign,
    cancel_device,
    pause_campaign,
    recall_job,
    resume_campaign,
)
from fleetmark_collector.campaigns.tables import CampaignState
from fleetmark_protocol import codec
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.messages import Assignment, KnownJob

J = JobState


def steer(world: FakeWorld, change, *args, **fields):
    store = world.store()
    try:
        return change(store.file, "c1", *args, world.now_ns, **fields)
    finally:
        store.close()


def states(world) -> list[JobState]:
    return [job.state for job in world.jobs().values()]


def test_a_paused_campaign_ends_what_runs_and_sends_nothing_until_it_is_resumed(make_world):
    device = FakeDevice("pi-1")
    world = make_world(device)
    world.submit()
    world.step()
    world.step()
    assert steer(world, pause_campaign)
    for _ in range(20):
        world.step()
    assert states(world) == [J.SUCCEEDED, J.QUEUED, J.QUEUED, J.QUEUED]
    assert world.campaign().state is CampaignState.RUNNING
    assert steer(world, resume_campaign)
    for _ in range(30):
        world.step()
    assert world.campaign().state is CampaignState.SUCCEEDED


def test_pausing_and_resuming_twice_changes_nothing(make_world):
    world = make_world(FakeDevice("pi-1"))
    world.submit()
    assert not steer(world, resume_campaign)
    assert steer(world, pause_campaign)
    since = world.campaign().paused_ns
    world.now_ns += S
    assert not steer(world, pause_campaign)
    assert world.campaign().paused_ns == since


def test_paused_time_does_not_count(make_world):
    world = make_world(FakeDevice("pi-1", online=False))
    world.submit(text=f"{CAMPAIGN}timeouts: {{campaign_s: 1000}}\n")
    world.step(100)
    for _ in range(2):
        steer(world, pause_campaign)
        world.step(5000)
        assert world.campaign().stop_reason is None
        steer(world, resume_campaign)
        world.step(100)
    world.step(700)
    assert world.campaign().stop_reason is None
    world.step(1)
    assert world.campaign().stop_reason == "timeout"


def test_a_device_that_is_away_does_not_begin_a_paused_campaigns_job_when_it_is_back(make_world):
    device = FakeDevice("pi-1", online=False)
    world = make_world(device)
    world.submit()
    world.step()
    assert len(world.retained) == 1
    steer(world, pause_campaign)
    world.step()
    assert world.retained == {}
    world.come_online(device)
    for _ in range(3):
        world.step()
    assert device.started == []
    steer(world, resume_campaign)
    for _ in range(40):
        world.step()
    assert world.campaign().state is CampaignState.SUCCEEDED
    assert len(world.jobs()) == 4


def test_a_paused_campaign_can_be_canceled(make_world):
    world = make_world(FakeDevice("pi-1"))
    world.submit()
    steer(world, pause_campaign)
    steer(world, cancel_campaign, force=False)
    assert world.campaign().state is CampaignState.CANCELED
    assert not steer(world, resume_campaign)


# --- by force ----------------------------------------------------------------------------------


def test_by_force_a_campaign_ends_at_once_and_devices_are_told_when_they_can_hear(make_world):
    device = FakeDevice("pi-1")
    world = make_world(device)
    world.submit()
    world.step()
    world.step()
    device.online = False
    steer(world, cancel_campaign, force=True)
    assert states(world) == [J.CANCELED] * 4
    assert world.jobs()["pi-1.001"].failure.message.startswith("canceled by force")
    assert world.campaign().state is CampaignState.CANCELED
    world.step()
    assert world.retained == {}
    known = KnownJob(job_id="c1.pi-1.001", attempt=1, state=J.IN_PROGRESS)
    device.inventory = make_inventory(jobs=(known,), time_ns=world.now_ns)
    world.come_online(device)
    world.dispatcher.tick()
    assert device.known["c1.pi-1.001"] is J.CANCELED


@pytest.mark.parametrize("before", ["cancel", "timeout", "abort"])
def test_force_ends_what_a_campaign_that_stops_waits_for(make_world, before):
    device = FakeDevice("pi-1")
    world = make_world(device)
    world.submit()
    world.step()
    world.step()
    device.online = False
    store = world.store()
    store.stop("c1", before)
    store.close()
    world.step()
    assert world.campaign().state is CampaignState.RUNNING
    steer(world, cancel_campaign, force=True)
    assert states(world)[0] is J.CANCELED
    ended = {"cancel": "CANCELED", "timeout": "TIMED_OUT", "abort": "FAILED"}
    assert world.campaign().state == ended[before]


def test_a_campaign_that_has_ended_stays_as_it_is(make_world):
    world = make_world(FakeDevice("pi-1"))
    world.submit()
    for _ in range(40):
        world.step()
    steer(world, cancel_campaign, force=True)
    assert world.campaign().state is CampaignState.SUCCEEDED
    assert set(states(world)) == {J.SUCCEEDED}


@pytest.mark.parametrize("force", [True, False])
def test_one_devices_jobs_are_canceled_and_the_others_go_on(make_world, force):
    world = make_world(FakeDevice("pi-1"), FakeDevice("pi-2"))
    world.submit()
    world.step()
    world.step()
    steer(world, cancel_device, "pi-1", force=force)
    mine = [job.state for job in world.jobs().values() if job.device == "pi-1"]
    assert mine[1:] == [J.CANCELED] * 3
    assert mine[0] is (J.CANCELED if force else J.IN_PROGRESS)
    for _ in range(40):
        world.step()
    by_device = {(job.device, job.state) for job in world.jobs().values()}
    assert by_device == {("pi-1", J.CANCELED), ("pi-2", J.SUCCEEDED)}
    assert world.campaign().state is CampaignState.FAILED
    assert world.devices[0].known["c1.pi-1.001"] is J.CANCELED
    assert world.retained == {}


# --- what devices know and the centre does not --------------------------------------------------


@pytest.mark.parametrize(("centre", "withdrawn"), [("here", True), ("there", False), (None, False)])
def test_an_open_job_that_is_not_known_is_withdrawn_if_this_centre_gave_it(
    make_world, centre, withdrawn
):
    known = KnownJob(job_id="gone.pi-1.001", attempt=1, state=J.IN_PROGRESS, centre=centre)
    device = FakeDevice("pi-1", inventory=make_inventory(jobs=(known,)))
    world = make_world(device)
    world.dispatcher.tick()
    assert world.sent == ([("gone.pi-1.001", "nothing")] if withdrawn else [])


def test_an_assignment_says_whose_it_is_and_how_many_attempts_were_begun(make_world):
    world = make_world(FakeDevice("pi-1"))
    first, *_ = world.submit()
    world.dispatcher.tick()
    (said,) = (codec.decode(Assignment, payload) for payload in world.retained.values())
    assert (said.job.centre, said.attempts_begun) == ("here", 0)
    world.step()
    world.step()
    (said,) = (codec.decode(Assignment, payload) for payload in world.retained.values())
    assert (said.job.job_id, said.attempts_begun) == (first, 1)


def test_a_job_is_not_sent_when_its_campaign_was_paused_at_the_same_moment(make_world):
    world = make_world(FakeDevice("pi-1"))
    first, *_ = world.submit()
    steer(world, pause_campaign)
    store = world.store()
    assert not store.assign(first)
    store.close()


def test_only_what_was_sent_and_has_not_begun_is_taken_back(make_world):
    world = make_world(FakeDevice("pi-1"))
    first, *_ = world.submit()
    store = world.store()
    assert not recall_job(store.file, first, world.now_ns)
    assert store.assign(first)
    assert recall_job(store.file, first, world.now_ns)
    assert store.assign(first)
    store.set_job_state(first, J.IN_PROGRESS, attempt=1)
    assert not recall_job(store.file, first, world.now_ns)
    assert store.job(first).recalls == 1
    store.close()


def test_canceling_a_device_twice_does_not_give_it_more_time_to_answer(make_world):
    world = make_world(FakeDevice("pi-1"))
    world.submit()
    world.step()
    world.step()
    steer(world, cancel_device, "pi-1", force=False)
    since = world.jobs()["pi-1.001"].stop_ns
    world.now_ns += S
    steer(world, cancel_device, "pi-1", force=False)
    assert world.jobs()["pi-1.001"].stop_ns == since


def test_what_was_taken_back_without_a_connection_is_off_the_broker_after_the_next(make_world):
    world = make_world(FakeDevice("pi-1", online=False))
    world.submit()
    world.step()
    world.connected = False
    steer(world, pause_campaign)
    world.step()
    steer(world, cancel_campaign, force=False)
    world.step()
    assert world.campaign().state is CampaignState.CANCELED
    assert len(world.retained) == 1
    world.connected = True
    world.dispatcher.on_connect()
    world.step()
    assert world.retained == {}
