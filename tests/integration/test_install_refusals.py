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
    done = machine.installer("--with", "xllamacpp", *rest, version="1.1")
    assert done.returncode == 2
    assert re.search(r"has no wheel of xllamacpp\S* for Python 3", done.stdout)
    assert "--download makes it" in done.stdout
    assert_unchanged(machine, before)


def test_wheels_of_other_pythons_are_told_before_anything_is_made(machine, tmp_path):
    before = machine.versions
    words = offline(tmp_path, "1.1")
    for minor in (7, 8):
        write_wheel(words[-1], "numpy", "1.0", {}, tag=f"cp3{minor}-cp3{minor}-linux_x86_64")
    done = machine.installer(*words, version="1.1")
    assert done.returncode == 2
    assert "are for Python 3.7, 3.8" in done.stdout
    assert_unchanged(machine, before)


def test_a_version_that_does_not_start_gives_way_to_the_one_before(machine, tmp_path):
    before = machine.versions
    done = machine.installer(*offline(tmp_path, "1.1", starts=False), version="1.1")
    assert done.returncode == 1
    assert "the one before runs again" in done.stdout
    assert_unchanged(machine, before)


def test_a_rollback_to_a_version_that_does_not_start_gives_way_to_the_one_that_ran(
    machine, tmp_path
):
    done = machine.installer(*offline(tmp_path, "1.1"), version="1.1")
    assert done.returncode == 0, done.stdout
    home = machine.root / "opt/fleetmark-agent"
    links = {name: (home / name).readlink() for name in ("current", "previous")}
    broken = home / "previous/bin/fleetmark-agent"
    program = broken.read_text("utf-8")
    broken.write_text('#!/bin/sh\n[ "$1" = --version ] && echo fleetmark-agent 1.0\n', "utf-8")

    for _ in range(2):  # nor does trying again make it worse
        done = machine.installer("--rollback")
        assert done.returncode == 1
        assert "does not start (its last words are above); the one that ran runs again" in (
            done.stdout
        )
        assert "last words" in done.stdout.splitlines()
        assert machine.systemd.running == "1.1"
        assert {name: (home / name).readlink() for name in links} == links

    broken.write_text(program, "utf-8")
    assert machine.installer("--rollback").returncode == 0
    assert machine.systemd.running == "1.0"
    assert (home / "previous").readlink() == links["current"]


def test_of_wheels_of_several_versions_the_checkouts_own_is_installed(machine, tmp_path):
    words = offline(tmp_path, "1.1")
    for version in ("0.9", "1.10"):
        write_agent(words[-1], version)
    # The order in the directory can be right for one of them alone.
    for version in ("1.1", "0.9"):
        done = machine.installer(*words, version=version)
        assert done.returncode == 0, done.stdout
        assert machine.systemd.running == version


def test_wheels_of_other_versions_alone_are_named_and_nothing_changes(machine, tmp_path):
    before = machine.versions
    words = offline(tmp_path, "1.10")
    write_agent(words[-1], "1.1.dev3")
    done = machine.installer(*words, version="1.1")
    assert done.returncode == 2
    assert "this is fleetmark 1.1; " in done.stdout
    assert "has only the wheel of 1.1.dev3, 1.10" in done.stdout
    assert_unchanged(machine, before)


def test_a_link_to_a_directory_of_wheels_is_one(machine, tmp_path):
    *words, wheels = offline(tmp_path, "1.1")
    link = tmp_path / "link"
    link.symlink_to(wheels)
    assert machine.installer(*words, link, version="1.1").returncode == 0
    assert machine.systemd.running == "1.1"


def test_a_download_removes_the_wheels_of_other_checkouts_when_it_has_its_own(machine, tmp_path):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for version in ("1.0", "1.1"):
        write_agent(wheels, version)
    kept = write_wheel(wheels, "fleetmark_friend", "1.0", {})
    own = wheels / "fleetmark-1.2-py3-none-any.whl"
    pip = f"#!/bin/sh\n[ ! -e {tmp_path}/no-network ] && : >{own}"
    machine.program(
        "python3",
        'case $* in "-m venv"*) ;; *) exec /usr/bin/python3 "$@" ;; esac\n'
        f"mkdir -p $3/bin && echo '{pip}' >$3/bin/pip && chmod +x $3/bin/pip",
    )
    before = set(wheels.iterdir())
    (tmp_path / "no-network").touch()
    assert machine.installer("--download", wheels, version="1.2").returncode == 1
    assert set(wheels.iterdir()) == before

    (tmp_path / "no-network").unlink()
    done = machine.installer("--download", wheels, version="1.2")
    assert done.returncode == 0, done.stdout
    assert set(wheels.iterdir()) == {kept, own}
    assert "removed fleetmark-1.1-py3-none-any.whl: this is fleetmark 1.2" in done.stdout


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
    done = machine.installer(*offline(tmp_path, "1.1"), version="1.1")
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
    done = machine.installer(*words, version="1.1")
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
