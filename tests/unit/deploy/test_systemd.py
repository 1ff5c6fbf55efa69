"""deploy/systemd: systemd understands the units, locks them in, and their files fit together."""

import configparser
import inspect
import re
import shutil
import subprocess
import sys
import tomllib

import pytest

from deployed import COLLECTOR, DEPLOY, mosquitto_config, setup_centre
from fleetmark_agent import link
from fleetmark_agent.runner import Runner
from fleetmark_agent.telemetry import sampler
from fleetmark_collector import ingest, mqtt, service
from fleetmark_collector.config import load_settings
from fleetmark_collector.monitoring import observing

SYSTEMD = DEPLOY / "systemd"
UNITS = ("fleetmark-broker.service", "fleetmark-collector.service")
MAX_EXPOSURE = 1.5
"""`systemd-analyze security`: 0 is locked in, 10 is wide open; Debian's own mosquitto has 9.6."""

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed here"
)
each_unit = pytest.mark.parametrize("name", UNITS)
TASK = "fleetmark-revoke-expired.service"
each_unit_and_task = pytest.mark.parametrize("name", [*UNITS, TASK])


def values(name, key):
    """All values that a unit gives to a key."""
    text = (SYSTEMD / name).read_text("utf-8")
    return re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)


def here(name, directory):
    """The unit with programs of this machine, for a systemd that looks whether they are there."""
    text = (SYSTEMD / name).read_text("utf-8")
    text = re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", text, flags=re.MULTILINE)
    file = directory / name
    file.write_text(text, "utf-8")
    return file


def analyze(*args):
    return subprocess.run(
        ["systemd-analyze", *map(str, args)], capture_output=True, text=True, check=False
    )


@needs_systemd
@each_unit_and_task
def test_systemd_finds_nothing_wrong_with_a_unit(name, tmp_path):
    done = analyze("verify", "--man=no", here(name, tmp_path))
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_systemd_would_find_a_mistake(tmp_path):
    file = here(UNITS[0], tmp_path)
    file.write_text(file.read_text("utf-8").replace("ProtectHome=true", "ProtectHom=true"), "utf-8")
    assert "ProtectHom" in analyze("verify", "--man=no", file).stderr


@needs_systemd
@each_unit_and_task
def test_a_unit_is_locked_in(name, tmp_path):
    done = analyze("security", "--offline=true", "--no-pager", here(name, tmp_path))
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    # The task is root's: nobody else may change users.
    assert float(found[1]) <= (2 if name == TASK else MAX_EXPOSURE)


@each_unit
def test_a_unit_comes_back_after_a_crash_and_runs_as_a_user_of_its_own(name):
    assert values(name, "Restart") == ["always"]
    user = values(name, "User")[0]
    users = (SYSTEMD / "fleetmark.sysusers.conf").read_text("utf-8")
    assert re.search(rf"^u {user} -", users, re.MULTILINE)
    assert values(name, "StateDirectory") == [user]


def test_the_collector_starts_after_what_it_talks_to_but_does_not_need_it():
    assert "fleetmark-broker.service influxdb.service" in values(UNITS[1], "After")[0]
    assert values(UNITS[1], "Requires") == []


@pytest.mark.parametrize("name", [UNITS[1], "fleetmark-agent.service"])
def test_a_unit_of_ours_is_told_when_it_is_ready_and_watched_while_it_runs(name):
    assert values(name, "Type") == ["notify"]
    assert values(name, "NotifyAccess") == ["main"]
    # What it has started is for itself to end: systemd signals it alone first.
    assert values(name, "KillMode") == ["mixed"]
    # Wrong settings do not become right by trying again.
    assert values(name, "RestartPreventExitStatus") == ["2"]
    assert float(values(name, "WatchdogSec")[0]) >= 60


def test_all_that_an_end_may_wait_for_fits_in_the_time_that_systemd_gives():
    collector_s = observing.STOP_S + ingest.STOP_S + service.FLUSH_S + mqtt.STOP_S
    assert collector_s < float(values(UNITS[1], "TimeoutStopSec")[0]) - 10
    runner_s = inspect.signature(Runner.stop).parameters["timeout_s"].default
    # Besides the drain: its sender's thread, the last word, the network's thread.
    link_s = inspect.signature(link.Link.stop).parameters["drain_s"].default + 2 + 1
    agent_s = runner_s + 2 * sampler.STOP_S + link_s + link.CLIENT_STOP_S
    assert agent_s < float(values("fleetmark-agent.service", "TimeoutStopSec")[0]) - 10


