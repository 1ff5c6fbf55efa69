"""What the collector knows becomes points: right numbers, right times, nothing made up."""

from dataclasses import replace

import pytest

from fakes.fake_fleet import FakeDevice, FakeWorld, S, make_inventory
from fleetmark_collector.campaigns.view import View
from fleetmark_collector.devices import Device
from fleetmark_collector.monitoring.observations import (
    Reading,
    campaign_point,
    collector_point,
    device_points,
)
from fleetmark_collector.tally import Stats
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.messages import BackendInfo, Hardware, Status

NOW_NS = 1_900_000_000 * S
STATUS = Status(
    online=True,
    boot_id="0b0c7b0e-4a4c-4a53-9d0c-0d3f0f5a00a1",
    agent_version="0.2.0",
    started_ns=1,
)


class TestDevices:
    def test_a_device_says_what_it_is_and_how_long_it_has_been_silent(self):
        inventory = make_inventory(
            tags=("arm", "lab"),
            hardware=Hardware(
                arch="aarch64",
                os="Debian 12",
                kernel="6.6",
                hostname="pi",
                board="Raspberry Pi 5",
                cores_logical=4,
                mem_total_bytes=8 * 2**30,
            ),
            backends=(
                BackendInfo(name="xllamacpp", available=True),
                BackendInfo(name="ollama", available=False),
                BackendInfo(name="ctransformers", available=True),
            ),
        )
        device = Device("lab", "pi", True, STATUS, inventory, NOW_NS - 5 * S // 2)
        (point,) = device_points([device], NOW_NS)
        assert (point.measurement, point.time_ns) == ("device", NOW_NS)
        assert point.tags == {"fleet": "lab", "device": "pi"}
        assert point.fields == {
            "online": 1,
            "silent_s": 2.5,
            "agent_version": "0.2.0",
            "arch": "aarch64",
            "board": "Raspberry Pi 5",
            "os": "Debian 12",
            "kernel": "6.6",
            "cores_logical": 4,
            "mem_total_bytes": 8 * 2**30,
            "tags": "arm lab",
            "backends": "ctransformers xllamacpp",
        }

    def test_what_is_not_known_of_a_device_is_absent(self):
        (point,) = device_points([Device("lab", "pi")], NOW_NS)
        assert point.fields == {"online": 0}

    def test_a_clock_that_was_set_back_makes_no_device_be_heard_in_the_future(self):
        (point,) = device_points([Device("lab", "pi", last_seen_ns=NOW_NS + S)], NOW_NS)
        assert point.fields["silent_s"] == 0.0


class TestCollector:
    before = Reading(Stats(records_written=100, writes=4, write_s_total=1.0), 50.0, True)

    def test_rates_and_write_times_are_over_the_time_since_the_reading_before(self):
        stats = Stats(records_written=350, writes=14, write_s_total=1.5, lag_s=0.25)
        now = Reading(stats, 60.0, True, write_s_max=0.2)
        devices = [Device("lab", "a", online=True), Device("lab", "b")]
        point = collector_point("centre", now, self.before, devices, NOW_NS)
        assert point.tags == {"collector": "centre"}
        assert point.fields["records_per_s"] == 25.0
        assert point.fields["write_s_mean"] == pytest.approx(0.05)
        assert point.fields["write_s_max"] == 0.2
        assert point.fields["lag_s"] == 0.25
        assert point.fields["devices_known"] == 2
        assert point.fields["devices_online"] == 1
        assert point.fields["store_available"] == 1
        assert point.fields["broker_connected"] == 1

    def test_every_counter_of_ingest_is_told_under_its_own_name(self):
        point = collector_point("centre", self.before, None, [], NOW_NS)
        told = set(point.fields)
        assert set(vars(Stats())) - {"writes", "write_s_total"} <= told

    def test_without_a_reading_before_there_are_no_rates(self):
        fields = collector_point("centre", self.before, None, [], NOW_NS).fields
        assert {"records_per_s", "write_s_mean", "write_s_max"}.isdisjoint(fields)

    def test_a_time_without_a_write_has_no_write_times_but_a_rate_of_zero(self):
        now = replace(self.before, mono_s=60.0, connected=False)
        fields = collector_point("centre", now, self.before, [], NOW_NS).fields
        assert fields["records_per_s"] == 0.0
        assert {"write_s_mean", "write_s_max"}.isdisjoint(fields)
        assert fields["broker_connected"] == 0


class TestCampaign:
    @pytest.fixture
    def view(self, tmp_path):
        world = FakeWorld(tmp_path, FakeDevice("pi"))
        world.submit()
        store = world.store()
        yield View(store.campaign("c1"), tuple(store.jobs("c1")), (), {}, None, 0)
        store.close()
        world.close()

    def states(self, view, *states):
        jobs = [replace(job, state=state) for job, state in zip(view.jobs, states, strict=True)]
        return replace(view, jobs=tuple(jobs))

    def test_one_that_has_just_begun_has_no_share_of_failures_yet(self, view):
        point = campaign_point(view, NOW_NS)
        assert (point.tags, point.time_ns) == ({"campaign_id": "c1"}, NOW_NS)
        assert point.fields == {
            "name": "sizes",
            "state": "RUNNING",
            "jobs": 4,
            "jobs_queued": 4,
            "jobs_in_progress": 0,
            "jobs_succeeded": 0,
            "jobs_failed": 0,
            "jobs_timed_out": 0,
            "jobs_canceled": 0,
            "jobs_rejected": 0,
            "trials": 0,
            "trials_planned": 12,
            "progress_percent": 0.0,
        }

    def test_progress_counts_what_needs_no_waiting_for(self, view):
        now = self.states(
            view, JobState.SUCCEEDED, JobState.FAILED, JobState.IN_PROGRESS, JobState.QUEUED
        )
        stored = {view.jobs[0].job_id: 3, view.jobs[1].job_id: 1, view.jobs[2].job_id: 2}
        fields = campaign_point(replace(now, stored=stored), NOW_NS).fields
        assert fields["trials"] == 6
        assert fields["progress_percent"] == pytest.approx(100 * (3 + 3 + 2) / 12)
        assert fields["failed_percent"] == 50.0

    def test_a_job_that_was_canceled_has_ended_but_not_failed(self, view):
        now = self.states(
            view, JobState.CANCELED, JobState.REJECTED, JobState.TIMED_OUT, JobState.SUCCEEDED
        )
        assert campaign_point(now, NOW_NS).fields["failed_percent"] == 50.0

    def test_one_that_has_ended_says_so_at_the_time_of_its_end(self, view):
        ended = replace(view, campaign=replace(view.campaign, finished_ns=NOW_NS - 99))
        assert campaign_point(ended, NOW_NS).time_ns == NOW_NS - 99


def test_a_field_never_changes_its_type(tmp_path):
    world = FakeWorld(tmp_path, FakeDevice("pi"))
    world.submit()
    store = world.store()
    view = View(store.campaign("c1"), tuple(store.jobs("c1")), (), {}, None, 0)
    store.close()
    world.close()
    stats = Stats(records_written=3, writes=3, write_s_total=3, lag_s=0)
    now = Reading(stats, 9.0, True, write_s_max=1)
    points = [
        *device_points([Device("lab", "pi", last_seen_ns=NOW_NS)], NOW_NS),
        collector_point("c", now, replace(now, stats=Stats(), mono_s=0.0), [], NOW_NS),
        campaign_point(view, NOW_NS),
    ]
    for point in points:
        for name, value in point.fields.items():
            expected = float if name.endswith(("_s", "_percent", "_mean", "_max")) else (int, str)
            assert isinstance(value, expected), name
            assert not isinstance(value, bool), name
