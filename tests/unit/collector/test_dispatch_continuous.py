"""Devices that join later get the jobs of a campaign that takes newcomers."""

from collections import Counter

import pytest

from fakes.fake_fleet import CAMPAIGN, FakeDevice, FakeWorld, S, make_campaign, make_inventory
from fleetmark_collector.campaigns.newcomers import add_jobs
from fleetmark_collector.campaigns.plan import make_plan
from fleetmark_collector.campaigns.steering import cancel_campaign
from fleetmark_collector.campaigns.tables import CampaignState
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.jobs import JobState

J = JobState
LATER = CAMPAIGN.replace("{all: true}", "{tags: [bench], selection: continuous}")


def tagged(device: str, *tags: str, **fields) -> FakeDevice:
    return FakeDevice(device, inventory=make_inventory(tags=tags), **fields)


def run(world: FakeWorld, steps: int = 20) -> None:
    for _ in range(steps):
        world.step()


def taking_part(world: FakeWorld) -> Counter[str]:
    return Counter(job.device for job in world.jobs().values())


def test_new_devices_and_new_tags_join_and_the_campaign_ends_with_its_time(make_world):
    world = make_world(tagged("pi-1", "bench"), tagged("pi-2"))
    world.submit(text=f"{LATER}timeouts: {{campaign_s: 1000}}\n")
    run(world)
    assert taking_part(world) == {"pi-1": 4}
    assert {job.state for job in world.jobs().values()} == {J.SUCCEEDED}
    assert world.campaign().state is CampaignState.RUNNING
    world.devices[1].inventory = make_inventory(tags=("bench",))
    world.devices.append(tagged("pi-3", "bench"))
    run(world)
    assert taking_part(world) == {"pi-1": 4, "pi-2": 4, "pi-3": 4}
    assert list(world.jobs())[4:] == [
        f"pi-{device}.00{number}" for device in (2, 3) for number in (1, 2, 3, 4)
    ]
    world.now_ns += 1000 * S
    world.dispatcher.tick()
    assert world.campaign().state is CampaignState.SUCCEEDED
    world.devices.append(tagged("pi-4", "bench"))
    run(world, 3)
    assert "pi-4" not in taking_part(world)


def test_a_snapshot_takes_nobody_else(make_world):
    world = make_world(tagged("pi-1", "bench"))
    world.submit()
    world.devices.append(tagged("pi-2", "bench"))
    run(world)
    assert taking_part(world) == {"pi-1": 4}


def test_prompts_are_those_of_the_start_though_their_file_has_gone(make_world, tmp_path):
    world = make_world(tagged("pi-1", "bench"))
    (tmp_path / "asked.txt").write_text("one\ntwo\n")
    asked = LATER.replace("kind: single, prompt: hello", "kind: multi, prompts_file: asked.txt")
    world.submit(text=asked)
    (tmp_path / "asked.txt").write_text("three\n")
    (tmp_path / "campaign.yaml").unlink()
    world.devices.append(tagged("pi-2", "bench"))
    run(world)
    asked_of = {spec.workloads[0].prompts for one in world.devices for spec in one.specs.values()}
    assert asked_of == {("one", "two")}
    assert taking_part(world)["pi-2"] == 4


def test_a_campaign_may_begin_before_there_is_a_device_and_end_without_one(make_world):
    world = make_world()
    world.submit(text=f"{LATER}timeouts: {{campaign_s: 1000}}\n")
    run(world, 3)
    assert world.campaign().state is CampaignState.RUNNING
    world.now_ns += 1000 * S
    world.dispatcher.tick()
    assert world.campaign().state is CampaignState.TIMED_OUT


def test_a_snapshot_needs_a_device(make_world):
    with pytest.raises(ConfigError, match="knows no devices"):
        make_world().submit()


@pytest.mark.parametrize("done", [True, False])
def test_canceled_its_state_goes_by_its_jobs(make_world, done):
    world = make_world(tagged("pi-1", "bench"))
    world.submit(text=LATER)
    run(world, 20 if done else 2)
    store = world.store()
    cancel_campaign(store.file, "c1", world.now_ns, force=False)
    store.close()
    run(world)
    assert world.campaign().state is (CampaignState.SUCCEEDED if done else CampaignState.CANCELED)


