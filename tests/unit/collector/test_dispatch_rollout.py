"""A campaign spreads as fast as its file lets it, and stops by itself where it goes wrong."""

import pytest

from fakes.fake_fleet import CAMPAIGN, FakeDevice, FakeWorld, S
from fleetmark_collector.campaigns.patience import PATIENCE
from fleetmark_collector.campaigns.tables import CampaignState
from fleetmark_protocol.jobs import JobState

J = JobState
ONE_JOB = CAMPAIGN.replace("[Q8_0, Q4_0]", "[Q4_0]").replace("threads: [1, 2]", "threads: 1")


def fleet(number: int, bad: dict[int, JobState] | None = None) -> list[FakeDevice]:
    bad = bad or {}
    return [
        FakeDevice(f"pi-{index:02d}", ends={"001": bad[index]} if index in bad else {})
        for index in range(number)
    ]


def sent(world: FakeWorld) -> list[str]:
    jobs = [job for job in world.jobs().values() if job.assigned_ns is not None]
    return [job.device for job in sorted(jobs, key=lambda job: (job.assigned_ns, job.job_id))]


def at_work(world: FakeWorld) -> int:
    return len(
        {
            job.device
            for job in world.jobs().values()
            if job.assigned_ns is not None and not job.state.terminal
        }
    )


