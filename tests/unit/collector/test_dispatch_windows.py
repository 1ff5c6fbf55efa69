"""Jobs run while their device's window is open, by the centre's clock alone."""

from datetime import UTC, datetime

import pytest

from fakes.fake_fleet import CAMPAIGN, FakeDevice, FakeWorld, S, make_inventory
from fleetmark_collector.campaigns.keeping import Kept
from fleetmark_collector.campaigns.patience import PATIENCE
from fleetmark_collector.campaigns.tables import CampaignState
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.messages import KnownJob

J = JobState
NIGHT = f'{CAMPAIGN}timeouts: {{campaign_s: 900000}}\nwindows: {{times: "22:00-06:00"}}\n'
CANCEL = NIGHT.replace('06:00"', '06:00", at_end: cancel')


def at(day: int, clock: str) -> int:
    """A time of January 2027, in UTC."""
    moment = datetime.fromisoformat(f"2027-01-{day:02d}T{clock}").replace(tzinfo=UTC)
    return int(moment.timestamp()) * S


def tick_at(world: FakeWorld, time_ns: int, steps: int = 1) -> None:
    world.now_ns = time_ns - S
    for _ in range(steps):
        world.step()


def start(make_world, text: str = NIGHT, *devices: FakeDevice) -> FakeWorld:
    world = make_world(*(devices or [FakeDevice("pi-1")]))
    world.now_ns = at(15, "12:00:00")
    world.submit(text=text)
    world.dispatcher.tick()
    return world


def test_nothing_is_sent_before_the_window_opens(make_world):
    world = start(make_world)
    tick_at(world, at(15, "21:59:59"))
    assert world.sent == []
    tick_at(world, at(15, "22:00:00"))
    assert world.sent == [("c1.pi-1.001", "run")]


def test_each_device_goes_by_its_own_time_zone(make_world):
    tokyo = FakeDevice("pi-1", inventory=make_inventory(time_zone="Asia/Tokyo"))
    berlin = FakeDevice("pi-2", inventory=make_inventory(time_zone="Europe/Berlin"))
    world = start(make_world, NIGHT, tokyo, berlin, FakeDevice("pi-3", inventory=None))
    sent = {}
    for hour in range(12, 24):
        tick_at(world, at(15, f"{hour}:00:00"))
        for name, job in world.jobs().items():
            if job.assigned_ns is not None:
                sent.setdefault(name, hour)
    assert {name: hour for name, hour in sent.items() if name.endswith("001")} == {
        "pi-1.001": 13,
        "pi-2.001": 21,
        "pi-3.001": 22,
    }


def test_a_job_under_way_may_finish_and_the_next_one_waits_a_day(make_world):
    device = FakeDevice("pi-1", trials=5)
    world = start(make_world, NIGHT, device)
    tick_at(world, at(16, "05:59:57"), 20)
    states = [job.state for job in world.jobs().values()]
    assert states == [J.SUCCEEDED, J.QUEUED, J.QUEUED, J.QUEUED]
    tick_at(world, at(16, "22:00:00"), 40)
    assert world.campaign().state is CampaignState.SUCCEEDED
    assert len(world.jobs()) == 4


def test_a_job_that_is_canceled_at_the_end_runs_anew_in_the_next_window(make_world):
    device = FakeDevice("pi-1", trials=5)
    world = start(make_world, CANCEL, device)
    tick_at(world, at(16, "05:59:57"), 10)
    first, again = list(world.jobs().values())[:2]
    assert (first.state, first.failure.message) == (J.CANCELED, "its window closed")
    assert device.known["c1.pi-1.001"] is J.CANCELED
    assert (again.job_id, again.state, again.retries) == ("c1.pi-1.001.r1", J.QUEUED, 0)
    assert world.retained == {}
    tick_at(world, at(16, "22:00:00"), 60)
    assert world.campaign().state is CampaignState.SUCCEEDED
    assert device.started[:2] == ["c1.pi-1.001", "c1.pi-1.001.r1"]


