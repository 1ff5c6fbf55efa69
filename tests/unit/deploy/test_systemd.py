"""deploy/systemd: systemd understands the units, locks them in, and their files fit together."""

import configparser
import re
import shutil
import subprocess
import sys
import tomllib

import pytest

from deployed import COLLECTOR, DEPLOY, mosquitto_config, setup_centre
from fleetmark_collector.config import load_settings

SYSTEMD = DEPLOY / "systemd"
UNITS = ("fleetmark-broker.service", "fleetmark-collector.service")
MAX_EXPOSURE = 1.5
"""`systemd-analyze security`: 0 is locked in, 10 is wide open; Debian's own mosquitto has 9.6."""

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed here"
)
each_unit = pytest.mark.parametrize("name", UNITS)


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
@each_unit
def test_systemd_finds_nothing_wrong_with_a_unit(name, tmp_path):
    done = analyze("verify", "--man=no", here(name, tmp_path))
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_systemd_would_find_a_mistake(tmp_path):
    file = here(UNITS[0], tmp_path)
    file.write_text(file.read_text("utf-8").replace("ProtectHome=true", "ProtectHom=true"), "utf-8")
    assert "ProtectHom" in analyze("verify", "--man=no", file).stderr


@needs_systemd
@each_unit
def test_a_unit_is_locked_in(name, tmp_path):
    done = analyze("security", "--offline=true", "--no-pager", here(name, tmp_path))
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found[1]) <= MAX_EXPOSURE


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


def test_the_broker_sees_of_the_settings_what_its_configuration_names_and_no_more(tmp_path):
    seen = values(UNITS[0], "BindReadOnlyPaths")[0].split()
    assert values(UNITS[0], "TemporaryFileSystem") == ["/etc/fleetmark:ro"]
    config = (DEPLOY / "mosquitto" / "mosquitto.conf").read_text("utf-8")
    for file in re.findall(r"^\w+ (/etc/fleetmark/\S+)", config, re.MULTILINE):
        assert any(file == path or file.startswith(f"{path}/") for path in seen), file
    assert "/etc/fleetmark/mosquitto.conf" in values(UNITS[0], "ExecStart")[0]
    assert not any("collector" in path or "influxdb" in path for path in seen)
    assert mosquitto_config(tmp_path, 1)


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