def test_jobs_go_out_at_their_rate_and_a_restart_changes_nothing(make_world):
    world = make_world(*fleet(8))
    world.submit(text=f"{ONE_JOB}rollout: {{jobs_per_minute: 10}}\n")
    for second in range(1, 38):
        if second % 5 == 0:
            world.dispatcher.close()
            world.start()
        world.step()
    times = [job.assigned_ns for job in world.jobs().values() if job.assigned_ns is not None]
    assert [(one - times[0]) // S for one in times] == [0, 6, 12, 18, 24, 30, 36]


def test_the_rate_grows_as_jobs_succeed(make_world):
    growth = "growth: {factor: 6, after_successes: 2, jobs_per_minute_max: 60}"
    world = make_world(*fleet(8))
    world.submit(text=f"{ONE_JOB}rollout: {{jobs_per_minute: 10, {growth}}}\n")
    for _ in range(30):
        world.step()
    times = [job.assigned_ns for job in world.jobs().values() if job.assigned_ns is not None]
    # Two have succeeded four seconds after the second was sent; from then on it is one a second.
    assert [(one - times[0]) // S for one in times] == [0, 6, 10, 10, 10, 10, 11, 12]


def test_no_more_devices_are_at_work_at_once_than_may_be(make_world):
    world = make_world(*fleet(5))
    world.submit(text=f"{CAMPAIGN}rollout: {{devices_at_once: 2}}\n")
    most = 0
    for _ in range(100):
        world.step()
        most = max(most, at_work(world))
        assert at_work(world) <= 2
    assert most == 2
    assert world.campaign().state is CampaignState.SUCCEEDED
    # Each device is done with before another one begins.
    assert list(dict.fromkeys(sent(world))) == [f"pi-{index:02d}" for index in range(5)]


def test_a_device_that_is_away_takes_nobodys_place(make_world):
    devices = fleet(3)
    devices[0].online = False
    world = make_world(*devices)
    world.submit(text=f"{ONE_JOB}rollout: {{devices_at_once: 1}}\n")
    for _ in range(20):
        world.step()
    assert sent(world) == ["pi-01", "pi-02"]
    world.come_online(devices[0])
    for _ in range(10):
        world.step()
    assert world.campaign().state is CampaignState.SUCCEEDED


def test_too_many_bad_devices_abort_the_campaign(make_world):
    world = make_world(*fleet(9, {1: J.FAILED, 2: J.FAILED}))
    world.submit(
        text=f"{ONE_JOB}rollout: {{devices_at_once: 2}}\n"
        "abort: {of: failed, share_percent: 40, after_devices: 3}\n"
    )
    for _ in range(60):
        world.step()
    campaign = world.campaign()
    assert (campaign.state, campaign.stop_reason) == (CampaignState.FAILED, "abort")
    assert campaign.failure.code == "CAMPAIGN_ABORTED"
    assert "failed on 2 of the 4 devices that have ended (50 %)" in campaign.failure.message
    by_state = [job.state for job in world.jobs().values()]
    assert by_state.count(J.CANCELED) == 5
    for job in world.jobs().values():
        if job.state is J.CANCELED:
            assert job.failure == campaign.failure
    assert len(sent(world)) == 4
    assert world.retained == {}


def test_what_runs_when_a_campaign_aborts_is_canceled(make_world):
    devices = fleet(3, {0: J.REJECTED})
    devices[1].trials = devices[2].trials = 100
    world = make_world(*devices)
    world.submit(text=f"{ONE_JOB}abort: [{{share_percent: 100, after_devices: 1}}]\n")
    for _ in range(4):
        world.step()
    assert world.campaign().state is CampaignState.FAILED
    ends = [(job.state, job.failure.code) for job in world.jobs().values()]
    assert ends == [(J.REJECTED, "BACKEND"), *[(J.CANCELED, "CAMPAIGN_ABORTED")] * 2]
    assert devices[1].known["c1.pi-01.001"] is J.CANCELED


@pytest.mark.parametrize("bad", [{}, {0: J.FAILED}])
def test_a_campaign_below_its_limit_goes_on(make_world, bad):
    world = make_world(*fleet(4, bad))
    world.submit(text=f"{ONE_JOB}abort: [{{share_percent: 26, after_devices: 4}}]\n")
    for _ in range(20):
        world.step()
    assert world.campaign().stop_reason is None
    assert world.campaign().state.terminal


def test_a_device_whose_job_is_run_again_has_not_ended_and_its_last_end_counts(make_world):
    world = make_world(*fleet(3, {0: J.FAILED}))
    world.submit(
        text=f"{ONE_JOB}rollout: {{devices_at_once: 1}}\nabort: {{share_percent: 1}}\n"
        "retries: {max: 1, backoff_s: 0, on: [FAILED]}\n"
    )
    for _ in range(40):
        world.step()
    assert world.campaign().state is CampaignState.SUCCEEDED


def test_a_device_that_is_done_frees_its_place_while_its_trials_are_on_their_way(make_world):
    world = make_world(*fleet(2))
    world.submit(text=f"{ONE_JOB}rollout: {{devices_at_once: 1}}\n")
    world.step()
    first = world.devices[0]
    for _ in range(4):
        first.work()
    last = first.record(len(first.outbox))
    assert last.record.state is J.SUCCEEDED
    world.sink.write([last])
    world.dispatcher.tick()
    assert not world.jobs()["pi-00.001"].state.terminal
    assert sent(world) == ["pi-00", "pi-01"]


def test_a_device_that_vanishes_before_it_begins_frees_its_place(make_world):
    devices = fleet(3)
    world = make_world(*devices)
    world.submit(text=f"{ONE_JOB}rollout: {{devices_at_once: 1}}\n")
    world.dispatcher.tick()
    devices[0].online = False
    devices[0].known.clear()  # it never heard of it
    for _ in range(int(PATIENCE.cancel_offline_s)):
        world.step()
    assert sent(world) == ["pi-00"], "it may be away for a moment only"
    for _ in range(15):
        world.step()
    assert sent(world) == ["pi-01", "pi-02"]
    assert world.retained == {}
    world.come_online(devices[0])
    for _ in range(10):
        world.step()
    assert world.campaign().state is CampaignState.SUCCEEDED
    assert len(world.jobs()) == 3


def test_a_job_that_began_unheard_on_a_device_that_vanished_ends_once_it_is_back(make_world):
    devices = fleet(2)
    world = make_world(*devices)
    world.submit(text=f"{ONE_JOB}rollout: {{devices_at_once: 1}}\n")
    world.dispatcher.tick()
    devices[0].online = False
    world.now_ns += 100 * S
    world.dispatcher.tick()
    assert world.jobs()["pi-00.001"].assigned_ns is None
    devices[0].work()
    world.come_online(devices[0])
    for _ in range(15):
        world.step()
    assert world.campaign().state is CampaignState.SUCCEEDED
    assert devices[0].started == ["c1.pi-00.001"]
