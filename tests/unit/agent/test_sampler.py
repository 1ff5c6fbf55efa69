"""When samples are taken, which are kept back, and what a window says of a trial."""

import os
import threading
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.fake_sensor import FakeClock, FakeCounters, FakeSensor
from fleetmark_agent.telemetry.sampler import Sampler, next_due_ns
from fleetmark_agent.telemetry.sensors import all_sensors
from fleetmark_agent.telemetry.window import MAX_HELD_SAMPLES
from fleetmark_protocol.records import TrialRecord

BOOT = "00000000-0000-0000-0000-000000000000"
PID = os.getpid()
NO_PID = 2**22 + 1
"""Above the highest that the kernel gives: no process, and none that costs time to look at."""


class Bench:
    """A sampler whose sensor, counters and clocks are the test's."""

    def __init__(self, *more_sensors):
        self.mono, self.wall = FakeClock(), FakeClock(10**18)
        self.values = {"cpu_percent": 10.0}
        self.counters = FakeCounters(self.mono, self.wall)
        self.emitted = []
        self.sensor = FakeSensor(lambda: dict(self.values))
        self.sampler = Sampler(
            [self.sensor, *more_sensors],
            lambda *all_of_it: self.emitted.append(all_of_it),
            1.0,
            0.2,
            self.counters.read,
            self.mono,
            self.wall,
        )

    def advance(self, seconds):
        self.mono.advance(seconds)
        self.wall.advance(seconds)

    def sample(self, **values):
        self.values = values
        self.advance(1)
        return self.sampler.sample()

    def open(self, trial_id="job.t", pid=PID):
        self.sampler.open_window(pid, "job", trial_id)


@pytest.fixture
def bench():
    return Bench()


class TestSamples:
    def test_a_sample_becomes_a_record_with_its_ids(self, bench):
        bench.sampler.set_job("job")
        bench.sample(cpu_percent=12.5)
        sample, job_id, trial_id = bench.emitted.pop()
        record = sample.to_record(BOOT, job_id, trial_id)
        assert (record.job_id, record.trial_id) == ("job", None)
        assert record.cpu_percent == 12.5
        assert record.time_ns == bench.wall.now_ns
        assert record.mem_total_bytes is None

    def test_the_newest_sample_can_be_asked_for(self, bench):
        assert bench.sampler.latest() is None
        taken = bench.sample(cpu_percent=1.0)
        assert bench.sampler.latest() is taken

    def test_one_broken_sensor_does_not_lose_the_sample(self):
        def broken():
            raise OSError("unplugged")

        bench = Bench(FakeSensor(broken, "broken"))
        assert bench.sample(cpu_percent=3.0).values == {"cpu_percent": 3.0}
        failures = {one.name: one.failures for one in bench.sampler.sensor_health()}
        assert failures == {"fake": 0, "broken": 1}

    def test_backend_fields_are_there_while_a_process_is_followed(self, bench):
        bench.sampler.follow(PID)
        assert bench.sample().values["rss_bytes"] > 0
        bench.sampler.follow(None)
        assert "rss_bytes" not in bench.sample().values

    def test_a_receiver_that_fails_does_not_stop_the_sampling(self, capsys):
        def refuse(*_):
            raise OSError("disk full")

        sampler = Sampler([FakeSensor(dict)], refuse, 1.0, 0.2)
        sampler.sample()
        sampler.sample()
        said = "".join(capsys.readouterr())
        assert said.count("sample_refused") == 1


