"""What an operator is told of a campaign that waits: in the picture, in lines, in JSON."""

import io
import json
from datetime import UTC, datetime

from rich.console import Console

from fakes.fake_fleet import CAMPAIGN, FakeDevice, FakeWorld, S, make_inventory
from fleetmark_collector.campaigns.picture import draw
from fleetmark_collector.campaigns.situation import clock
from fleetmark_collector.campaigns.steering import pause_campaign, resume_campaign
from fleetmark_collector.campaigns.view import View, gather
from fleetmark_collector.campaigns.watch import changes
from fleetmark_collector.cli.campaign_output import status_json
from fleetmark_protocol.jobs import JobState

J = JobState


def look(world: FakeWorld) -> View:
    store = world.store()
    try:
        return gather(store, world.reader, world, "c1", world.now_ns)
    finally:
        store.close()


def shown(view: View) -> str:
    console = Console(file=io.StringIO(), width=120, force_terminal=False)
    console.print(draw(view, True))
    return console.file.getvalue()


def as_json(view: View) -> dict:
    return json.loads(json.dumps(status_json(view, True), default=str))


def test_a_retry_that_waits_is_told_with_its_time(make_world):
    world = make_world(FakeDevice("pi-1", ends={"001": J.FAILED}))
    world.submit(text=f"{CAMPAIGN}retries: {{max: 1, backoff_s: 900, on: FAILED}}\n")
    before = look(world)
    for _ in range(5):
        world.step()
    view = look(world)
    due = world.jobs()["pi-1.001.r1"].not_before_ns
    at = clock(due, world.now_ns)
    assert f"1 job waits to be run again, the next at {at}" in shown(view)
    assert "(1 retried)" in shown(view)
    assert view.failed == ()
    told = changes(before, view, True)
    assert f"1 job waits to be run again, the next at {at}" in told
    (line,) = (one for one in told if "job 001.r1" in one)
    assert line.endswith(f"runs 001 again at {at}")
    made = as_json(view)
    assert made["retried"] == 1
    assert sum(made["jobs_by_state"].values()) == 4
    (again,) = (job for job in made["jobs"] if job["job_id"] == "c1.pi-1.001.r1")
    assert again["waits"] == {"reason": "backoff", "until_ns": due, "time_zone": None}
    assert made["trials_planned"] == 12


def test_a_window_that_is_waited_for_is_told_in_its_zone(make_world):
    device = FakeDevice("pi-1", inventory=make_inventory(time_zone="Asia/Tokyo"))
    world = make_world(device, FakeDevice("pi-2"))
    world.submit(text=f'{CAMPAIGN}windows: {{times: "22:00-23:00"}}\n')
    world.now_ns = int(datetime(2027, 1, 16, 5, tzinfo=UTC).timestamp()) * S
    world.dispatcher.tick()
    view = look(world)
    picture = shown(view)
    assert "8 jobs wait for a window to open, the next at 22:00:00 (Asia/Tokyo)" in picture
    assert "note: pi-2 does not say its time zone: its windows go by UTC" in picture
    assert as_json(view)["notes"] == ["pi-2 does not say its time zone: its windows go by UTC"]
    assert as_json(view)["policy"]["windows"]["times"] == ["22:00-23:00"]


def test_how_far_a_roll_out_is_is_told(make_world):
    world = make_world(*(FakeDevice(f"pi-{number}") for number in range(4)))
    growth = "growth: {factor: 2, after_successes: 1, jobs_per_minute_max: 20}"
    rollout = f"{{devices_at_once: 2, jobs_per_minute: 10, {growth}}}"
    world.submit(text=f"{CAMPAIGN}rollout: {rollout}\n")
    world.step()
    first = look(world)
    assert "roll-out: 1 of at most 2 devices at work, 10 jobs per minute" in shown(first)
    assert "15 jobs wait for the roll-out" in shown(first)
    for _ in range(5):
        world.step()
    view = look(world)
    assert "the roll-out goes on at 20 jobs per minute" in changes(first, view, True)
    assert as_json(view)["jobs_per_minute"] == 20


def test_a_job_whose_device_is_at_another_one_does_not_wait_for_the_roll_out(make_world):
    world = make_world(FakeDevice("pi-1"), FakeDevice("pi-2"))
    world.submit(text=f"{CAMPAIGN}rollout: {{devices_at_once: 1}}\n")
    world.step()
    assert set(look(world).situation.waits) == {f"c1.pi-2.00{number}" for number in (1, 2, 3, 4)}


def test_pausing_and_going_on_are_told_once(make_world):
    world = make_world(FakeDevice("pi-1"))
    world.submit()
    running = look(world)
    store = world.store()
    pause_campaign(store.file, "c1", world.now_ns)
    paused = look(world)
    assert f"paused since {clock(world.now_ns, world.now_ns)}: no job is sent" in shown(paused)
    (line,) = (one for one in changes(running, paused, True) if "paused" in one)
    assert line.startswith("paused since")
    world.now_ns += S
    assert changes(paused, look(world), True) == []
    resume_campaign(store.file, "c1", world.now_ns)
    store.close()
    assert "no longer paused" in changes(paused, look(world), True)


def test_an_abort_is_told_with_its_rule(make_world):
    world = make_world(FakeDevice("pi-1", ends={"001": J.REJECTED}), FakeDevice("pi-2"))
    one_job = CAMPAIGN.replace("[Q8_0, Q4_0]", "[Q4_0]").replace("threads: [1, 2]", "threads: 1")
    world.submit(text=f"{one_job}abort: {{share_percent: 50}}\n")
    before = look(world)
    for _ in range(4):
        world.step()
    view = look(world)
    rule = "aborted: unsuccessful on 1 of the 1 devices that have ended (100 %)"
    assert rule in shown(view)
    assert any(line.startswith(rule) for line in changes(before, view, True))
    assert as_json(view)["failure"]["code"] == "CAMPAIGN_ABORTED"


def test_a_device_that_joins_is_told(make_world):
    world = make_world(FakeDevice("pi-1"))
    world.submit(text=CAMPAIGN.replace("all: true", "all: true, selection: continuous"))
    before = look(world)
    assert "devices that join take part, until" in shown(before)
    world.devices.append(FakeDevice("pi-2"))
    world.step()
    assert "pi-2 has joined" in changes(before, look(world), True)
    assert as_json(before)["selection"] == "continuous"


def test_a_time_of_another_day_has_its_date():
    now = int(datetime(2027, 1, 15, 23, 30, tzinfo=UTC).timestamp()) * S
    assert clock(now + 60 * S, now, "UTC") == "23:31:00 (UTC)"
    assert clock(now + 3600 * S, now, "UTC") == "2027-01-16 00:30:00 (UTC)"
    assert clock(now + 3600 * S, now, "Asia/Tokyo") == "09:30:00 (Asia/Tokyo)"
