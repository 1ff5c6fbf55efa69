"""Each sensor on machines that have, lack or lose what it observes."""

import os
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from fakes.fake_sensor import FakeClock, FakeSensor
from fakes.fake_sysfs import FakeSysfs, raspberry_pi
from fleetmark_agent.telemetry.agent_process import AgentProcess
from fleetmark_agent.telemetry.backlog import Backlog, Waiting
from fleetmark_agent.telemetry.cpu import Cpu, CpuTimes, core_times, share
from fleetmark_agent.telemetry.disk import Disk
from fleetmark_agent.telemetry.frequency import Frequency
from fleetmark_agent.telemetry.memory import Memory
from fleetmark_agent.telemetry.network import Network
from fleetmark_agent.telemetry.rates import Rates
from fleetmark_agent.telemetry.thermal import Thermal
from fleetmark_agent.telemetry.watch import Watched


def cores(*times):
    """Return a reader that gives one list of core times after the other."""
    rest = iter(times)
    return lambda: [CpuTimes(*core) for core in next(rest)]


class TestCpu:
    def test_percent_is_what_was_busy_since_the_reading_before(self):
        sensor = Cpu(
            cores([(10, 0, 100), (20, 0, 100)], [(11, 0, 101), (20.5, 0.25, 101)]),
        )
        assert "cpu_percent" not in sensor.read()
        values = sensor.read()
        assert values["cpu_percent"] == pytest.approx(75)
        assert values["cpu_percent_per_core"] == pytest.approx((100, 50))
        assert values["cpu_steal_percent"] == pytest.approx(12.5)

    def test_counters_that_go_backwards_leave_that_sample_without_percent(self):
        sensor = Cpu(cores([(10, 0, 100)], [(5, 0, 101)], [(6, 0, 102)]))
        sensor.read()
        assert "cpu_percent" not in sensor.read()
        assert sensor.read()["cpu_percent"] == pytest.approx(100)

    def test_a_core_that_went_off_line_leaves_that_sample_without_percent(self):
        sensor = Cpu(cores([(1, 0, 9), (1, 0, 9)], [(2, 0, 10)], [(3, 0, 11)]))
        sensor.read()
        assert "cpu_percent" not in sensor.read()
        assert "cpu_percent" in sensor.read()

    def test_a_few_ticks_say_nothing(self):
        assert share(CpuTimes(1, 0, 10), CpuTimes(1.02, 0, 10.04)) is None
        assert share(CpuTimes(1, 0, 10), CpuTimes(1.02, 0, 10.05)) is not None
        assert share(CpuTimes(1, 0, 10), CpuTimes(1.02, 0, 10.08), cores=2) is None

    def test_waiting_for_disks_and_stolen_time_are_not_busy(self, monkeypatch):
        core = SimpleNamespace(
            user=1, nice=2, system=4, irq=8, softirq=16, idle=32, iowait=64, steal=128, guest=1
        )
        monkeypatch.setattr(psutil, "cpu_times", lambda percpu: [core])
        assert core_times() == [CpuTimes(busy_s=31, steal_s=128, total_s=255)]

    def test_load_averages_are_the_kernels_own(self, monkeypatch):
        monkeypatch.setattr(psutil, "getloadavg", lambda: (1.5, 0.5, 0.25))
        assert Cpu().read() == {"load_1m": 1.5, "load_5m": 0.5}


