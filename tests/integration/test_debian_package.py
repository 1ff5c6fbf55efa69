"""The agent's Debian package, put on a machine in a directory by dpkg itself."""

import pytest

from fakes.fake_agent_wheel import write_agent
from packaged import BUILDER, Machine, build, can_pack, leave_kits, run

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not can_pack(), reason="packages are built and installed on Debian alone"),
]


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Packages by version; 1.2 does not start."""
    out = tmp_path_factory.mktemp("packages")
    return {
        version: build(out, version, starts=version != "1.2") for version in ("1.0", "1.1", "1.2")
    }


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def installed(machine, package):
    done = machine.dpkg("--install", package)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_a_package_lives_through_upgrade_a_bad_version_downgrade_removal_and_purge(
    machine, packages
):
    installed(machine, packages["1.0"])
    assert machine.systemd.running == "1.0"
    assert machine.systemd.enabled
    machine.settings.write_text("# mine\n", "utf-8")
    records = machine.root / "var/lib/fleetmark-agent/outbox.db"
    records.parent.mkdir(parents=True)
    records.write_text("records", "utf-8")

    installed(machine, packages["1.1"])
    assert machine.systemd.running == "1.1"
    assert len(machine.versions) == 2

    refused = machine.dpkg("--install", packages["1.2"])
    assert refused.returncode != 0
    assert "the new version does not start" in refused.stdout
    assert "the one before runs again" in refused.stdout
    assert machine.systemd.running == "1.1"

    assert "downgrading" in installed(machine, packages["1.0"])
    assert machine.systemd.running == "1.0"
    installed(machine, packages["1.0"])  # once more
    assert machine.status() == "install ok installed 1.0"
    assert machine.systemd.running == "1.0"
    assert (machine.settings.read_text("utf-8"), records.read_text("utf-8")) == (
        "# mine\n",
        "records",
    )
    leave_kits(machine.settings.parent)

    assert machine.dpkg("--remove", "fleetmark-agent").returncode == 0
    assert machine.systemd.running is None
    assert machine.settings.exists()
    assert records.exists()
    assert not (machine.root / "opt/fleetmark-agent").exists()

    assert machine.dpkg("--purge", "fleetmark-agent").returncode == 0
    assert machine.traces() == []
    assert not machine.systemd.user_exists


def test_a_service_that_was_turned_off_stays_off(machine, packages):
    machine.has_version("1.0")
    machine.systemd.disable()
    assert "disabled, and stays so" in installed(machine, packages["1.1"])
    assert (machine.systemd.running, machine.systemd.enabled) == (None, False)


def test_in_an_image_that_is_being_made_nothing_is_started(tmp_path, packages):
    machine = Machine(tmp_path, booted=False)
    installed(machine, packages["1.0"])
    assert (machine.systemd.running, machine.systemd.enabled) == (None, True)


def test_the_package_takes_over_from_the_script_which_keeps_off_it(machine, packages, tmp_path):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    write_agent(wheels, "0.9")
    words = ("--with", "none", "--offline", wheels)
    done = machine.installer(*words, version="0.9")
    assert done.returncode == 0, done.stdout
    assert machine.systemd.running == "0.9"
    unit = machine.root / "etc/systemd/system/fleetmark-agent.service"
    assert unit.exists()
    installed(machine, packages["1.0"])
    assert machine.systemd.running == "1.0"
    assert not unit.exists()
    assert not (machine.root / "usr/local/bin/fleetmark-agent").exists()
    refused = machine.installer(*words, version="0.9")
    assert refused.returncode == 2
    assert "the Debian package is installed" in refused.stdout
    assert machine.systemd.running == "1.0"


@pytest.mark.parametrize(
    "left", ["etc/systemd/system/fleetmark-agent.service", "usr/local/bin/fleetmark-agent"]
)
def test_purging_a_removed_package_leaves_the_agent_that_the_script_installed_since(
    machine, packages, tmp_path, left
):
    installed(machine, packages["1.0"])
    assert machine.dpkg("--remove", "fleetmark-agent").returncode == 0
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    write_agent(wheels, "1.1")
    done = machine.installer("--with", "none", "--offline", wheels, version="1.1")
    assert done.returncode == 0, done.stdout
    outbox = machine.root / "var/lib/fleetmark-agent/outbox.db"
    outbox.parent.mkdir(parents=True)
    outbox.write_text("records", "utf-8")
    # Either of the script's two files is enough.
    for file in ("etc/systemd/system/fleetmark-agent.service", "usr/local/bin/fleetmark-agent"):
        if file != left:
            (machine.root / file).unlink()

    purged = machine.dpkg("--purge", "fleetmark-agent")
    assert purged.returncode == 0, purged.stdout
    assert "its agent stays" in purged.stdout
    assert outbox.exists()
    assert machine.settings.exists()
    assert machine.versions
    assert machine.systemd.user_exists
    assert machine.systemd.running == "1.1"


def test_a_user_that_cannot_be_deleted_does_not_fail_the_purge(machine, packages):
    installed(machine, packages["1.0"])
    machine.program("userdel", "echo userdel: user is used by process 1 >&2; exit 8")
    done = machine.dpkg("--purge", "fleetmark-agent")
    assert done.returncode == 0, done.stdout
    assert "used by process 1" in done.stdout


def test_another_python_that_the_program_cannot_be_made_for_does_not_fail_the_upgrade(
    machine, packages
):
    installed(machine, packages["1.0"])
    (before,) = machine.versions
    for file in before.glob("lib/python3*/site-packages/fake_agent.py"):
        file.unlink()
    # As in the middle of a system's upgrade: Python is there, its venv is not.
    machine.program("python3", 'case $* in *ensurepip*) exit 1 ;; esac; exec /usr/bin/python3 "$@"')
    done = machine.script("postinst", "triggered", "/usr/bin/python3")
    assert done.returncode == 0, done.stdout
    assert "python3-venv is missing" in done.stdout
    assert machine.versions == [before]

    machine.program("python3", 'exec /usr/bin/python3 "$@"')
    *_, command = done.stdout.strip().split("sudo ")
    assert machine.runs(command).returncode == 0
    assert machine.versions != [before]
    assert machine.systemd.running == "1.0"


def test_a_program_that_another_python_broke_is_made_anew(machine, packages):
    installed(machine, packages["1.0"])
    (before,) = machine.versions
    triggered = ("triggered", "/usr/bin/python3")
    assert machine.script("postinst", *triggered).returncode == 0
    assert machine.versions == [before]
    for file in before.glob("lib/python3*/site-packages/fake_agent.py"):
        file.unlink()
    assert machine.script("postinst", *triggered).returncode == 0
    assert machine.versions != [before]
    assert machine.systemd.running == "1.0"


def test_a_package_is_the_same_bytes_again_and_its_sums_are_right(packages, tmp_path):
    again = build(tmp_path, "1.0")
    assert again.read_bytes() == packages["1.0"].read_bytes()
    assert run("dpkg-deb", "--raw-extract", again, tmp_path / "x").returncode == 0
    sums = run("sh", "-c", f"cd {tmp_path}/x && md5sum --check --strict DEBIAN/md5sums")
    assert sums.returncode == 0, sums.stdout


def test_a_package_for_arm64_says_so_and_what_it_needs(tmp_path):
    package = build(tmp_path, "1.1.dev3", arch="arm64")
    about = run("dpkg-deb", "--field", package).stdout
    assert "Architecture: arm64\n" in about
    assert "python3 (>= 3.11), python3 (<< 3.14), python3-venv" in about
    assert "libgomp1" in about
    # Older than 1.1 itself.
    assert "Version: 1.1~dev3\n" in about


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--arch", "armhf"], "unknown architecture armhf (known: amd64, arm64)"),
        (["--with", "llama"], "unknown engine 'llama' (known: xllamacpp"),
        (["--with", "xllamacpp,"], "unknown engine '' (known: xllamacpp"),
        (["--with", "xllamacpp ollama"], "unknown engine 'xllamacpp ollama' (known"),
        (["--with", "none,ollama"], "none goes alone"),
        (["--wheels", ""], "--wheels needs a value"),
        (["--with", "llama-cpp"], "llama-cpp is compiled on the device"),
        (["--wheels", "gone"], "gone is no directory"),
        (["--bogus"], "unknown option --bogus"),
    ],
)
def test_what_cannot_be_built_is_refused(words, said):
    done = run(BUILDER, *words)
    assert done.returncode == 2
    assert said in done.stdout


def test_no_package_is_built_of_wheels_that_leave_open_which_version_it_is(tmp_path):
    for version in ("1.0", "1.1"):
        write_agent(tmp_path, version)
    done = run(
        BUILDER, "--arch", "amd64", "--with", "none", "--wheels", tmp_path, "--out", tmp_path
    )
    assert done.returncode == 2
    assert "it has fleetmark-1.0-py3-none-any.whl fleetmark-1.1-py3-none-any.whl" in done.stdout
    assert not list(tmp_path.glob("*.deb"))
