"""A file tree like the kernel's, for machines that the tests do not run on."""

import os
from pathlib import Path

PI_CPUINFO = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

processor\t: 1
CPU implementer\t: 0x41
CPU part\t: 0xd0b

Revision\t: c04170
Serial\t\t: 10000000deadbeef
Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""


class FakeSysfs:
    """Writes what a test wants to be found below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        # At once, as the kernel does: a reader never finds half of it.
        new = file.with_name(f".{file.name}")
        new.write_text(text, "utf-8")
        return new.replace(file)

    def policy(self, number: int, khz: int | str, cores: tuple[int, ...] = (0,)) -> Path:
        folder = f"sys/devices/system/cpu/cpufreq/policy{number}"
        self.write(f"{folder}/affected_cpus", " ".join(map(str, cores)) + "\n")
        return self.write(f"{folder}/scaling_cur_freq", f"{khz}\n")

    def zone(self, number: int, kind: str, millidegrees: int | str) -> Path:
        folder = f"sys/class/thermal/thermal_zone{number}"
        self.write(f"{folder}/type", kind + "\n")
        return self.write(f"{folder}/temp", f"{millidegrees}\n")

    def chip(self, number: int, name: str, *millidegrees: int | str) -> list[Path]:
        folder = f"sys/class/hwmon/hwmon{number}"
        self.write(f"{folder}/name", name + "\n")
        return [
            self.write(f"{folder}/temp{place}_input", f"{one}\n")
            for place, one in enumerate(millidegrees, 1)
        ]

    def firmware_bits(self, bits: int, device: str = "soc:firmware") -> Path:
        """The file of a Raspberry Pi's firmware, found by its driver too."""
        file = self.write(f"sys/devices/platform/soc/{device}/get_throttled", f"{bits:x}\n")
        link = self.root / "sys/bus/platform/drivers/raspberrypi-firmware" / device
        if not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(file.parent, link.parent))
        return file

    def voltage_alarm(self, number: int, alarm: int) -> Path:
        folder = f"sys/class/hwmon/hwmon{number}"
        self.write(f"{folder}/name", "rpi_volt\n")
        return self.write(f"{folder}/in0_lcrit_alarm", f"{alarm}\n")

    def throttle_count(self, cpu: int, count: int, *, core: int, package: int = 0) -> None:
        """One thread of an x86 processor; the package's count is that of all its threads."""
        folder = f"sys/devices/system/cpu/cpu{cpu}"
        self.write(f"{folder}/topology/core_id", f"{core}\n")
        self.write(f"{folder}/topology/physical_package_id", f"{package}\n")
        self.write(f"{folder}/thermal_throttle/core_throttle_count", f"{count}\n")
        self.write(f"{folder}/thermal_throttle/package_throttle_count", "0\n")

    def rapl(
        self, zone: str, name: str, microjoules: int | str, *, range_uj: int | str = 262_143_328_850
    ) -> Path:
        """A counter of energy: `0` is a package, `0:0` something within it."""
        folder = f"sys/class/powercap/intel-rapl:{zone}"
        self.write(f"{folder}/name", f"{name}\n")
        self.write(f"{folder}/max_energy_range_uj", f"{range_uj}\n")
        return self.write(f"{folder}/energy_uj", f"{microjoules}\n")

    def meter(
        self, number: int, name: str, microwatts: int | str, *, of: str = "power1_input"
    ) -> Path:
        folder = f"sys/class/hwmon/hwmon{number}"
        self.write(f"{folder}/name", name + "\n")
        return self.write(f"{folder}/{of}", f"{microwatts}\n")

    def swapped_in(self, pages: int) -> Path:
        return self.write("proc/vmstat", f"pgpgin 12\npswpin {pages}\npswpout 3\nzswpin 99\n")

    def process(
        self, pid: int, *, cpu_ticks: int = 0, started: int = 1, children: tuple[int, ...] = ()
    ) -> None:
        """One process with one thread, 4 MiB resident, 1 MiB of it from files."""
        head = f"{pid} (a) b) S 1" + " 0" * 9
        tail = " 0" * 4 + f" {started}" + " 0" * 30
        self.write(f"proc/{pid}/stat", f"{head} {cpu_ticks} 0 0 0 20{tail[2:]}\n")
        self.write(f"proc/{pid}/status", "Name:\ta\nVmRSS:\t4096 kB\nRssFile:\t1024 kB\n")
        self.write(f"proc/{pid}/smaps_rollup", "0-1 [rollup]\nRss: 4096 kB\nPss: 3072 kB\n")
        kids = " ".join(map(str, children))
        self.write(f"proc/{pid}/task/{pid}/children", f"{kids} " if kids else "")


def raspberry_pi(root: Path) -> FakeSysfs:
    """Return a Raspberry Pi 5: one frequency domain for four cores, one thermal zone."""
    pi = FakeSysfs(root)
    pi.policy(0, 2_400_000, (0, 1, 2, 3))
    pi.zone(0, "cpu-thermal", 51_550)
    # The same sensor once more, as the kernel shows it.
    pi.chip(0, "cpu_thermal", 51_550)
    device = root / "sys/class/hwmon/hwmon0/device"
    device.symlink_to(os.path.relpath(root / "sys/class/thermal/thermal_zone0", device.parent))
    pi.chip(1, "rp1_adc", 44_000)
    pi.swapped_in(0)
    pi.firmware_bits(0)
    pi.voltage_alarm(2, 0)
    pi.write("proc/cpuinfo", PI_CPUINFO)
    pi.write("proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\0")
    pi.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    pi.write("etc/os-release", 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    (root / "sys/block/mmcblk0/device").mkdir(parents=True)
    return pi


def x86_server(root: Path) -> FakeSysfs:
    """Return a machine with two packages, memory that is counted apart, and no meter."""
    server = FakeSysfs(root)
    for package in (0, 1):
        server.rapl(f"{package}", f"package-{package}", 1_000_000 * package)
        server.rapl(f"{package}:0", "core", 500_000)
        server.rapl(f"{package}:1", "dram", 250_000)
    server.swapped_in(0)
    return server
