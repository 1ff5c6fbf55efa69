"""Jobs that went wrong are run again within their campaign, as its file says."""

from fakes.fake_fleet import CAMPAIGN, FakeDevice, S
from fleetmark_collector.campaigns.retry import start_retry
from fleetmark_collector.campaigns.steering import cancel_device
from fleetmark_collector.campaigns.tables import CampaignState
from fleetmark_protocol.jobs import JobState

J = JobState
TWICE = f"{CAMPAIGN}retries: {{max: 2, backoff_s: 100, on: [FAILED]}}\n"


def run(world, steps: int = 40, seconds: float = 1) -> None:
    for _ in range(steps):
        world.step(seconds)


def states(world) -> dict[str, JobState]:
    return {name: job.state for name, job in world.jobs().items()}


def test_a_job_that_failed_is_run_again_after_its_wait_and_the_last_end_counts(make_world):
    device = FakeDevice("pi-1", ends={"002": J.FAILED})
    world = make_world(device)
    world.submit(text=TWICE)
    run(world)
    again = world.jobs()["pi-1.002.r1"]
    assert (again.state, again.retry_of, again.retries) == (J.QUEUED, "c1.pi-1.002", 1)
    assert states(world)["pi-1.004"] is J.SUCCEEDED  # the others did not wait for it
    assert world.campaign().state is CampaignState.RUNNING
    failed_ns = world.jobs()["pi-1.002"].updated_ns
    assert failed_ns + 75 * S <= again.not_before_ns <= failed_ns + 100 * S
    world.now_ns = again.not_before_ns - 1
    world.dispatcher.tick()
    assert world.jobs()["pi-1.002.r1"].assigned_ns is None
    run(world, 10)
    assert states(world)["pi-1.002.r1"] is J.SUCCEEDED
    assert world.jobs()["pi-1.002"].superseded_by == "c1.pi-1.002.r1"
    assert states(world)["pi-1.002"] is J.FAILED
    assert world.campaign().state is CampaignState.SUCCEEDED
    assert world.retained == {}


def test_after_the_last_retry_the_campaign_has_failed(make_world):
    world = make_world(FakeDevice("pi-1", ends={"002": J.FAILED, "r1": J.FAILED, "r2": J.FAILED}))
    world.submit(text=TWICE)
    run(world, 60, 20)
    mine = {name: state for name, state in states(world).items() if "002" in name}
    assert mine == dict.fromkeys(["pi-1.002", "pi-1.002.r1", "pi-1.002.r2"], J.FAILED)
    assert world.campaign().state is CampaignState.FAILED
    assert list(world.jobs())[1:4] == ["pi-1.002", "pi-1.002.r1", "pi-1.002.r2"]


def test_what_is_not_worth_it_is_not_run_again(make_world):
    world = make_world(FakeDevice("pi-1", ends={"001": J.REJECTED, "002": J.TIMED_OUT}))
    world.submit(text=TWICE)
    run(world)
    assert len(world.jobs()) == 4
    assert world.campaign().state is CampaignState.FAILED


def test_a_retry_asks_for_the_same_under_another_id(make_world):
    device = FakeDevice("pi-1", ends={"001": J.FAILED})
    world = make_world(device)
    world.submit(text=TWICE)
    run(world, 40, 20)
    first, again = device.specs["c1.pi-1.001"], device.specs["c1.pi-1.001.r1"]
    assert again.model_copy(update={"job_id": first.job_id}) == first


def test_a_campaign_that_stops_runs_nothing_again(make_world):
    device = FakeDevice("pi-1", ends={"001": J.FAILED})
    world = make_world(device)
    world.submit(text=TWICE)
    world.step()
    world.step()
    store = world.store()
    store.request_cancel("c1")
    store.close()
    run(world, 10)
    assert len(world.jobs()) == 4
    assert world.campaign().state is CampaignState.CANCELED


def test_a_retry_that_still_waits_is_canceled_with_its_campaign(make_world):
    world = make_world(FakeDevice("pi-1", ends={"001": J.FAILED}))
    world.submit(text=TWICE)
    run(world, 40)
    store = world.store()
    store.request_cancel("c1")
    store.close()
    assert states(world)["pi-1.001.r1"] is J.CANCELED
    assert world.campaign().state is CampaignState.CANCELED


def test_a_device_that_dies_in_a_job_gets_it_again_when_it_is_back(make_world):
    device = FakeDevice("pi-1")
    world = make_world(device)
    world.submit(text=f"{CAMPAIGN}retries: {{max: 1, backoff_s: 0}}\n")
    world.step()
    world.step()
    device.online = False
    world.now_ns += 8000 * S
    world.dispatcher.tick()
    assert world.jobs()["pi-1.001"].failure.code == "DEVICE_SILENT"
    world.dispatcher.tick()
    device.known["c1.pi-1.001"] = J.CANCELED  # its disk is a new one
    world.come_online(device)
    run(world)
    assert states(world)["pi-1.001.r1"] is J.SUCCEEDED
    assert world.campaign().state is CampaignState.SUCCEEDED


def test_a_collector_that_restarts_waits_no_shorter_and_no_longer(make_world):
    world = make_world(FakeDevice("pi-1", ends={"001": J.FAILED}))
    world.submit(text=TWICE)
    run(world, 40)
    due = world.jobs()["pi-1.001.r1"].not_before_ns
    world.dispatcher.close()
    world.start()
    world.now_ns = due - 1
    world.dispatcher.tick()
    assert world.jobs()["pi-1.001.r1"].assigned_ns is None
    world.now_ns = due
    world.dispatcher.tick()
    assert world.jobs()["pi-1.001.r1"].assigned_ns == due


def test_a_retry_of_the_campaign_takes_of_each_chain_the_last(make_world):
    world = make_world(FakeDevice("pi-1", ends={"002": J.FAILED, "r1": J.FAILED, "r2": J.FAILED}))
    world.submit(text=TWICE)
    run(world, 60, 20)
    store = world.store()
    plan = start_retry(store, "c1", world.devices, time_ns=lambda: world.now_ns)
    assert [job.retry_of for job in plan.jobs] == ["c1.pi-1.002.r2"]
    assert store.campaign(plan.campaign_id).policy == store.campaign("c1").policy
    store.close()


def test_a_job_that_fails_while_its_campaign_stops_is_not_run_again(make_world):
    device = FakeDevice("pi-1", ends={"001": J.FAILED})
    world = make_world(device)
    world.submit(text=TWICE)
    run(world, 4)
    device.work()  # it has failed already when it is asked to stop
    store = world.store()
    store.request_cancel("c1")
    store.close()
    run(world, 3)
    assert states(world)["pi-1.001"] is J.FAILED
    assert len(world.jobs()) == 4


def test_a_job_that_fails_while_its_device_is_canceled_is_not_run_again(make_world):
    device = FakeDevice("pi-1", ends={"001": J.FAILED})
    world = make_world(device)
    world.submit(text=TWICE)
    run(world, 4)
    device.work()
    store = world.store()
    cancel_device(store.file, "c1", "pi-1", world.now_ns, force=False)
    store.close()
    run(world, 3)
    assert states(world)["pi-1.001"] is J.FAILED
    assert len(world.jobs()) == 4
