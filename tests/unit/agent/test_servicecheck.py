"""A service that should run and does not is what the doctor's exit code says."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fleetmark_agent import servicecheck, statelock
from fleetmark_agent.cli.main import app
from fleetmark_agent.servicecheck import examine_agent, units_of
from servers import free_port

ROOT = Path(__file__).parents[3]


@pytest.fixture
def units(tmp_path):
    """Where a unit may be; it is in the second of them."""
    there = tmp_path / "lib" / "fleetmark-agent.service"
    there.parent.mkdir()
    there.touch()
    return (tmp_path / "etc" / "fleetmark-agent.service", there)


def test_an_installed_service_that_does_not_run_is_bad_and_says_where_to_look(tmp_path, units):
    for state_dir in (tmp_path, tmp_path / "never-made"):
        finding = examine_agent(state_dir, units)
        assert finding.level == "bad"
        assert "systemctl start fleetmark-agent" in finding.hint
        assert "journalctl -u fleetmark-agent" in finding.hint


def test_a_service_whose_agent_runs_is_no_trouble(tmp_path, units):
    with statelock.held(tmp_path):
        assert examine_agent(tmp_path, units).level == "info"


def test_where_no_service_is_installed_or_it_is_masked_nothing_has_to_run(tmp_path, units):
    assert examine_agent(tmp_path, units[:1]).level == "info"
    units[0].parent.mkdir()
    units[0].symlink_to("/dev/null")
    assert examine_agent(tmp_path, units[:1]).level == "info"


@pytest.mark.parametrize("mine", [True, False])
def test_the_command_fails_for_the_settings_of_the_service_alone(
    tmp_path, units, monkeypatch, mine
):
    monkeypatch.setattr(servicecheck, "UNITS", units)
    config = tmp_path / "agent.toml"
    config.write_text(f'state_dir = "{tmp_path}/state"\n[broker]\nport = {free_port()}\n')
    monkeypatch.setattr(servicecheck, "SETTINGS", config if mine else tmp_path / "other.toml")
    done = CliRunner().invoke(app, ["doctor"], env={"FLEETMARK_CONFIG": str(config)})
    assert ("\n bad  the service does not run" in done.stdout) is mine
    assert ("\ninfo  no agent runs on this state_dir" in done.stdout) is not mine


def test_the_service_is_looked_for_where_script_and_package_put_it():
    script = (ROOT / "deploy" / "install-agent.sh").read_text("utf-8")
    package = (ROOT / "tools" / "build_deb.sh").read_text("utf-8")
    of_script, of_package, _ = servicecheck.UNITS
    assert f"unit={of_script}\n" in script
    assert f'"$stage{of_package}"' in package
    unit = (ROOT / "deploy" / "systemd" / of_script.name).read_text("utf-8")
    assert f"run --config {servicecheck.SETTINGS}\n" in unit
    assert units_of(servicecheck.SETTINGS) == servicecheck.UNITS
    assert units_of(None) == ()
