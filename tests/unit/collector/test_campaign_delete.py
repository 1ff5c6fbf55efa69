"""Forgetting a campaign: only one that is over everywhere, and only what was asked for."""

from contextlib import closing

import pytest

from fakes.fake_fleet import EPOCH, START_NS, FakeDevice, FakeWorld, make_inventory
from fleetmark_collector.campaigns.removal import look_at, remove
from fleetmark_collector.config import CollectorSettings
from fleetmark_collector.devices import DeviceRegistry
from fleetmark_protocol import codec, topics
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.messages import KnownJob, Status
from fleetmark_protocol.version import __version__


@pytest.fixture
def world(tmp_path):
    world = FakeWorld(tmp_path, FakeDevice("pi-1"))
    world.submit("c1")
    world.submit("c2")
    yield world
    world.close()


@pytest.fixture
def settings(tmp_path):
    return CollectorSettings(data_dir=tmp_path)


def steps(world, count=80):
    for _ in range(count):
        world.step()


def ids(world):
    with closing(world.store()) as store:
        return [row.campaign_id for row in store.campaigns()]


def test_its_records_stay_unless_they_are_named(world, settings):
    steps(world)
    assert look_at(settings, "c1").jobs == 4
    assert remove(settings, "c1", records=False) == {}
    assert ids(world) == ["c2"]
    assert len(world.reader.trials("c1")) == 8
    with closing(world.store()) as store:
        assert store.jobs("c1") == []
        assert store.job("c1.pi-1.001") is None
        assert len(store.jobs("c2")) == 4


def test_its_records_go_with_it_and_those_of_others_stay(world, settings):
    steps(world)
    assert remove(settings, "c1", records=True) == {"trial": 8, "load": 0, "job": 8}
    assert world.reader.trials("c1") == []
    assert world.reader.job_records("c1") == []
    assert len(world.reader.trials("c2")) == 8


def test_the_collector_goes_on_as_if_it_had_never_been(world, settings):
    steps(world)
    remove(settings, "c1", records=False)
    world.dispatcher.on_connect()
    steps(world, 3)
    assert world.retained == {}
    assert set(world.states("c2").values()) == {JobState.SUCCEEDED}


def test_a_campaign_that_runs_is_not_deleted(world, settings):
    steps(world, 3)
    for act in (look_at, lambda *args: remove(*args, records=True)):
        with pytest.raises(ConfigError, match="c1 is running"):
            act(settings, "c1")
    assert ids(world) == ["c1", "c2"]


def test_an_assignment_that_the_broker_may_still_hold_is_waited_for(world, settings):
    steps(world, 3)
    with closing(world.store()) as store:
        store.request_cancel("c1")
        for job in store.jobs("c1"):
            store.set_job_state(job.job_id, JobState.CANCELED)
    with pytest.raises(ConfigError, match="may still hold 1 assignment"):
        remove(settings, "c1", records=False)
    steps(world, 1)
    remove(settings, "c1", records=False)
    assert ids(world) == ["c2"]


def test_a_device_that_still_has_a_job_of_it_open_is_waited_for(world, settings):
    steps(world)
    registry = DeviceRegistry(settings.state_file)
    for state in (JobState.IN_PROGRESS, JobState.CANCELED):
        known = KnownJob(job_id="c1.pi-1.001", attempt=1, state=state)
        status = Status(online=True, boot_id=EPOCH, agent_version=__version__, started_ns=START_NS)
        registry.receive(topics.topic("lab", "pi-1", "status"), codec.encode(status))
        inventory = codec.encode(make_inventory(jobs=(known,)))
        registry.receive(topics.topic("lab", "pi-1", "inventory"), inventory)
        registry.flush()
        if state is JobState.IN_PROGRESS:
            with pytest.raises(ConfigError, match="pi-1 has not been told yet"):
                look_at(settings, "c1")
    registry.close()
    assert look_at(settings, "c1").state == "SUCCEEDED"


def test_a_store_that_deletes_by_its_own_means_keeps_the_campaign_too(world, tmp_path):
    steps(world)
    influx = CollectorSettings(data_dir=tmp_path, store={"kind": "influxdb"})
    with pytest.raises(ConfigError, match="not deleted by fleetmark"):
        remove(influx, "c1", records=True)
    assert ids(world) == ["c1", "c2"]
    assert remove(influx, "c1", records=False) == {}
