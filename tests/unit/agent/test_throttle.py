"""What says that a machine is slowed down: a Pi's firmware, its voltage alarm, an x86's counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.fake_sysfs import FakeSysfs, raspberry_pi
from fleetmark_agent.telemetry.throttle import NOW, Throttle, first_change


def probed(root):
    sensor = Throttle(root)
    sensor.probe()
    return sensor


class TestFirmware:
    @pytest.mark.parametrize(
        ("bits", "throttled"),
        [(0, 0), (0x1, 1), (0x2, 1), (0x4, 1), (0x8, 1), (0x50005, 1), (0xF0000, 0)],
    )
    def test_only_what_is_so_now_counts_as_throttled(self, tmp_path, bits, throttled):
        pi = raspberry_pi(tmp_path)
        sensor = probed(tmp_path)
        pi.firmware_bits(bits)
        assert sensor.read() == {"throttled": throttled, "throttled_bits": bits}

    def test_bits_with_and_without_a_prefix_are_hexadecimal(self, tmp_path):
        file = raspberry_pi(tmp_path).firmware_bits(0)
        sensor = probed(tmp_path)
        for text in ("50005\n", "0x50005\n"):
            file.write_text(text)
            assert sensor.read()["throttled_bits"] == 0x50005

    def test_it_is_found_whatever_the_device_tree_calls_the_chip(self, tmp_path):
        FakeSysfs(tmp_path).firmware_bits(0x4, "soc@107c000000:firmware")
        assert probed(tmp_path).read()["throttled_bits"] == 0x4

    def test_it_is_found_without_the_driver_s_folder(self, tmp_path):
        FakeSysfs(tmp_path).write("sys/devices/platform/soc/soc:firmware/get_throttled", "8\n")
        assert probed(tmp_path).read() == {"throttled": 1, "throttled_bits": 8}

    def test_a_firmware_that_does_not_answer_is_absent_and_not_zero(self, tmp_path):
        file = raspberry_pi(tmp_path).firmware_bits(0)
        sensor = probed(tmp_path)
        for text in ("", "none\n", "-1\n"):
            file.write_text(text)
            assert sensor.read() == {}
        file.unlink()
        assert sensor.read() == {}


class TestVoltageAlarm:
    def test_it_is_taken_where_the_firmware_s_file_is_missing(self, tmp_path):
        tree = FakeSysfs(tmp_path)
        tree.chip(0, "cpu_thermal", 50_000)
        tree.write("sys/class/hwmon/hwmon0/in0_lcrit_alarm", "1\n")
        tree.voltage_alarm(1, 0)
        sensor = Throttle(tmp_path)
        status = sensor.probe()
        assert status.fields == ("throttled",)
        assert "under-voltage" in status.source
        assert sensor.read() == {"throttled": 0}
        tree.voltage_alarm(1, 1)
        assert sensor.read() == {"throttled": 1}


class TestCounts:
    def tree(self, root):
        tree = FakeSysfs(root)
        for cpu, core, package in ((0, 0, 0), (1, 1, 0), (2, 0, 1), (3, 1, 1)):
            tree.throttle_count(cpu, 5, core=core, package=package)
        return tree

    def test_a_count_that_has_grown_since_the_reading_before_is_throttling(self, tmp_path):
        tree = self.tree(tmp_path)
        sensor = probed(tmp_path)
        assert sensor.read() == {}
        assert sensor.read() == {"throttled": 0}
        tree.throttle_count(2, 6, core=0, package=1)
        assert sensor.read() == {"throttled": 1}
        assert sensor.read() == {"throttled": 0}

    def test_a_package_that_was_throttled_counts_too(self, tmp_path):
        tree = self.tree(tmp_path)
        sensor = probed(tmp_path)
        sensor.read()
        tree.write("sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count", "1\n")
        assert sensor.read() == {"throttled": 1}

    def test_each_core_and_package_is_read_once_however_many_threads_it_has(self, tmp_path):
        tree = self.tree(tmp_path)
        tree.throttle_count(4, 5, core=0, package=0)
        # Four cores and two packages.
        assert "(6 counts)" in Throttle(tmp_path).probe().source

    def test_a_core_that_went_off_line_and_came_back_is_not_throttled(self, tmp_path):
        tree = self.tree(tmp_path)
        sensor = probed(tmp_path)
        sensor.read()
        file = tmp_path / "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count"
        file.unlink()
        assert sensor.read() == {"throttled": 0}
        tree.throttle_count(1, 7, core=1)
        assert sensor.read() == {"throttled": 0}
        tree.throttle_count(1, 3, core=1)
        assert sensor.read() == {"throttled": 0}


def test_a_machine_without_any_of_them_says_why(tmp_path):
    status = Throttle(tmp_path).probe()
    assert not status.available
    assert "virtual machines" in status.reason


bits = st.integers(0, 0xFFFFF)


@given(bits, st.integers(1, 5))
def test_bits_that_stay_as_they_are_have_not_changed(value, count):
    assert first_change([value] * count) == (value, value)


@given(bits, bits)
def test_a_change_is_told_the_moment_it_is_seen(before, after):
    came_up, ended = after & ~before, before & ~after & NOW
    changed = first_change([before, after, after]) == (before, after) and before != after
    assert changed == bool(came_up or ended)


def test_no_bits_have_no_change():
    assert first_change([]) is None
