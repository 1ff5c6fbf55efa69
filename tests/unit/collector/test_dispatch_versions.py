"""Devices whose version does not go with ours get no jobs; what they have begun is left alone."""

import pytest

from fakes.fake_fleet import CAMPAIGN, EPOCH, FakeDevice, make_campaign, make_inventory
from fleetmark_collector import presence
from fleetmark_collector.campaigns.plan import make_plan
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.messages import KnownJob, Status
from fleetmark_protocol.version import __version__
from recordedwire import FAR, NEAR

J = JobState
RETAINED_S = int(presence.RETAINED_S)


def status(version):
    return Status(online=True, boot_id=EPOCH, agent_version=version, started_ns=1)


class Deaf(FakeDevice):
    """Hears and says nothing that counts, as an agent that is refused."""

    def assign(self, assignment):
        self.known.setdefault(assignment.job.job_id, J.REJECTED)


def test_jobs_of_a_device_too_far_away_are_rejected_with_a_reason_and_others_run(make_world):
    far, near = Deaf("pi-1", status=status(FAR[0])), FakeDevice("pi-2", status=status(NEAR[1]))
    world = make_world(far, near)
    ids = world.submit()
    for _ in range(RETAINED_S + 60):
        world.step()
    states = world.states()
    assert {states[one] for one in ids if ".pi-1." in one} == {J.REJECTED}
    assert {states[one] for one in ids if ".pi-2." in one} == {J.SUCCEEDED}
    for name, job in world.jobs().items():
        if name.startswith("pi-1"):
            assert job.failure.code == "VERSION_MISMATCH"
            assert f"agent {FAR[0]} and collector {__version__}" in job.failure.message
            assert not job.failure.retryable
    assert world.retained == {}


@pytest.mark.parametrize("retained", [True, False])
def test_nobody_is_rejected_for_what_was_said_before_a_common_restart(make_world, retained):
    """State file and broker may tell the version of before; the agent comes back by and by."""
    device = FakeDevice("pi-1", status=status(FAR[0]))
    world = make_world(device)
    world.connect(retained=retained)
    world.submit()
    for _ in range(2 * RETAINED_S if not retained else RETAINED_S - 1):
        world.step()
    assert J.REJECTED not in world.states().values()
    device.status = status(__version__)
    world.presence.note(("lab", "pi-1"), retained=False)
    for _ in range(RETAINED_S + 60):
        world.step()
    assert set(world.states().values()) == {J.SUCCEEDED}


def test_whoever_says_now_that_it_is_too_far_away_is_rejected_without_a_wait(make_world):
    world = make_world(Deaf("pi-1", status=status(FAR[0])))
    world.connect(retained=False)
    world.submit()
    world.step()
    assert J.REJECTED not in world.states().values()
    world.presence.note(("lab", "pi-1"), retained=False)
    world.step()
    assert set(world.states().values()) == {J.REJECTED}


def test_nobody_is_rejected_without_a_broker(make_world):
    world = make_world(Deaf("pi-1", status=status(FAR[0])))
    world.step(RETAINED_S)
    world.presence.disconnected()
    world.submit()
    for _ in range(3):
        world.step(RETAINED_S)
    assert J.REJECTED not in world.states().values()
    world.connect()
    for _ in range(2):
        world.step(RETAINED_S)
    assert set(world.states().values()) == {J.REJECTED}


def test_a_job_that_was_sent_before_is_rejected_unless_the_device_knows_it(make_world):
    device = Deaf("pi-1", status=status(__version__))
    world = make_world(device)
    first, *others = world.submit()
    world.step(RETAINED_S)
    device.status = status(FAR[0])
    taken = KnownJob(job_id=first, attempt=1, state=J.IN_PROGRESS)
    device.inventory = make_inventory(jobs=(taken,))
    world.step(RETAINED_S)
    states = world.states()
    assert states[first] is J.QUEUED, "it is told of once the device has been upgraded"
    assert {states[one] for one in others} == {J.REJECTED}
    device.inventory = make_inventory()
    world.step()
    assert world.states()[first] is J.REJECTED


def test_a_job_waits_for_a_device_that_is_away_whatever_its_version_was(make_world):
    device = FakeDevice("pi-1", online=False, status=status(FAR[0]))
    world = make_world(device)
    world.submit()
    for _ in range(5):
        world.step(RETAINED_S)
    assert set(world.states().values()) == {J.QUEUED}
    device.status = status(__version__)
    world.come_online(device)
    for _ in range(60):
        world.step()
    assert set(world.states().values()) == {J.SUCCEEDED}


@pytest.mark.parametrize("unavailable", ["plan", "skip"])
def test_the_plan_says_what_would_be_rejected_and_skip_leaves_it_out(tmp_path, unavailable):
    text = CAMPAIGN + ("unavailable: skip\n" if unavailable == "skip" else "")
    devices = [FakeDevice("pi-1", status=status(FAR[0])), FakeDevice("pi-2")]
    plan = make_plan(make_campaign(tmp_path, text), "c1", devices)
    said = plan.left_out if unavailable == "skip" else plan.jobs
    of_far = [getattr(one, "reason", None) or one.refusal for one in said if one.device == "pi-1"]
    assert of_far
    assert all(f"agent {FAR[0]} and collector {__version__}" in one for one in of_far)
    assert all(job.refusal is None for job in plan.jobs if job.device == "pi-2")