class TestFrequency:
    def test_a_pi_runs_all_cores_at_one_frequency(self, tmp_path):
        raspberry_pi(tmp_path)
        sensor = Frequency(tmp_path)
        assert sensor.probe().fields == ("cpu_freq_hz",)
        assert sensor.read() == {"cpu_freq_hz": 2.4e9}

    def test_unlike_clusters_count_by_their_cores(self, tmp_path):
        tree = FakeSysfs(tmp_path)
        tree.policy(0, 1_000_000, (0, 1, 2))
        tree.policy(3, 2_000_000, (3,))
        sensor = Frequency(tmp_path)
        sensor.probe()
        assert sensor.read()["cpu_freq_hz"] == pytest.approx(1.25e9)

    def test_a_cluster_that_went_off_line_is_left_out(self, tmp_path):
        tree = FakeSysfs(tmp_path)
        tree.policy(0, 1_000_000)
        tree.policy(1, 2_000_000)
        sensor = Frequency(tmp_path)
        sensor.probe()
        tree.policy(1, "<unknown>")
        assert sensor.read() == {"cpu_freq_hz": 1e9}

    def test_zero_is_unknown_and_not_a_frequency(self, tmp_path):
        FakeSysfs(tmp_path).policy(0, 0)
        sensor = Frequency(tmp_path)
        assert not sensor.probe().available
        assert sensor.read() == {}

    def test_what_a_virtual_machine_calls_its_frequency_is_not_an_observation(self, tmp_path):
        FakeSysfs(tmp_path).write("proc/cpuinfo", "cpu MHz\t: 2596.146\nflags\t: fpu sse\n")
        assert not Frequency(tmp_path).probe().available

    def test_a_processor_that_counts_its_cycles_is_believed(self, tmp_path):
        text = "cpu MHz\t: {}\nflags\t: fpu aperfmperf sse\n"
        both = text.format("3000.000") + text.format("1000.000")
        FakeSysfs(tmp_path).write("proc/cpuinfo", both)
        sensor = Frequency(tmp_path)
        assert sensor.probe().available
        assert sensor.read() == {"cpu_freq_hz": pytest.approx(2e9)}


class TestMemory:
    def test_pages_swapped_in_count_since_the_reading_before(self, tmp_path):
        tree = FakeSysfs(tmp_path)
        tree.swapped_in(100)
        sensor = Memory(tmp_path)
        assert "swap_in_bytes" in sensor.probe().fields
        assert "swap_in_bytes" not in sensor.read()
        tree.swapped_in(103)
        assert sensor.read()["swap_in_bytes"] == 3 * os.sysconf("SC_PAGESIZE")
        assert sensor.read()["swap_in_bytes"] == 0

    def test_a_counter_that_goes_backwards_is_absent_once(self, tmp_path):
        tree = FakeSysfs(tmp_path)
        tree.swapped_in(100)
        sensor = Memory(tmp_path)
        sensor.read()
        tree.swapped_in(1)
        assert "swap_in_bytes" not in sensor.read()
        tree.swapped_in(2)
        assert "swap_in_bytes" in sensor.read()

    def test_a_kernel_that_does_not_count_swapping_leaves_it_out(self, tmp_path):
        sensor = Memory(tmp_path)
        assert "swap_in_bytes" not in sensor.probe().fields
        sensor.read()
        assert "swap_in_bytes" not in sensor.read()

    def test_swap_in_use_is_told_only_by_a_machine_that_has_swap(self, tmp_path):
        has_swap = psutil.swap_memory().total > 0
        assert ("swap_used_bytes" in Memory(tmp_path).read()) == has_swap

    def test_used_is_what_is_not_available(self, tmp_path):
        values = Memory(tmp_path).read()
        share_left = values["mem_available_bytes"] / values["mem_total_bytes"]
        assert values["mem_used_percent"] == pytest.approx(100 * (1 - share_left), abs=0.001)