class TestWindow:
    def test_nothing_is_handed_on_inside_a_window_and_all_of_it_after(self, bench):
        bench.sampler.set_job("other")
        bench.open()
        inside = [bench.sample(cpu_percent=float(one)) for one in range(3)]
        assert bench.emitted == []
        bench.advance(1)
        bench.sampler.close_window()
        samples, jobs, trials = zip(*bench.emitted, strict=True)
        assert list(samples[:3]) == inside
        assert len(samples) == 4
        assert set(jobs) == {"job"}
        assert set(trials) == {"job.t"}
        bench.sample()
        assert bench.emitted[-1][1:] == ("other", None)

    def test_means_come_from_counters_and_peaks_from_samples(self, bench):
        bench.open()
        for percent in (10.0, 60.0, 30.0):
            bench.sample(
                cpu_percent=percent,
                temperature_c=40 + percent / 10,
                cpu_freq_hz=1e9 + percent,
                mem_used_percent=percent / 2,
            )
        bench.values = {}
        bench.advance(1)
        bench.counters.busy_s += 4.0
        bench.counters.steal_s += 0.8
        bench.counters.agent_cpu_s += 0.1
        bench.counters.backend_cpu_s += 6.0
        bench.counters.swapped_in_bytes += 8192
        window = bench.sampler.close_window()
        summary = window.summary()
        for name in ("rss_bytes", "rss_file_bytes", "pss_bytes"):
            assert summary.pop(name) > 0
        assert summary.pop("backend_cpu_percent_max") >= summary.pop("backend_cpu_percent_p95")
        assert summary == pytest.approx(
            {
                "samples": 4,
                "cpu_percent_mean": 25.0,
                "cpu_percent_p95": 57.0,
                "cpu_percent_max": 60.0,
                "cpu_steal_percent_mean": 5.0,
                "backend_cpu_percent_mean": 150.0,
                "agent_cpu_percent": 2.5,
                "cpu_freq_hz_min": 1e9 + 10,
                "temperature_c_max": 46.0,
                "mem_used_percent_mean": 50 / 3,
                "mem_used_percent_max": 30.0,
                "swap_in_bytes": 8192,
            }
        )
        assert window.cpu_freq_hz_max == 1e9 + 60
        assert window.duration_s == pytest.approx(4)

    def test_what_was_not_observed_is_not_in_the_summary(self, bench):
        bench.values = {}
        bench.counters.backend_cpu_s = bench.counters.swapped_in_bytes = None
        bench.open()
        bench.advance(1)
        summary = bench.sampler.close_window().summary()
        assert not {"temperature_c_max", "cpu_freq_hz_min", "cpu_percent_max"} & set(summary)
        assert not {"swap_in_bytes", "backend_cpu_percent_mean"} & set(summary)

    def test_counters_that_went_backwards_are_left_out(self, bench):
        bench.counters.busy_s = bench.counters.swapped_in_bytes = 50
        bench.open()
        bench.counters.busy_s = bench.counters.swapped_in_bytes = 0
        bench.advance(1)
        summary = bench.sampler.close_window().summary()
        assert not {"cpu_percent_mean", "swap_in_bytes"} & set(summary)
        assert "agent_cpu_percent" in summary

    def test_a_window_shorter_than_the_clocks_can_tell_has_memory_but_no_rates(self, bench):
        bench.values = {"mem_used_percent": 5.0}
        bench.open()
        bench.advance(0.02)
        summary = bench.sampler.close_window().summary()
        assert summary["samples"] == 1
        assert summary["mem_used_percent_max"] == 5.0
        assert not [name for name in summary if "cpu_percent" in name]

    def test_setting_the_clock_shows_and_the_passing_of_time_does_not(self, bench):
        bench.open()
        bench.advance(60)
        assert bench.sampler.close_window().clock_step_s == 0
        bench.open()
        bench.advance(60)
        bench.wall.advance(-0.25)
        assert bench.sampler.close_window().clock_step_s == pytest.approx(-0.25)

    def test_peaks_of_a_very_long_window_are_exact_though_not_all_samples_are_kept(self, bench):
        bench.open(pid=NO_PID)
        count = 2 * MAX_HELD_SAMPLES + 2
        for one in range(count):
            bench.sample(cpu_percent=99.0 if one == 1 else 1.0)
        bench.advance(1)
        summary = bench.sampler.close_window().summary()
        assert summary["cpu_percent_max"] == 99.0
        assert summary["samples"] == count + 1
        assert MAX_HELD_SAMPLES / 2 < len(bench.emitted) <= MAX_HELD_SAMPLES
        times = [sample.mono_ns for sample, _, _ in bench.emitted]
        gaps = {later - earlier for earlier, later in pairwise(times)}
        assert len(gaps) == 1

    def test_rates_inside_begin_at_the_opening_and_not_at_the_sample_before(self, bench):
        bench.sample()
        bench.open()
        assert bench.sensor.reads == 2

    def test_the_sample_just_before_is_kept_apart(self, bench):
        bench.values = {"cpu_percent": 3.0}
        bench.open()
        bench.values = {"cpu_percent": 90.0}
        bench.advance(1)
        window = bench.sampler.close_window()
        assert window.before.values["cpu_percent"] == 3.0
        assert window.summary()["cpu_percent_max"] == 90.0

    def test_after_a_window_the_followed_process_is_as_before(self, bench):
        bench.open()
        bench.advance(1)
        bench.sampler.close_window()
        assert "rss_bytes" not in bench.sample().values

    @pytest.mark.parametrize(
        ("before", "within", "change"),
        [
            (0, [0, 0], (0, 0)),
            (0x50005, [0x50005], (0x50005, 0x50005)),
            (0, [0x50005, 0x50000], (0, 0x50005)),
            (0, [0, 0x10000], (0, 0x10000)),
            (0x5, [0x5, 0x0], (0x5, 0x0)),
            (0x50000, [0x50000, 0], (0, 0)),
        ],
    )
    def test_throttling_that_began_or_ended_in_a_window_is_told(
        self, bench, before, within, change
    ):
        bench.values = {"throttled": 0, "throttled_bits": before}
        bench.open()
        for bits in within:
            bench.sample(throttled=int(bits & 0xF != 0), throttled_bits=bits)
        assert bench.sampler.close_window().throttled_change == change

    def test_where_there_are_no_bits_any_throttling_within_the_window_is_a_change(self, bench):
        bench.values = {"throttled": 1}
        bench.open()
        bench.sample(throttled=0)
        assert bench.sampler.close_window().throttled_change == (0, 0)
        bench.open()
        bench.sample(throttled=1)
        assert bench.sampler.close_window().throttled_change == (0, 1)
        bench.open()
        bench.sample(throttled=1)
        bench.sample(throttled=0)
        window = bench.sampler.close_window()
        assert window.throttled_change == (0, 1)
        assert window.throttled_throughout is False

    def test_a_machine_that_is_throttled_all_the_time_shows_no_change(self, bench):
        bench.values = {"throttled": 1, "throttled_bits": 0x8}
        bench.open()
        bench.sample(**bench.values)
        window = bench.sampler.close_window()
        assert window.throttled_change == (0x8, 0x8)
        assert window.throttled_throughout is True

    def test_an_alarm_that_was_there_before_and_stays_is_no_change(self, bench):
        bench.values = {"throttled": 1}
        bench.open()
        bench.sample(throttled=1)
        window = bench.sampler.close_window()
        assert window.throttled_change == (1, 1)
        assert window.throttled_throughout is True

    def test_a_machine_that_does_not_say_is_not_taken_for_a_cool_one(self, bench):
        bench.open()
        window = bench.sampler.close_window()
        assert window.throttled_change is None
        assert window.throttled_throughout is None

    def test_windows_do_not_nest_and_none_is_closed_twice(self, bench):
        bench.open()
        with pytest.raises(RuntimeError, match="a window is open"):
            bench.open()
        bench.sampler.close_window()
        with pytest.raises(RuntimeError, match="no window"):
            bench.sampler.close_window()

    def test_a_window_of_the_real_machine_fits_a_trial_record(self, tmp_path):
        emitted = []
        sampler = Sampler(
            all_sensors(tmp_path.parent, tmp_path), lambda *it: emitted.append(it), 1.0, 0.1
        )
        sampler.open_window(PID, "job", None)
        sum(range(3_000_000))
        summary = sampler.close_window().summary()
        assert set(summary) <= set(TrialRecord.model_fields)
        assert {"rss_bytes", "pss_bytes", "mem_used_percent_mean", "samples"} <= set(summary)
        sample, job_id, trial_id = emitted.pop()
        assert sample.to_record(BOOT, job_id, trial_id).rss_bytes == summary["rss_bytes"]


