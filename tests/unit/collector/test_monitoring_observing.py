"""Looking around: what is told in which round, and that nothing that goes wrong there hurts."""

import json
import sqlite3
import threading
from contextlib import closing

import pytest

from fakes.fake_fleet import FakeDevice, FakeWorld, S
from fakes.fake_observer import FakeObserver
from fleetmark_collector.campaigns.tables import CampaignState
from fleetmark_collector.devices import DeviceRegistry
from fleetmark_collector.monitoring.observations import Reading
from fleetmark_collector.monitoring.observing import Observing, Sources
from fleetmark_collector.monitoring.rounds import SETTLED_S, SUMMARY_S
from fleetmark_collector.sinks.sqlite import SqliteReader
from fleetmark_collector.tally import Stats
from fleetmark_protocol import codec
from fleetmark_protocol.errors import StoreUnavailable
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.messages import Status
from servers import wait_for

BOOT = "0b0c7b0e-4a4c-4a53-9d0c-0d3f0f5a00a1"


class Bench:
    """A world whose campaign advances by steps, and somebody who looks at it."""

    def __init__(self, directory, observer):
        self.world = FakeWorld(directory, FakeDevice("pi"))
        self.registry = DeviceRegistry(self.world.state_file, self.world.clock)
        self.observer = observer
        self.stats = Stats()
        self.mono_s = 1000.0
        self.opened = []
        self.observing = self.another()

    def another(self):
        """Look around anew, as after a restart."""
        sources = Sources(
            self.registry,
            self.world.state_file,
            self._open_reader,
            lambda: Reading(self.stats, self.mono_s, True),
        )
        self.observing = Observing(
            sources, self.observer, wall_ns=self.world.clock, mono_s=lambda: self.mono_s
        )
        return self.observing

    def _open_reader(self):
        self.opened.append(SqliteReader(self.world.directory / "store.db"))
        return self.opened[-1]

    def birth(self, device="pi"):
        status = Status(online=True, boot_id=BOOT, agent_version="1", started_ns=1)
        self.registry.receive(f"fleetmark/v1/lab/{device}/status", codec.encode(status))

    def pass_by(self, seconds):
        self.mono_s += seconds
        self.world.now_ns += int(seconds * S)

    def look(self):
        """Return what one round told."""
        self.observing.look()
        return [] if self.observer is None else self.observer.take()

    def close(self):
        for reader in self.opened:
            reader.close()
        self.registry.close()
        self.world.close()


@pytest.fixture
def make_bench(tmp_path):
    made = []

    def make(observer):
        made.append(Bench(tmp_path, observer))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


@pytest.fixture
def bench(make_bench):
    return make_bench(FakeObserver())


def measurements(points):
    return [point.measurement for point in points]


def test_a_round_tells_of_devices_collector_campaigns_and_cells(bench):
    bench.birth()
    bench.world.submit()
    for _ in range(40):
        bench.world.step()
    points = bench.look()
    assert measurements(points)[:3] == ["device", "collector", "campaign"]
    cells = [point for point in points if point.measurement == "cell"]
    assert {point.tags["workload"] for point in cells} == {"one"}
    assert {point.tags["quantization"]: point.fields["trials"] for point in cells} == {
        "Q8_0": 4,
        "Q4_0": 4,
    }


def test_cells_are_told_again_only_when_trials_came_and_time_has_passed(bench):
    bench.world.submit()
    bench.world.step(3)
    bench.look()
    bench.pass_by(SUMMARY_S)
    assert "cell" not in measurements(bench.look()), "nothing came"
    for _ in range(3):
        bench.world.step()
    bench.pass_by(SUMMARY_S)
    assert "cell" in measurements(bench.look())
    bench.world.step()
    assert "cell" not in measurements(bench.look()), "too soon"


def test_a_campaign_that_has_ended_is_told_of_at_its_end_and_then_no_more(bench):
    bench.world.submit()
    bench.look()
    for _ in range(40):
        bench.world.step()
    ended = bench.world.store()
    campaign = ended.campaign("c1")
    ended.close()
    assert campaign.state is CampaignState.SUCCEEDED
    bench.pass_by(SUMMARY_S)
    last = [point for point in bench.look() if point.measurement == "campaign"]
    assert last[0].time_ns == campaign.finished_ns
    assert last[0].fields["state"] == "SUCCEEDED"
    assert last[0].fields["jobs_succeeded"] == 4
    bench.pass_by(SETTLED_S)
    bench.look()
    assert {"campaign", "cell"}.isdisjoint(measurements(bench.look()))


