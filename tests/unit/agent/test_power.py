"""Power from meters and from a processor's counters, and the energy of a window."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.fake_sensor import FakeClock, FakeCounters
from fakes.fake_sysfs import FakeSysfs, raspberry_pi, x86_server
from fleetmark_agent.telemetry.power import Power, energy_j
from fleetmark_agent.telemetry.power_hwmon import Meter
from fleetmark_agent.telemetry.power_rapl import Rapl
from fleetmark_agent.telemetry.sampler import Sampler
from fleetmark_protocol.records import TrialRecord

S = 10**9
RANGE_UJ = 262_143_328_850


@pytest.fixture
def sysfs(tmp_path):
    return FakeSysfs(tmp_path)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def rapl(sysfs, clock):
    """A sensor of one package that has been read once, at 1 J."""
    sysfs.rapl("0", "package-0", 1_000_000)
    sensor = Rapl(sysfs.root, clock)
    assert sensor.probe().available
    assert sensor.read() == {}
    return sensor


class TestRapl:
    def test_power_is_what_the_counter_grew_by_over_the_time(self, sysfs, clock, rapl):
        clock.advance(2)
        sysfs.rapl("0", "package-0", 31_000_000)
        assert rapl.read() == {"power_w": pytest.approx(15.0)}

    def test_packages_and_memory_are_added_and_what_is_within_a_package_is_not(
        self, tmp_path, clock
    ):
        server = x86_server(tmp_path)
        sensor = Rapl(tmp_path, clock)
        status = sensor.probe()
        assert status.energy_source == "rapl"
        assert "(package-0, dram, package-1, dram)" in status.source
        sensor.read()
        clock.advance(1)
        server.rapl("0", "package-0", 10_000_000)
        server.rapl("0:0", "core", 9_000_000)
        server.rapl("0:1", "dram", 1_250_000)
        assert sensor.read() == {"power_w": pytest.approx(11.0)}

    def test_the_same_package_shown_by_another_way_is_not_counted_twice(self, sysfs, rapl):
        sysfs.write("sys/class/powercap/intel-rapl-mmio:0/name", "package-0\n")
        sysfs.write("sys/class/powercap/intel-rapl-mmio:0/energy_uj", "1\n")
        assert Rapl(sysfs.root).probe().source.endswith("(package-0)")

    def test_a_counter_that_begins_anew_is_followed(self, sysfs, clock, rapl):
        clock.advance(1)
        sysfs.rapl("0", "package-0", RANGE_UJ - 4_000_000)
        rapl.read()
        clock.advance(1)
        sysfs.rapl("0", "package-0", 6_000_000)
        assert rapl.read() == {"power_w": pytest.approx(10.0)}

    def test_without_its_range_a_counter_that_begins_anew_costs_one_reading(self, sysfs, clock):
        sysfs.rapl("0", "package-0", 9_000_000, range_uj="")
        sensor = Rapl(sysfs.root, clock)
        sensor.probe()
        sensor.read()
        clock.advance(1)
        sysfs.rapl("0", "package-0", 1_000_000, range_uj="")
        assert sensor.read() == {}
        clock.advance(1)
        sysfs.rapl("0", "package-0", 3_000_000, range_uj="")
        assert sensor.read() == {"power_w": pytest.approx(2.0)}

    def test_what_is_read_too_soon_counts_at_the_next_reading(self, sysfs, clock, rapl):
        clock.advance(0.01)
        sysfs.rapl("0", "package-0", 1_500_000)
        assert rapl.read() == {}
        clock.advance(0.99)
        sysfs.rapl("0", "package-0", 6_000_000)
        assert rapl.read() == {"power_w": pytest.approx(5.0)}

    def test_counters_that_may_not_be_read_are_an_absence_with_the_reason(self, sysfs, monkeypatch):
        file = sysfs.rapl("0", "package-0", 1)
        real = Path.read_text

        # Root may read everything, so the kernel's refusal is played.
        def refusing(path, *how):
            if path == file:
                raise PermissionError(13, "Permission denied")
            return real(path, *how)

        monkeypatch.setattr(Path, "read_text", refusing)
        status = Power(sysfs.root).probe()
        assert not status.available
        assert "not allowed to read" in status.reason
        assert str(file) in status.reason
        assert "chgrp GROUP FILE && chmod 440 FILE" in status.hint

    @pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
    def test_the_kernels_own_refusal_is_one_too(self, sysfs):
        sysfs.rapl("0", "package-0", 1).chmod(0)
        assert "not allowed to read" in Rapl(sysfs.root).probe().reason

    @pytest.mark.parametrize("content", ["", "soon"])
    def test_a_counter_that_holds_no_number_is_an_absence(self, sysfs, content):
        sysfs.rapl("0", "package-0", content)
        assert not Rapl(sysfs.root).probe().available

    def test_a_machine_without_counters_says_so(self, tmp_path):
        assert "no RAPL counters" in Rapl(tmp_path).probe().reason


class TestMeter:
    @pytest.mark.parametrize("name", ["ina219", "ina226", "ina2xx", "isl28022", "power_meter"])
    def test_a_meter_shows_the_power_of_the_moment(self, sysfs, name):
        sysfs.meter(3, name, 4_250_000)
        sensor = Meter(sysfs.root)
        assert sensor.probe().energy_source == "meter"
        assert sensor.read() == {"power_w": 4.25}
        sysfs.meter(3, name, 5_000_000)
        assert sensor.read() == {"power_w": 5.0}

    def test_the_chips_own_mean_goes_before_a_moment(self, sysfs):
        sysfs.meter(0, "ina226", 1_000_000)
        sysfs.meter(0, "ina226", 2_000_000, of="power1_average")
        sensor = Meter(sysfs.root)
        sensor.probe()
        assert sensor.read() == {"power_w": 2.0}

    @pytest.mark.parametrize("name", ["amdgpu", "fam15h_power", "zenpower", "nvme", "cpu_thermal"])
    def test_what_measures_a_part_of_the_machine_is_no_meter(self, sysfs, name):
        sysfs.meter(0, name, 9_000_000)
        assert Meter(sysfs.root).probe().reason == "no power meter"

    def test_of_two_meters_none_is_taken_for_the_whole_machine(self, sysfs):
        sysfs.meter(0, "ina219", 1_000_000)
        sysfs.meter(1, "ina219", 2_000_000)
        status = Meter(sysfs.root).probe()
        assert not status.available
        assert "2 power meters (ina219, ina219)" in status.reason

    def test_a_channel_of_several_is_as_uncertain_as_a_meter_of_several(self, sysfs):
        sysfs.meter(0, "ina226", 1_000_000)
        sysfs.meter(0, "ina226", 1_000_000, of="power2_input")
        assert not Meter(sysfs.root).probe().available

    def test_a_meter_that_cannot_be_read_is_an_absence_with_the_reason(self, sysfs):
        sysfs.meter(0, "ina219", "")
        assert "cannot be read" in Meter(sysfs.root).probe().reason

    def test_less_than_nothing_is_not_reported(self, sysfs):
        sysfs.meter(0, "ina219", 1_000_000)
        sensor = Meter(sysfs.root)
        sensor.probe()
        sysfs.meter(0, "ina219", -20_000)
        assert sensor.read() == {}


class TestPower:
    def test_a_meter_goes_before_the_processors_counters(self, tmp_path):
        x86_server(tmp_path).meter(0, "power_meter", 90_000_000, of="power1_average")
        sensor = Power(tmp_path)
        assert sensor.probe().energy_source == "meter"
        assert sensor.read() == {"power_w": 90.0}

    def test_where_two_meters_leave_it_open_the_counters_count(self, tmp_path):
        server = x86_server(tmp_path)
        server.meter(0, "ina219", 1)
        server.meter(1, "ina219", 1)
        assert Power(tmp_path).probe().energy_source == "rapl"

    def test_a_board_without_either_says_what_is_missing(self, tmp_path):
        raspberry_pi(tmp_path)
        status = Power(tmp_path).probe()
        assert not status.available
        assert status.energy_source is None
        assert "no power meter; no RAPL counters" in status.reason


class TestEnergy:
    def test_of_a_counter_it_is_what_the_counter_grew_by(self):
        readings = [(1 * S, 10.0), (3 * S, 20.0), (4 * S, 5.0)]
        assert energy_j("rapl", 0, readings, 4 * S) == pytest.approx(10 + 40 + 5)

    def test_the_rest_after_a_counters_last_reading_is_at_its_last_power(self):
        assert energy_j("rapl", 0, [(1 * S, 10.0)], 3 * S) == pytest.approx(30)

    def test_of_a_meter_it_is_the_area_below_straight_lines(self):
        readings = [(1 * S, 4.0), (3 * S, 8.0)]
        assert energy_j("meter", (0, 2.0), readings, 3 * S) == pytest.approx(3 + 12)

    def test_a_meter_that_was_not_read_before_begins_as_it_goes_on(self):
        assert energy_j("meter", 0, [(2 * S, 4.0)], 2 * S) == pytest.approx(8)

    @pytest.mark.parametrize("source", ["meter", "rapl"])
    def test_of_nothing_there_is_none(self, source):
        assert energy_j(source, 0, [], S) is None
        assert energy_j(source, (S, 4.0), [(S, 4.0)], S) is None

    @given(
        st.sampled_from(["meter", "rapl"]),
        st.floats(0, 500),
        st.lists(st.integers(1, 10**10), min_size=1, max_size=20),
    )
    def test_a_steady_power_gives_power_times_time(self, source, watts, spans):
        time_ns, readings = 0, []
        for span in spans:
            time_ns += span
            readings.append((time_ns, watts))
        found = energy_j(source, (0, watts), readings, time_ns)
        assert found == pytest.approx(watts * time_ns / 1e9)


class TestWindow:
    @pytest.fixture
    def trial(self, sysfs, clock):
        """Runs a window with a sample a second; yields its summary as a trial's record has it."""

        def run(prepare, each_second, seconds=4):
            prepare()
            wall = FakeClock(10**18)
            counters = FakeCounters(clock, wall)
            sensor = Power(sysfs.root, clock)
            sampler = Sampler([sensor], lambda *_: None, 1.0, 0.2, counters.read, clock, wall)
            sampler.sample()
            clock.advance(1)
            sampler.open_window(os.getpid(), "job", "job.t")
            for second in range(1, seconds + 1):
                clock.advance(1)
                each_second(second)
                if second < seconds:
                    sampler.sample()
            return sampler.close_window().summary()

        return run

    def test_a_trials_energy_is_that_of_its_window_with_the_class_of_its_source(self, trial, sysfs):
        summary = trial(
            lambda: sysfs.rapl("0", "package-0", 0),
            lambda second: sysfs.rapl("0", "package-0", second * 7_000_000),
        )
        assert summary["energy_j"] == pytest.approx(28)
        assert summary["energy_source"] == "rapl"
        assert {"energy_j", "energy_source"} <= set(TrialRecord.model_fields)

    def test_a_counter_that_begins_anew_within_the_window_loses_nothing(self, trial, sysfs):
        start = RANGE_UJ - 10_000_000
        summary = trial(
            lambda: sysfs.rapl("0", "package-0", start),
            lambda second: sysfs.rapl("0", "package-0", (start + second * 7_000_000) % RANGE_UJ),
        )
        assert summary["energy_j"] == pytest.approx(28)

    def test_a_meters_energy_is_its_power_over_the_window(self, trial, sysfs):
        summary = trial(
            lambda: sysfs.meter(0, "ina219", 3_000_000),
            lambda second: sysfs.meter(0, "ina219", 3_000_000 + second * 1_000_000),
        )
        # 3, 4, 5, 6, 7 W, a second apart.
        assert summary["energy_j"] == pytest.approx(3.5 + 4.5 + 5.5 + 6.5)
        assert summary["energy_source"] == "meter"

    def test_a_meter_that_left_a_sample_out_gives_no_energy(self, trial, sysfs):
        summary = trial(
            lambda: sysfs.meter(0, "ina219", 3_000_000),
            lambda second: sysfs.meter(0, "ina219", "gone" if second == 2 else 3_000_000),
        )
        assert summary["samples"] == 4
        assert "energy_j" not in summary
        assert "energy_source" not in summary

    def test_a_machine_without_a_sensor_has_no_energy(self, trial):
        summary = trial(lambda: None, lambda second: None)
        assert not {"energy_j", "energy_source"} & set(summary)