class TestThermal:
    def test_a_pi_has_one_sensor_of_its_chip(self, tmp_path):
        raspberry_pi(tmp_path)
        sensor = Thermal(tmp_path)
        status = sensor.probe()
        assert status.available
        assert "cpu-thermal" in status.source
        assert "cpu_thermal" not in status.source
        assert "rp1_adc" not in status.source
        assert sensor.read() == {"temperature_c": pytest.approx(51.55)}

    def test_the_hottest_of_the_processor_counts_and_no_other(self, tmp_path):
        tree = FakeSysfs(tmp_path)
        tree.chip(0, "coretemp", 60_000, 71_000, 64_000)
        tree.chip(1, "nvme", 80_000)
        tree.zone(0, "acpitz", 90_000)
        tree.zone(1, "gpu-thermal", 95_000)
        tree.zone(2, "x86_pkg_temp", 70_000)
        sensor = Thermal(tmp_path)
        sensor.probe()
        assert sensor.read() == {"temperature_c": 71.0}

    def test_a_sensor_that_falls_silent_is_absent_and_not_zero(self, tmp_path):
        tree = FakeSysfs(tmp_path)
        file = tree.zone(0, "cpu-thermal", 50_000)
        sensor = Thermal(tmp_path)
        assert sensor.probe().available
        file.unlink()
        assert sensor.read() == {}

    @pytest.mark.parametrize("nonsense", ["-274000", "2147483647", "n/a", ""])
    def test_numbers_of_a_sensor_that_is_not_connected_are_absent(self, tmp_path, nonsense):
        FakeSysfs(tmp_path).zone(0, "soc-thermal", nonsense)
        sensor = Thermal(tmp_path)
        assert not sensor.probe().available
        assert sensor.read() == {}


class TestRates:
    def test_rates_add_up_over_what_was_there_both_times(self):
        clock = FakeClock()
        rates = Rates(clock)
        assert rates.per_second({"a": (100, 0)}) is None
        clock.advance(2)
        assert rates.per_second({"a": (300, 10), "plugged in": (10**12, 10**12)}) == (100, 5)
        clock.advance(1)
        assert rates.per_second({"plugged in": (10**12 + 7, 10**12)}) == (7, 0)
        clock.advance(1)
        assert rates.per_second({}) is None

    def test_a_counter_that_goes_backwards_leaves_the_rate_out_once(self):
        clock = FakeClock()
        rates = Rates(clock)
        rates.per_second({"a": (100,)})
        clock.advance(1)
        assert rates.per_second({"a": (40,)}) is None
        clock.advance(1)
        assert rates.per_second({"a": (50,)}) == (10,)

    def test_readings_too_close_to_each_other_give_no_rate(self):
        clock = FakeClock()
        rates = Rates(clock)
        rates.per_second({"a": (100,)})
        clock.advance(0.02)
        assert rates.per_second({"a": (200,)}) is None


class TestDisk:
    def test_what_sits_on_real_disks_does_not_count_twice(self, tmp_path, monkeypatch):
        (tmp_path / "sys/block/sda/device").mkdir(parents=True)
        (tmp_path / "sys/block/dm-0").mkdir(parents=True)
        counted = {"n": 0}

        def disks(**_):
            counted["n"] += 1000
            one = SimpleNamespace(read_bytes=counted["n"], write_bytes=2 * counted["n"])
            return {"sda": one, "sda1": one, "dm-0": one}

        monkeypatch.setattr(psutil, "disk_io_counters", disks)
        clock = FakeClock()
        sensor = Disk(tmp_path, tmp_path, clock)
        assert "disk_read_bytes_per_s" in sensor.probe().fields
        assert "disk_read_bytes_per_s" not in sensor.read()
        clock.advance(1)
        values = sensor.read()
        assert values["disk_read_bytes_per_s"] == pytest.approx(1000)
        assert values["disk_write_bytes_per_s"] == pytest.approx(2000)

    def test_a_machine_without_disks_still_knows_its_free_space(self, tmp_path):
        sensor = Disk(tmp_path, tmp_path)
        assert sensor.probe().fields == ("disk_free_bytes",)
        assert sensor.read()["disk_free_bytes"] > 0


