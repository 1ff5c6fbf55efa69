"""A dispatcher whose term is over changes nothing and says nothing."""

import pytest

from fakes.fake_fleet import CAMPAIGN, FakeDevice
from fleetmark_collector.campaigns.dispatch import Dispatcher
from fleetmark_protocol.errors import LeadershipLost
from fleetmark_protocol.jobs import JobState


@pytest.fixture
def fenced(make_world):
    """A world whose dispatcher may work until `world.over` is set."""
    world = make_world(FakeDevice("pi-1", ends={"001": JobState.FAILED}))
    world.over = False

    def fence(db) -> None:
        assert db.execute("SELECT 1").fetchone() == (1,)
        if world.over:
            raise LeadershipLost("another collector leads")

    world.dispatcher.close()
    world.dispatcher = Dispatcher(
        world.state_file, world.reader, world, world.publish, world.clock, fence=fence
    )
    return world


def everything(world) -> list[str]:
    store = world.store()
    with store.file.transaction() as db:
        lines = list(db.iterdump())
    store.close()
    return lines


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 5])
def test_whatever_was_next_is_not_done(fenced, steps):
    fenced.submit(text=f"{CAMPAIGN}retries: {{max: 1, backoff_s: 0, on: FAILED}}\n")
    for _ in range(steps):
        fenced.step()
    before, said = everything(fenced), list(fenced.sent)
    fenced.over = True
    for device in fenced.devices:
        device.work()
    fenced.deliver_all()
    fenced.dispatcher.on_connect()
    with pytest.raises(LeadershipLost):
        fenced.dispatcher.tick()
    assert everything(fenced) == before
    assert fenced.sent == said


def test_what_was_decided_in_time_is_not_said_too_late(fenced, monkeypatch):
    fenced.submit()
    assign = fenced.dispatcher._store.assign

    def slow(job_id: str) -> bool:
        done = assign(job_id)
        fenced.over = True
        return done

    monkeypatch.setattr(fenced.dispatcher._store, "assign", slow)
    with pytest.raises(LeadershipLost):
        fenced.dispatcher.tick()
    assert fenced.sent == []
    # The one that leads now sees that the job is to be out, and says so.
    fenced.start().tick()
    assert fenced.sent == [("c1.pi-1.001", "run")]
