"""Killed at any moment and started again, the dispatcher brings every job to the same end."""

import random
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.fake_fleet import CAMPAIGN, FakeDevice, FakeWorld, S
from fleetmark_collector.campaigns.clearing import to_clear
from fleetmark_collector.campaigns.patience import Patience
from fleetmark_collector.campaigns.tables import CampaignState
from fleetmark_collector.campaigns.turns import is_out
from fleetmark_protocol.jobs import JobState

J = JobState
ENDS = {"002": J.FAILED, "003": J.REJECTED}


class KilledError(Exception):
    """The collector died here."""


def devices() -> list[FakeDevice]:
    return [FakeDevice("pi-1", ends=ENDS), FakeDevice("pi-2", ends=ENDS)]


def deliver_some(world: FakeWorld, rng: random.Random) -> None:
    """Bring some records to the store: in any order, some of them again."""
    records = [
        device.record(seq + 1) for device in world.devices for seq in range(len(device.outbox))
    ]
    if records:
        world.sink.write(rng.choices(records, k=rng.randint(1, len(records))))


def shake(world: FakeWorld, rng: random.Random) -> None:
    """Let one thing happen, good or bad."""
    world.now_ns += rng.randint(1, 3) * S
    device = rng.choice(world.devices)
    match rng.choice(["work", "work", "deliver", "tick", "tick", "kill", "net", "device"]):
        case "work" if device.online:
            device.work()
        case "deliver":
            deliver_some(world, rng)
        case "net":
            world.connected = not world.connected
            if world.connected:
                world.dispatcher.on_connect()
        case "device":
            if device.online:
                device.online = False
            else:
                world.come_online(device)
        case "kill":
            kill_in_the_middle(world, rng)
        case _:
            world.dispatcher.tick()


def kill_in_the_middle(world: FakeWorld, rng: random.Random) -> None:
    """Tick, and die at one of the moments when the dispatcher looks at the clock or publishes."""
    left = rng.randint(0, 8)

    def maybe_die() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KilledError

    world.before_clock = maybe_die
    publish, plain = world.dispatcher._announcer._publish, world.publish

    def dying_publish(topic: str, payload: bytes, retain: bool) -> None:
        maybe_die()
        plain(topic, payload, retain)
        maybe_die()

    world.dispatcher._announcer._publish = dying_publish
    try:
        world.dispatcher.tick()
    except KilledError:
        pass
    world.before_clock = lambda: None
    world.dispatcher._announcer._publish = publish
    world.dispatcher.close()
    world.start()


def check(world: FakeWorld, ended: dict[str, JobState]) -> None:
    """Hold what must be true at every moment; `ended` remembers what has ended so far."""
    stored = world.reader.trial_counts("c1")
    for job_id, state in world.states().items():
        assert ended.get(job_id, state) is state
        if state.terminal and job_id not in ended:
            ended[job_id] = state
            device = next(one for one in world.devices if one.device in job_id)
            assert device.known[job_id] is state
            assert stored.get(job_id, 0) == device.done.get(job_id, 0)
    for device in world.devices:
        assert sum(not state.terminal for state in device.known.values()) <= 1


def settle(world: FakeWorld) -> None:
    """Let everything work from now on, until nothing changes any more."""
    if not world.connected:
        world.connected = True
    world.dispatcher.on_connect()
    for device in world.devices:
        if not device.online:
            world.come_online(device)
    for _ in range(60):
        world.step()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), shakes=st.integers(0, 120))
def test_whatever_happens_on_the_way_every_job_ends_as_its_device_ended_it(seed, shakes):
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as directory:
        world = FakeWorld(Path(directory), *devices())
        ids = world.submit()
        ended: dict[str, JobState] = {}
        for _ in range(shakes):
            shake(world, rng)
            check(world, ended)
        settle(world)
        check(world, ended)
        expected = {job_id: ENDS.get(job_id[-3:], J.SUCCEEDED) for job_id in ids}
        assert world.states() == expected
        assert world.retained == {}
        started = Counter(job_id for device in world.devices for job_id in device.started)
        assert started == {job_id: 1 for job_id in ids if expected[job_id] is not J.REJECTED}
        store = world.store()
        assert store.campaign("c1").state is CampaignState.FAILED
        assert store.late_reports("c1") == []
        assert to_clear(store.file) == []
        assert {job.job_id: job.attempt for job in store.jobs("c1")} == {
            job_id: started[job_id] for job_id in ids
        }
        store.close()
        world.close()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), before=st.integers(0, 60), after=st.integers(0, 60))
def test_a_canceled_campaign_ends_too_and_no_job_begins_after_it_has_ended(seed, before, after):
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as directory:
        world = FakeWorld(Path(directory), *devices())
        world.submit()
        for _ in range(before):
            shake(world, rng)
        store = world.store()
        store.request_cancel("c1")
        store.close()
        for _ in range(after):
            shake(world, rng)
        settle(world)
        assert all(state.terminal for state in world.states().values())
        assert world.retained == {}
        for device in world.devices:
            for job_id, state in device.known.items():
                # The centre may have given a silent device up; else both say the same.
                assert world.states()[job_id] in {state, J.CANCELED}
        world.close()


RULES = """\
retries: {max: 1, backoff_s: 3, on: [FAILED]}
rollout: {devices_at_once: 1, jobs_per_minute: 60}
"""


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), shakes=st.integers(0, 120))
def test_with_rules_each_job_is_run_once_and_each_failed_one_once_more(seed, shakes):
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as directory:
        # One that is away for longer would give its place to another, and may have begun unheard.
        patience = Patience(cancel_offline_s=10_000)
        world = FakeWorld(Path(directory), *devices(), patience=patience)
        world.submit(text=CAMPAIGN + RULES)
        ended: dict[str, JobState] = {}
        for _ in range(shakes):
            shake(world, rng)
            check(world, ended)
            at_work = {job.device for job in world.jobs().values() if is_out(job)}
            # One that is done may be waited for while its trials are on their way.
            done = {one.device for one in world.devices if all_over(one)}
            assert len(at_work - done) <= 1
        settle(world)
        settle(world)
        check(world, ended)
        expected = {
            f"c1.{device}.{number}": state
            for device in ("pi-1", "pi-2")
            for number, state in {
                "001": J.SUCCEEDED,
                "002": J.FAILED,
                "002.r1": J.SUCCEEDED,
                "003": J.REJECTED,
                "004": J.SUCCEEDED,
            }.items()
        }
        assert world.states() == expected
        assert world.retained == {}
        started = Counter(job_id for device in world.devices for job_id in device.started)
        assert set(started.values()) == {1}
        assert world.campaign().state is CampaignState.FAILED
        world.close()


def all_over(device: FakeDevice) -> bool:
    return all(state.terminal for state in device.known.values())
