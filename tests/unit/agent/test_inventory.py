"""What a device says of itself, on boards and in clouds that the tests do not run on."""

import math
import platform
from pathlib import Path

import pytest

from fakes.fake_sysfs import FakeSysfs, raspberry_pi
from fleetmark_agent.config import AgentSettings
from fleetmark_agent.inventory import hardware, make_inventory
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.messages import BackendInfo, Inventory, KnownJob
from fleetmark_protocol.version import __version__

RAW_ID = "0123456789abcdef0123456789abcdef"


def arm(*parts, implementer=0x41):
    return "".join(
        f"processor\t: {number}\nCPU implementer\t: {implementer:#x}\nCPU part\t: {part:#x}\n\n"
        for number, part in enumerate(parts)
    )


def cpu_model(root, cpuinfo):
    FakeSysfs(root).write("proc/cpuinfo", cpuinfo)
    return hardware(root).cpu_model


def test_a_raspberry_pi_is_recognised(tmp_path):
    raspberry_pi(tmp_path)
    found = hardware(tmp_path)
    assert found.cpu_model == "Cortex-A76"
    assert found.board == "Raspberry Pi 5 Model B Rev 1.0"
    assert found.os == "Debian GNU/Linux 12 (bookworm)"


def test_an_x86_processor_has_the_name_that_it_gives_itself(tmp_path):
    text = "processor\t: 0\nmodel\t\t: 106\nmodel name\t: Intel(R) Xeon(R) 8375C @ 2.90GHz\n" * 2
    assert cpu_model(tmp_path, text) == "Intel(R) Xeon(R) 8375C @ 2.90GHz"


def test_unlike_cores_are_told_with_their_numbers(tmp_path):
    text = arm(0xD05, 0xD05, 0xD05, 0xD05, 0xD0B, 0xD0B)
    assert cpu_model(tmp_path, text) == "4x Cortex-A55 + 2x Cortex-A76"


def test_a_core_that_nobody_named_is_told_by_its_numbers(tmp_path):
    assert cpu_model(tmp_path, arm(0xD99)) == "arm core 0x41/0xd99"
    assert cpu_model(tmp_path, arm(0xD0C, implementer=0x51)) == "arm core 0x51/0xd0c"


@pytest.mark.parametrize("text", ["", "CPU implementer\t: ?\nCPU part\t: ?\n", "\0\0: :\n"])
def test_a_processor_that_says_nothing_usable_is_absent(tmp_path, text):
    assert cpu_model(tmp_path, text) is None


def test_a_virtual_machine_is_told_by_its_firmware(tmp_path):
    tree = FakeSysfs(tmp_path)
    tree.write("sys/class/dmi/id/sys_vendor", "Amazon EC2\n")
    tree.write("sys/class/dmi/id/product_name", "c7g.large\n")
    assert hardware(tmp_path).board == "Amazon EC2 c7g.large"


def test_a_board_without_device_tree_is_told_by_its_kernel(tmp_path):
    FakeSysfs(tmp_path).write("proc/cpuinfo", "Model\t\t: Raspberry Pi 3\n")
    assert hardware(tmp_path).board == "Raspberry Pi 3"


def test_the_id_of_a_machine_never_leaves_it_but_tells_machines_apart(tmp_path):
    one, other = FakeSysfs(tmp_path / "one"), FakeSysfs(tmp_path / "other")
    one.write("etc/machine-id", RAW_ID + "\n")
    other.write("var/lib/dbus/machine-id", RAW_ID)
    digest = hardware(one.root).machine_id
    assert digest == hardware(other.root).machine_id
    assert RAW_ID not in digest
    other.write("etc/machine-id", RAW_ID[::-1] + "\n")
    assert hardware(other.root).machine_id != digest


@pytest.mark.parametrize("text", ["", "uninitialized\n"])
def test_a_machine_that_has_no_id_yet_gives_none(tmp_path, text):
    FakeSysfs(tmp_path).write("etc/machine-id", text)
    assert hardware(tmp_path).machine_id is None


def test_a_machine_that_tells_nothing_still_has_its_sizes(tmp_path):
    found = hardware(tmp_path)
    assert (found.cpu_model, found.board, found.machine_id) == (None, None, None)
    assert found.os == platform.system()
    assert found.arch == platform.machine()
    assert found.cores_logical > 0
    assert found.mem_total_bytes > 0


def test_very_long_names_still_fit_the_message(tmp_path):
    tree = FakeSysfs(tmp_path)
    tree.write("etc/os-release", f"PRETTY_NAME='{'x' * 1000}'\n")
    tree.write("proc/device-tree/model", "y" * 1000)
    found = hardware(tmp_path)
    assert len(found.os) == len(found.board) == 256


def test_the_inventory_says_what_the_parts_and_the_settings_say():
    settings = AgentSettings(device_id="pi", tags=("arm", "lab"), state_dir=Path("state"))
    job = KnownJob(job_id="c.pi.0", attempt=1, state=JobState.IN_PROGRESS)
    backend = BackendInfo(name="llama_cpp", available=False, reason="not installed")
    message = make_inventory(
        settings=settings,
        boot_id="00000000-0000-0000-0000-000000000000",
        time_ns=7,
        hardware=hardware(),
        backends=[backend],
        models=[],
        sensors=[],
        jobs=[job],
    )
    assert message.tags == ("arm", "lab")
    assert message.agent_version == __version__
    assert message.backends == (backend,)
    assert message.jobs == (job,)
    assert message.allowed_sources == settings.models.allow_sources
    assert message.time_zone is None
    assert Inventory.model_validate_json(message.model_dump_json()) == message


def inventory_of(owner, **found):
    """An inventory of a device that has nothing but what its owner has set, and this."""
    return make_inventory(
        settings=AgentSettings(device_id="pi", **owner),
        boot_id="00000000-0000-0000-0000-000000000000",
        time_ns=7,
        hardware=hardware(),
        backends=[],
        models=[],
        sensors=[],
        jobs=[],
        **found,
    )


def test_the_owners_time_zone_stands_before_the_systems():
    def zone(**owner):
        return inventory_of(owner, time_zone="Europe/Vienna").time_zone

    assert zone() == "Europe/Vienna"
    assert zone(time_zone="Asia/Tokyo") == "Asia/Tokyo"


@pytest.mark.parametrize(
    ("owner", "said"),
    [
        ({}, (604_800, None)),
        ({"max_job_s": 60, "max_context_tokens": 4096}, (60, 4096)),
        ({"max_job_s": math.inf, "max_context_tokens": 2**70}, (None, None)),
    ],
)
def test_the_inventory_says_what_the_owner_lets_a_job_take(owner, said):
    message = inventory_of({"runner": owner})
    assert (message.max_job_s, message.max_context_tokens) == said
    assert Inventory.model_validate_json(message.model_dump_json()) == message