def test_a_device_that_does_not_answer_at_the_end_is_given_up_waiting_for(make_world):
    device = FakeDevice("pi-1", trials=5)
    world = start(make_world, CANCEL, device)
    tick_at(world, at(16, "05:59:57"), 2)
    device.online = False
    tick_at(world, at(16, "06:00:00"))
    assert world.sent[-1] == ("c1.pi-1.001", "cancel")
    tick_at(world, at(16, "06:00:00") + int(PATIENCE.cancel_offline_s + 2) * S)
    assert world.jobs()["pi-1.001"].state is J.CANCELED
    assert world.jobs()["pi-1.001.r1"].state is J.QUEUED


def test_a_job_that_has_not_begun_is_taken_back_at_the_end_and_sent_again(make_world):
    device = FakeDevice("pi-1")
    world = start(make_world, NIGHT, device)
    world.now_ns = at(16, "05:59:59")
    world.dispatcher.tick()
    device.online = False
    device.known.clear()  # it never heard of it
    tick_at(world, at(16, "06:00:00"))
    assert world.jobs()["pi-1.001"].assigned_ns is None
    assert world.retained == {}
    world.come_online(device)
    tick_at(world, at(16, "12:00:00"), 5)
    assert device.started == []
    tick_at(world, at(16, "22:00:00"), 40)
    assert world.campaign().state is CampaignState.SUCCEEDED
    assert len(world.jobs()) == 4


def test_a_device_that_had_heard_of_a_job_taken_back_is_told_when_it_is_back(make_world):
    device = FakeDevice("pi-1")
    world = start(make_world, NIGHT, device)
    world.now_ns = at(16, "05:59:59")
    world.dispatcher.tick()
    device.online = False
    tick_at(world, at(16, "06:00:00"))
    world.come_online(device)
    known = KnownJob(job_id="c1.pi-1.001", attempt=0, state=J.QUEUED)
    device.inventory = make_inventory(jobs=(known,))
    world.now_ns += S
    world.dispatcher.tick()
    assert device.known["c1.pi-1.001"] is J.CANCELED
    tick_at(world, at(16, "12:00:00"))
    failure = world.jobs()["pi-1.001"].failure
    assert (failure.code, failure.message) == ("CANCELED", "taken back before it had begun")
    tick_at(world, at(16, "22:00:00"), 40)
    assert world.campaign().state is CampaignState.SUCCEEDED


@pytest.mark.parametrize(
    ("estimate_s", "clock", "sent"),
    [
        (3600.0, "05:00:00", True),
        (3600.0, "05:00:01", False),
        (None, "05:59:59", True),
        (9 * 3600.0, "23:00:00", True),  # fits in no window, and somebody said yes to that
    ],
)
def test_a_job_is_sent_only_if_it_likely_ends_inside(make_world, estimate_s, clock, sent):
    world = make_world(FakeDevice("pi-1"))
    world.now_ns = at(15, "12:00:00")
    world.submit(text=NIGHT)
    store = world.store()
    with store.file.transaction() as db:
        db.execute("UPDATE jobs SET estimate_s = ?", (estimate_s,))
    store.close()
    tick_at(world, at(16, clock))
    assert bool(world.sent) is sent


def test_a_device_that_is_away_gets_its_job_when_it_is_back_in_a_window(make_world):
    device = FakeDevice("pi-1", online=False)
    world = start(make_world, NIGHT, device)
    tick_at(world, at(15, "23:00:00"))
    assert world.sent == []
    world.come_online(device)
    tick_at(world, at(16, "07:00:00"))
    assert world.sent == []
    tick_at(world, at(16, "23:00:00"))
    assert world.sent == [("c1.pi-1.001", "run")]


def test_what_is_kept_of_a_campaign_by_default_takes_no_newcomers():
    assert Kept() == Kept("snapshot", None)