class TestThread:
    def test_it_samples_until_it_is_stopped(self):
        sensor = FakeSensor(dict)
        sampler = Sampler([sensor], lambda *_: None, 0.01, 0.01)
        sampler.start()
        for _ in range(3):
            assert sensor.was_read.acquire(timeout=60)
        sampler.stop()
        reads = sensor.reads
        sampler.stop()
        assert sensor.reads == reads
        assert "sampler" not in {thread.name for thread in threading.enumerate()}

    def test_a_window_wakes_it_from_a_long_wait(self):
        sensor = FakeSensor(dict)
        sampler = Sampler([sensor], lambda *_: None, 3600.0, 0.01)
        sampler.start()
        assert sensor.was_read.acquire(timeout=60)
        sampler.open_window(PID, "job", "job.t")
        for _ in range(4):
            assert sensor.was_read.acquire(timeout=60)
        window = sampler.close_window()
        sampler.stop()
        assert window.samples >= 3

    def test_stopping_does_not_wait_for_the_next_sample(self):
        sampler = Sampler([FakeSensor(dict)], lambda *_: None, 3600.0, 0.01)
        sampler.start()
        sampler.stop()

    def test_stopping_what_was_never_started_is_no_mistake(self):
        Sampler([FakeSensor(dict)], lambda *_: None, 1.0, 0.2).stop()

    def test_opening_a_window_waits_for_a_sample_that_is_being_handed_on(self):
        handing_on, may_end = threading.Event(), threading.Event()
        opened = threading.Event()

        def slow(*_):
            handing_on.set()
            may_end.wait(60)

        def open_it():
            sampler.open_window(PID, "job", "job.t")
            opened.set()

        sampler = Sampler([FakeSensor(dict)], slow, 1.0, 0.2)
        sampling = threading.Thread(target=sampler.sample)
        opening = threading.Thread(target=open_it)
        sampling.start()
        assert handing_on.wait(60)
        opening.start()
        assert not opened.wait(0.05)
        assert sampler.latest() is not None
        may_end.set()
        assert opened.wait(60)
        sampling.join()
        opening.join()


@given(
    start=st.integers(0, 10**18), interval=st.integers(10**6, 10**12), late=st.integers(0, 10**13)
)
def test_the_schedule_keeps_its_grid_and_never_makes_up_for_a_stall(start, interval, late):
    due = next_due_ns(start, start + late, interval)
    assert (due - start) % interval == 0
    assert 0 < due - (start + late) <= interval
