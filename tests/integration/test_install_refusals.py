"""The installer where the disk is full or becomes so, or wheels do not fit: all or nothing."""

import os
import re
import subprocess

import pytest

from fakes.fake_agent_wheel import write_agent, write_wheel
from packaged import Machine, build, can_pack

pytestmark = pytest.mark.integration

MIB = 2**20


@pytest.fixture
def machine(tmp_path):
    """A machine on which version 1.0 of the agent runs."""
    machine = Machine(tmp_path)
    machine.has_version("1.0")
    return machine


def offline(tmp_path, version, **agent):
    wheels = tmp_path / f"wheels-{version}"
    wheels.mkdir()
    write_agent(wheels, version, **agent)
    return ("--with", "none", "--offline", wheels)


def assert_unchanged(machine, versions):
    """The version of before runs, and nothing half done is left."""
    assert machine.systemd.running == "1.0"
    assert machine.versions == versions
    assert not list(machine.root.rglob("*.new"))


def test_a_lacking_wheel_is_named_and_nothing_changes(machine, tmp_path):
    before = machine.versions
    _, _, *rest = offline(tmp_path, "1.1")
    done = machine.installer("--with", "xllamacpp", *rest)
    assert done.returncode == 2
    assert re.search(r"has no wheel of xllamacpp\S* for Python 3", done.stdout)
    assert "--download makes it" in done.stdout
    assert_unchanged(machine, before)


def test_wheels_of_other_pythons_are_told_before_anything_is_made(machine, tmp_path):
    before = machine.versions
    words = offline(tmp_path, "1.1")
    for minor in (7, 8):
        write_wheel(words[-1], "numpy", "1.0", {}, tag=f"cp3{minor}-cp3{minor}-linux_x86_64")
    done = machine.installer(*words)
    assert done.returncode == 2
    assert "are for Python 3.7, 3.8" in done.stdout
    assert_unchanged(machine, before)


def test_a_version_that_does_not_start_gives_way_to_the_one_before(machine, tmp_path):
    before = machine.versions
    done = machine.installer(*offline(tmp_path, "1.1", starts=False))
    assert done.returncode == 1
    assert "the one before runs again" in done.stdout
    assert_unchanged(machine, before)


@pytest.fixture
def small_disk(machine):
    """Puts /opt of the machine on a file system of its own, of a size that can be changed."""
    opt = machine.root / "opt"
    kept = machine.root / "kept"
    opt.rename(kept)
    opt.mkdir()

    def mount(*options):
        subprocess.run(["mount", *options, str(opt)], check=True, capture_output=True)

    mount("-t", "tmpfs", "-o", "size=64m,mode=0755", "tmpfs")
    subprocess.run(["cp", "-a", f"{kept}/.", str(opt)], check=True)
    yield lambda mib: mount("-o", f"remount,size={mib}m")
    subprocess.run(["umount", "--lazy", str(opt)], check=True)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")


@needs_root
def test_a_disk_that_is_full_is_told_before_anything_is_made(machine, small_disk, tmp_path):
    small_disk(40)
    before = machine.versions
    done = machine.installer(*offline(tmp_path, "1.1"))
    assert done.returncode == 1
    assert "MiB needed; nothing was changed" in done.stdout
    assert_unchanged(machine, before)


@needs_root
@pytest.mark.parametrize("ballast_mib", [0, 116], ids=["while pip works", "before pip is there"])
def test_a_disk_that_runs_full_in_the_middle_leaves_what_was_there(
    machine, small_disk, tmp_path, ballast_mib
):
    small_disk(120)
    before = machine.versions
    words = offline(tmp_path, "1.1", unpacked_bytes=200 * MIB)
    # The look at the disk before the start is taken in; somebody else fills it meanwhile.
    machine.program("du", "echo 0")
    machine.program(
        "awk",
        f"""case $* in
    *4096*) exec /usr/bin/awk "$@" ;;
    *) head -c {ballast_mib}M /dev/zero >{machine.root}/opt/ballast; echo 9999999 ;;
    esac""",
    )
    done = machine.installer(*words)
    assert done.returncode == 1
    assert "the disk is full" in done.stdout
    assert "nothing was changed" in done.stdout
    assert_unchanged(machine, before)


@needs_root
@pytest.mark.skipif(not can_pack(), reason="packages are built and installed on Debian alone")
def test_a_package_on_a_disk_that_runs_full_can_be_configured_when_there_is_room(
    machine, small_disk, tmp_path
):
    small_disk(120)
    package = build(tmp_path, "1.1", unpacked_bytes=100 * MIB)
    done = machine.dpkg("--install", package)
    assert done.returncode != 0
    assert "the disk is full" in done.stdout
    assert machine.systemd.running == "1.0"
    assert machine.status() == "install ok half-configured 1.1"
    small_disk(300)
    assert machine.dpkg("--configure", "fleetmark-agent").returncode == 0
    assert machine.systemd.running == "1.1"