def test_after_a_restart_what_has_ended_is_told_once_more_with_the_same_points(bench):
    bench.world.submit()
    for _ in range(40):
        bench.world.step()
    bench.pass_by(SETTLED_S)
    first = [point for point in bench.look() if point.measurement in ("campaign", "cell")]
    assert first
    bench.another()
    again = [point for point in bench.look() if point.measurement in ("campaign", "cell")]
    assert again == first


def test_what_ended_while_the_store_was_away_is_told_until_it_is_back(bench):
    bench.world.submit()
    for _ in range(40):
        bench.world.step()
    bench.pass_by(SETTLED_S)
    bench.stats = Stats(store_available=False)
    bench.look()
    assert "campaign" in measurements(bench.look())
    bench.stats = Stats()
    bench.look()
    assert "campaign" not in measurements(bench.look())


def test_a_failing_observer_is_logged_once_and_told_again_the_next_time(bench, capsys):
    bench.birth()
    bench.world.submit()
    bench.observer.trouble = OSError("no route")
    for _ in range(3):
        bench.look()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    failed = [line for line in lines if line["event"] == "observation_failed"]
    assert len({line["what"] for line in failed}) == len(failed)
    assert all("no route" in line["reason"] for line in failed)
    bench.observer.trouble = None
    assert {"device", "collector", "campaign"} <= set(measurements(bench.look()))


def test_a_store_that_cannot_be_read_costs_the_campaigns_only(bench, capsys, monkeypatch):
    bench.birth()
    bench.world.submit()

    def refuse(*_):
        raise StoreUnavailable("nobody answers")

    monkeypatch.setattr(SqliteReader, "trial_counts", refuse)
    assert measurements(bench.look()) == ["device", "collector"]
    bench.look()
    assert capsys.readouterr().err.count("nobody answers") == 1
    monkeypatch.undo()
    assert "campaign" in measurements(bench.look())


def test_one_campaign_that_cannot_be_summed_up_spoils_no_other(bench, monkeypatch):
    for campaign_id in ("c1", "c2"):
        bench.world.submit(campaign_id)
    for _ in range(80):
        bench.world.step()
    real = SqliteReader.trials

    def refuse(self, campaign_id):
        if campaign_id == "c1":
            raise ValueError("as told")
        return real(self, campaign_id)

    monkeypatch.setattr(SqliteReader, "trials", refuse)
    cells = [point for point in bench.look() if point.measurement == "cell"]
    assert {point.tags["campaign_id"] for point in cells} == {"c2"}


def test_without_an_observer_only_the_snapshot_is_kept_and_the_store_is_not_asked(make_bench):
    bench = make_bench(None)
    assert bench.observing.snapshot is None
    bench.birth("pi")
    bench.birth("ec2")
    bench.world.submit()
    for _ in range(3):
        bench.world.step()
    bench.look()
    snapshot = bench.observing.snapshot
    assert (snapshot.devices_known, snapshot.devices_online) == (2, 2)
    assert snapshot.campaigns == {CampaignState.RUNNING: 1}
    assert snapshot.jobs == {JobState.IN_PROGRESS: 1, JobState.QUEUED: 3}
    assert bench.opened == []


def test_a_campaign_that_was_deleted_is_told_of_no_more(bench):
    bench.world.submit()
    bench.look()
    with closing(sqlite3.connect(bench.world.state_file)) as db, db:
        db.execute("DELETE FROM jobs")
        db.execute("DELETE FROM campaigns")
    assert "campaign" not in measurements(bench.look())


def test_the_thread_looks_until_it_is_stopped(bench):
    bench.birth()
    sources = Sources(
        bench.registry,
        bench.world.state_file,
        bench._open_reader,
        lambda: Reading(Stats(), 1.0, True),
    )
    observing = Observing(sources, bench.observer, interval_s=0.01)
    observing.start()
    wait_for(lambda: len(bench.observer.of("collector")) >= 3, what="three rounds")
    observing.stop()
    assert "observing" not in {thread.name for thread in threading.enumerate()}
    calls = bench.observer.calls
    observing.stop()
    assert bench.observer.calls == calls