def test_a_share_stays_true_as_devices_come_and_who_was_drawn_stays(make_world):
    world = make_world()
    world.submit(text=LATER.replace("selection", "sample: 25%, selection"))
    before: set[str] = set()
    for number in range(1, 17):
        world.devices.append(tagged(f"pi-{number:02d}", "bench", online=False))
        world.dispatcher.tick()
        now = set(taking_part(world))
        assert before <= now
        assert len(now) == -(-number // 4)
        before = now


def test_a_number_is_filled_up(make_world):
    world = make_world(tagged("pi-1", "bench"))
    world.submit(text=LATER.replace("selection", "sample: 2, selection"))
    for number in range(2, 6):
        world.devices.append(tagged(f"pi-{number}", "bench", online=False))
        world.dispatcher.tick()
    assert len(taking_part(world)) == 2


def test_a_device_joins_once_however_often_the_collector_restarts(make_world):
    world = make_world(tagged("pi-1", "bench"))
    world.submit(text=LATER)
    world.devices.append(tagged("pi-2", "bench"))
    for _ in range(3):
        world.dispatcher.tick()
        world.dispatcher.close()
        world.start()
    assert taking_part(world) == {"pi-1": 4, "pi-2": 4}


def test_devices_of_one_id_in_two_fleets_get_jobs_of_different_ids(make_world):
    world = make_world(tagged("pi-1", "bench"))
    world.submit(text=LATER)
    world.devices.append(tagged("pi-1", "bench", fleet="field"))
    run(world, 40)
    assert list(world.jobs()) == [f"pi-1.00{number}" for number in range(1, 9)]
    assert {job.state for job in world.jobs().values()} == {J.SUCCEEDED}


def test_a_device_that_has_not_said_what_it_has_is_waited_for(make_world):
    device = FakeDevice("pi-1", inventory=None)
    world = make_world(device)
    everyone = CAMPAIGN.replace("all: true", "all: true, selection: continuous")
    world.submit(text=f"{everyone}unavailable: skip\n")
    world.devices.append(FakeDevice("pi-2", inventory=None))
    world.dispatcher.tick()
    assert "pi-2" not in taking_part(world)
    world.devices[1].inventory = make_inventory(backends=())
    world.dispatcher.tick()
    assert "pi-2" not in taking_part(world)
    world.devices[1].inventory = make_inventory(time_ns=world.now_ns + 1)
    world.dispatcher.tick()
    assert taking_part(world)["pi-2"] == 4


def test_a_file_that_cannot_be_read_any_more_stops_nobody(make_world):
    world = make_world(tagged("pi-1", "bench"))
    world.submit(text=LATER)
    store = world.store()
    with store.file.transaction() as db:
        db.execute("UPDATE campaigns SET inlined = 'version: 99'")
    store.close()
    world.devices.append(tagged("pi-2", "bench"))
    run(world)
    assert taking_part(world) == {"pi-1": 4}
    assert {job.state for job in world.jobs().values()} == {J.SUCCEEDED}


def test_jobs_are_added_once_and_only_while_devices_may_join(make_world):
    world = make_world(tagged("pi-1", "bench"))
    world.submit(text=LATER)
    campaign = make_campaign(world.directory, LATER)
    plans = [make_plan(campaign, "c1", [tagged(name, "bench")]) for name in ("pi-2", "pi-3")]
    store = world.store()
    assert add_jobs(store.file, plans[0], world.now_ns)
    assert not add_jobs(store.file, plans[0], world.now_ns)
    store.request_cancel("c1")
    assert not add_jobs(store.file, plans[1], world.now_ns)
    store.close()
    assert taking_part(world) == {"pi-1": 4, "pi-2": 4}


def test_names_that_may_yet_come_are_noted_and_those_of_a_snapshot_are_mistakes(tmp_path):
    later = make_plan(make_campaign(tmp_path, LATER), "c1", [tagged("pi-1", "shelf")])
    assert later.problems == ()
    assert later.notes == ("no tag 'bench' (known: shelf): waits for devices to join",)
    now = LATER.replace(", selection: continuous", "")
    (problem,) = make_plan(make_campaign(tmp_path, now), "c1", [tagged("pi-1", "shelf")]).problems
    assert "no tag 'bench'" in problem