def test_the_broker_sees_of_the_settings_what_its_configuration_names_and_no_more(tmp_path):
    seen = values(UNITS[0], "BindReadOnlyPaths")[0].split()
    assert values(UNITS[0], "TemporaryFileSystem") == ["/etc/fleetmark:ro"]
    config = (DEPLOY / "mosquitto" / "mosquitto.conf").read_text("utf-8")
    for file in re.findall(r"^\w+ (/etc/fleetmark/\S+)", config, re.MULTILINE):
        assert any(file == path or file.startswith(f"{path}/") for path in seen), file
    assert "/etc/fleetmark/mosquitto.conf" in values(UNITS[0], "ExecStart")[0]
    assert not any("collector" in path or "influxdb" in path for path in seen)
    assert mosquitto_config(tmp_path, 1, 2)


def test_identities_that_have_ended_are_looked_for_daily_by_who_may_change_users():
    (line,) = values(TASK, "ExecStart")
    assert line.endswith("fleetmark revoke --expired --identities /etc/fleetmark")
    assert values(TASK, "ReadWritePaths") == ["/etc/fleetmark"]
    assert values(TASK, "User") == []
    assert values("fleetmark-revoke-expired.timer", "OnCalendar") == ["daily"]
    assert values("fleetmark-revoke-expired.timer", "Persistent") == ["true"]


@needs_systemd
def test_systemd_understands_the_timer(tmp_path):
    here(TASK, tmp_path)
    timer = tmp_path / "fleetmark-revoke-expired.timer"
    timer.write_text((SYSTEMD / timer.name).read_text("utf-8"), "utf-8")
    done = analyze("verify", "--man=no", timer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "user"),
    [
        ("enroll pi", "root"),
        ("revoke pi", "root"),
        ("identities", "root"),
        ("devices", "fleetmark"),
    ],
)
def test_the_operators_command_runs_as_root_only_what_decides_who_may_come_in(
    tmp_path, words, user
):
    sudo = tmp_path / "sudo"
    sudo.write_text('#!/bin/sh\necho "$@"\n')
    sudo.chmod(0o755)
    done = subprocess.run(
        ["sh", SYSTEMD / "fleetmark", *words.split()],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"-u {user} FLEETMARK_CONFIG=")
    assert done.stdout.endswith(f"/opt/fleetmark/bin/fleetmark {words}\n")


def test_the_collector_does_not_see_the_cas_key():
    assert "-/etc/fleetmark/ca.key" in values(UNITS[1], "InaccessiblePaths")[0].split()


def test_the_collectors_settings_name_files_that_the_setup_script_makes(tmp_path):
    file = SYSTEMD / "collector.toml"
    settings = load_settings(file)
    assert settings.broker.username == COLLECTOR
    assert settings.store.kind == "influxdb"
    assert f"{settings.data_dir}".endswith(values(UNITS[1], "StateDirectory")[0])
    assert setup_centre(tmp_path / "s", "init", "centre.example").returncode == 0
    named = re.findall(r'"/etc/fleetmark/([\w.-]+)"', file.read_text("utf-8"))
    assert len(named) == 3
    for name in named:
        assert (tmp_path / "s" / name).is_file()
    assert tomllib.loads(file.read_text("utf-8"))["broker"]["port"] == 8883


def test_the_drop_in_holds_variables_that_an_influxdb_1_takes():
    parser = configparser.ConfigParser(strict=False)
    parser.read(SYSTEMD / "influxdb.service.d" / "fleetmark.conf")
    assert parser.sections() == ["Service"]
    for line in values("influxdb.service.d/fleetmark.conf", "Environment"):
        assert re.fullmatch(r"INFLUXDB_[A-Z_]+=\S+", line)


@pytest.mark.parametrize("script", ["fleetmark", "fleetmark-backup"])
def test_a_script_is_a_lawful_shell_script_that_can_be_run(script):
    file = SYSTEMD / script
    assert file.stat().st_mode & 0o111
    assert subprocess.run(["sh", "-n", file], check=False).returncode == 0
    if shutil.which("shellcheck"):
        done = subprocess.run(["shellcheck", file], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