class TestNetwork:
    @staticmethod
    def interfaces(monkeypatch, **received):
        nics = {
            name: SimpleNamespace(bytes_recv=got, bytes_sent=sent)
            for name, (got, sent) in received.items()
        }
        monkeypatch.setattr(psutil, "net_io_counters", lambda **_: nics)

    def test_loopback_does_not_count(self, monkeypatch):
        clock = FakeClock()
        sensor = Network(clock)
        self.interfaces(monkeypatch, lo=(0, 0), eth0=(1000, 10), wlan0=(0, 0))
        sensor.read()
        clock.advance(2)
        self.interfaces(monkeypatch, lo=(10**9, 10**9), eth0=(3000, 14), wlan0=(2, 0))
        assert sensor.read() == {"net_rx_bytes_per_s": 1001, "net_tx_bytes_per_s": 2}

    def test_a_machine_with_loopback_alone_has_no_network(self, monkeypatch):
        self.interfaces(monkeypatch, lo=(1, 1))
        assert not Network().probe().available
        assert Network().read() == {}


class TestAgentProcess:
    def test_cpu_is_the_share_of_one_core(self):
        clock, cpu = FakeClock(), FakeClock(0)
        sensor = AgentProcess(clock, cpu)
        assert "agent_cpu_percent" not in sensor.read()
        clock.advance(2)
        cpu.advance(0.5)
        values = sensor.read()
        assert values["agent_cpu_percent"] == pytest.approx(25)
        assert values["agent_rss_bytes"] > 2**20


class TestBacklog:
    def test_what_waits_is_told_as_it_is_now(self):
        waiting = Waiting(3, 12.34567)
        sensor = Backlog(lambda: waiting)
        assert sensor.read() == {"outbox_records": 3, "outbox_used_percent": 12.346}
        waiting = Waiting(0, 0.0)
        assert sensor.read() == {"outbox_records": 0, "outbox_used_percent": 0.0}

    def test_results_beyond_the_cap_read_as_full(self):
        assert Backlog(lambda: Waiting(9, 130.0)).read()["outbox_used_percent"] == 100.0


class TestWatched:
    def test_a_sensor_that_fails_is_counted_and_logged_once_per_change(self, capsys):
        broken = {"now": True}

        def read():
            if broken["now"]:
                raise OSError("unplugged")
            return {"temperature_c": 40.0}

        watched = Watched(FakeSensor(read, "probe7"))
        assert [watched.read(), watched.read()] == [{}, {}]
        broken["now"] = False
        assert [watched.read(), watched.read()] == [{"temperature_c": 40.0}] * 2
        health = watched.health()
        assert (health.reads, health.failures) == (4, 2)
        assert 0 <= health.read_s_mean <= health.read_s_max
        said = "".join(capsys.readouterr())
        assert said.count("sensor_failed") == 1
        assert said.count("sensor_works_again") == 1

    @pytest.mark.parametrize(
        "values", [{"cpu_percent": float("nan")}, {"cpu_percent": 101.0}, {"load_1m": "high"}]
    )
    def test_values_that_no_record_may_hold_cost_only_this_sensor(self, values):
        watched = Watched(FakeSensor(lambda: values))
        assert watched.read() == {}
        assert watched.health().failures == 1

    def test_a_sensor_that_is_not_available_is_never_read(self, tmp_path):
        sensor = Watched(Thermal(tmp_path))
        assert sensor.read() == {}
        assert sensor.health().reads == 0
        info = sensor.info()
        assert not info.available
        assert "no temperature sensor" in info.source

    def test_a_probe_that_fails_makes_the_sensor_unavailable(self):
        class Failing:
            name = "failing"

            def probe(self):
                raise RuntimeError("no bus")

        watched = Watched(Failing())
        assert not watched.status.available
        assert "no bus" in watched.status.reason
        assert watched.read() == {}

    def test_a_very_long_source_still_fits_the_inventory(self, tmp_path):
        deep = Path(tmp_path, *["folder" * 10] * 8)
        raspberry_pi(deep)
        assert Watched(Thermal(deep)).info().available
