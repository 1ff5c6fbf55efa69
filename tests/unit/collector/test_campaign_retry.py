"""Running again what went wrong: another campaign, the same jobs, never twice at once."""

from dataclasses import replace
from pathlib import Path

import pytest

from fakes.fake_fleet import FakeDevice, FakeWorld, make_inventory
from fleetmark_collector.campaigns.plan import Plan
from fleetmark_collector.campaigns.retry import Again, start_retry
from fleetmark_collector.campaigns.tables import CampaignState
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.jobs import JobState

BAD = {"002": JobState.FAILED, "003": JobState.REJECTED}


@pytest.fixture
def world(tmp_path):
    world = FakeWorld(tmp_path, FakeDevice("pi-1", ends=dict(BAD)), FakeDevice("pi-2"))
    world.submit()
    yield world
    world.close()


def run(world, campaign_id):
    for _ in range(60):
        world.step()
    store = world.store()
    try:
        return store.campaign(campaign_id).state
    finally:
        store.close()


def retry(world, campaign_id="c1", **more):
    store = world.store()
    try:
        return start_retry(
            store,
            campaign_id,
            world.devices,
            time_ns=lambda: world.now_ns,
            sleep=lambda seconds: setattr(world, "now_ns", world.now_ns + 10**9),
            **more,
        )
    finally:
        store.close()


def test_only_what_went_wrong_runs_again_on_its_device_in_a_campaign_of_its_own(world):
    assert run(world, "c1") is CampaignState.FAILED
    world.devices[0].ends.clear()
    plan = retry(world)
    assert [(job.device, job.retry_of) for job in plan.jobs] == [
        ("pi-1", "c1.pi-1.002"),
        ("pi-1", "c1.pi-1.003"),
    ]
    assert run(world, plan.campaign_id) is CampaignState.SUCCEEDED
    store = world.store()
    row = store.campaign(plan.campaign_id)
    assert (row.name, row.retry_of) == ("sizes", "c1")
    assert store.file_text(plan.campaign_id) == store.file_text("c1")
    assert [job.retry_of for job in store.jobs(plan.campaign_id)] == ["c1.pi-1.002", "c1.pi-1.003"]
    old, new = store.spec("c1.pi-1.002"), store.spec(plan.jobs[0].spec.job_id)
    same = {"exclude": {"job_id", "campaign_id"}}
    assert old.model_dump(**same) == new.model_dump(**same)
    assert new.campaign_id == plan.campaign_id
    assert store.campaign("c1").state is CampaignState.FAILED, "a terminal state never changes"
    store.close()


def test_a_campaign_that_runs_is_not_retried(world):
    with pytest.raises(ConfigError, match="c1 is running"):
        retry(world)


def test_what_a_retry_runs_or_ran_well_is_left_out(world):
    run(world, "c1")
    world.devices[0].ends = {"001": JobState.FAILED}
    first = retry(world)
    with pytest.raises(ConfigError, match=f"nothing to retry: {first.campaign_id} runs these"):
        retry(world)
    assert run(world, first.campaign_id) is CampaignState.FAILED
    world.devices[0].ends.clear()
    second = retry(world)
    assert [job.retry_of for job in second.jobs] == ["c1.pi-1.002"], "the other one is done"
    run(world, second.campaign_id)
    with pytest.raises(ConfigError, match="nothing to retry"):
        retry(world)


def test_a_retry_of_a_retry_settles_the_first_job(world):
    run(world, "c1")
    world.devices[0].ends = {"001": JobState.FAILED}
    first = retry(world)
    run(world, first.campaign_id)
    world.devices[0].ends.clear()
    second = retry(world, first.campaign_id)
    assert [job.retry_of for job in second.jobs] == [first.jobs[0].spec.job_id]
    assert run(world, second.campaign_id) is CampaignState.SUCCEEDED
    with pytest.raises(ConfigError, match="nothing to retry"):
        retry(world, "c1")


def test_two_retries_at_the_same_moment_do_not_run_a_job_twice(world):
    run(world, "c1")
    store, other = world.store(), world.store()
    ours = start_retry(store, "c1", world.devices, time_ns=lambda: world.now_ns)
    # What a second process would submit that had looked before the first one wrote.
    jobs = tuple(
        replace(job, spec=job.spec.model_copy(update={"job_id": f"late.pi-1.00{number}"}))
        for number, job in enumerate(ours.jobs)
    )
    about = Again("sizes", "", Path("f.yaml"), other.file_text("c1"), 60.0)
    with pytest.raises(ConfigError, match="again already"):
        other.create(about, Plan("late", jobs), retry_of="c1")
    assert not other.has("late")
    store.close()
    other.close()


@pytest.mark.parametrize(
    ("choice", "retried"),
    [
        ({"states": [JobState.REJECTED]}, ["c1.pi-1.003"]),
        ({"devices": ["pi-1"]}, ["c1.pi-1.002", "c1.pi-1.003"]),
    ],
)
def test_states_and_devices_narrow_it(world, choice, retried):
    run(world, "c1")
    assert [job.retry_of for job in retry(world, **choice).jobs] == retried


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"states": [JobState.CANCELED]}, "no job of c1 ended in one of these states"),
        ({"devices": ["pi-2"]}, "no job of c1 ended in one of these states"),
        ({"devices": ["pi-3"]}, r"--device pi-3: not in this campaign \(did you mean 'pi-2'\?\)"),
    ],
)
def test_nothing_to_retry_is_the_users_mistake(world, choice, said):
    run(world, "c1")
    with pytest.raises(ConfigError, match=said):
        retry(world, **choice)


def test_what_the_device_would_refuse_again_and_devices_that_are_away_are_told(world):
    run(world, "c1")
    world.devices[0].inventory = make_inventory(backends=())
    world.devices[0].online = False
    plan = retry(world)
    assert "not known there" in str(plan.jobs[0].refusal)
    assert plan.notes == ("pi-1 is offline: its jobs wait until it is back",)


def test_a_device_that_is_gone_for_good_is_told(world):
    run(world, "c1")
    store = world.store()
    plan = start_retry(store, "c1", [], time_ns=lambda: world.now_ns)
    store.close()
    assert plan.notes == ("pi-1 is not known any more: its jobs wait until it reports",)


def test_the_same_second_gives_another_id(world):
    run(world, "c1")
    first = retry(world, states=[JobState.FAILED])
    second = retry(world, states=[JobState.REJECTED])
    assert first.campaign_id != second.campaign_id
