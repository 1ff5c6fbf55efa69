"""`install-agent.sh --kit`: what `fleetmark enroll` made ends up where the agent looks for it."""

import stat

import pytest

from enrolled import BY_CERTIFICATE, BY_PASSWORD
from fakes.fake_agent_wheel import write_agent
from fleetmark_agent.config import load_settings
from fleetmark_collector.enrolment.enrolling import Enrolment
from packaged import Machine, leave_kits

pytestmark = pytest.mark.integration


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path / "machine")


@pytest.fixture
def install(tmp_path, machine):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    write_agent(wheels, "1.0")

    def run(*words):
        done = machine.installer("--with", "none", "--offline", wheels, *words)
        assert done.returncode == 0, done.stdout
        run.said = done.stdout
        return machine.settings

    return run


@pytest.mark.parametrize("wish", [BY_CERTIFICATE, BY_PASSWORD])
def test_a_kit_is_installed_whole_and_only_the_agents_group_may_read_it(install, tmp_path, wish):
    kit = Enrolment.open(tmp_path).enroll("pi", wish)
    settings = install("--kit", kit.directory)
    assert {file.name: file.read_text() for file in settings.parent.iterdir()} == kit.files
    assert {stat.S_IMODE(file.stat().st_mode) for file in settings.parent.iterdir()} == {0o640}
    broker = load_settings(settings).broker
    for file in {broker.ca_file, broker.cert_file, broker.key_file, broker.password_file} - {None}:
        assert (settings.parent / file.name).exists()
    assert "stays as it is" not in install.said


def test_a_new_kit_replaces_the_identity_and_leaves_the_owners_settings(install, tmp_path):
    enrolment = Enrolment.open(tmp_path)
    settings = install("--kit", enrolment.enroll("pi", BY_CERTIFICATE).directory)
    own = settings.read_text() + "\n[telemetry]\ninterval_s = 2.0\n"
    settings.write_text(own)
    kit = enrolment.enroll("pi", BY_CERTIFICATE, renew=True)
    install("--kit", kit.directory)
    assert settings.read_text() == own
    assert (settings.parent / "agent.key").read_text() == kit.files["agent.key"]


def test_settings_that_stay_although_the_kit_has_others_are_named(machine, install, tmp_path):
    machine.settings.parent.mkdir()
    machine.settings.write_text("device_id = 'pi'\n")
    kit = Enrolment.open(tmp_path).enroll("pi", BY_CERTIFICATE).directory
    settings = install("--kit", kit)
    assert f"{settings} stays as it is; {kit}/agent.toml differs" in install.said


def test_purge_leaves_nothing_of_the_agent_and_all_of_the_collector(machine, install, tmp_path):
    settings = install("--kit", Enrolment.open(tmp_path).enroll("pi", BY_CERTIFICATE).directory)
    leave_kits(settings.parent)
    collectors = ("ca.crt", "collector.toml", "collector.toml.old", "identities.json")
    for name in collectors:
        (settings.parent / name).touch()
    assert machine.installer("--purge").returncode == 0
    assert sorted(file.name for file in settings.parent.iterdir()) == [*collectors]

    for name in collectors:
        (settings.parent / name).unlink()
    install()
    leave_kits(settings.parent)
    assert machine.installer("--purge").returncode == 0
    assert machine.traces() == []


def test_the_settings_of_a_kit_give_way_to_other_ones_and_its_identity_does_not(install, tmp_path):
    kit = Enrolment.open(tmp_path).enroll("pi", BY_PASSWORD)
    (kit.directory / "agent.toml").unlink()
    own = tmp_path / "own.toml"
    own.write_text("device_id = 'pi'\n")
    settings = install("--config", own, "--kit", kit.directory)
    assert settings.read_text() == own.read_text()
    for name in ("agent-ca.crt", "agent-password"):
        assert (settings.parent / name).read_text() == kit.files[name]


def test_a_service_that_was_turned_off_stays_off_at_a_rollback(machine, install):
    machine.has_version("0.9")
    install()
    home = machine.root / "opt/fleetmark-agent"
    now = (home / "current").resolve()
    machine.systemd.disable()
    done = machine.installer("--rollback")
    assert done.returncode == 0, done.stdout
    assert (home / "previous").resolve() == now
    assert (machine.systemd.running, machine.systemd.enabled) == (None, False)
