"""`fleetmark enroll`, `identities` and `revoke`, and what `broker` and `collect` make of them."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from enrolled import BY_PASSWORD, Clock
from fleetmark_collector import broker as brokers
from fleetmark_collector.cli import broker as broker_command
from fleetmark_collector.cli import common, enroll
from fleetmark_collector.config import load_settings
from fleetmark_collector.enrolment import brokerusers, checking, kit
from fleetmark_collector.enrolment.enrolling import Enrolment
from fleetmark_protocol.errors import ConfigError

HOST = ("--host", "192.0.2.7")


@pytest.fixture
def run(tmp_path):
    app = typer.Typer()
    enroll.register(app)

    def invoke(*args, fails=None):
        done = CliRunner().invoke(app, [*map(str, args), "--data-dir", str(tmp_path)])
        if fails is not None:
            assert isinstance(done.exception, ConfigError), done.output
            assert fails in str(done.exception)
        else:
            assert done.exit_code == 0, done.output
        return done

    return invoke


def secrets_of(directory):
    """Every secret in a directory: a password, or a line of a key that no other key has."""
    named = [*directory.rglob("*password*"), *directory.rglob("*.key")]
    files = [file for file in named if file.is_file() and file.name != "passwords"]
    return [file.read_text().strip().splitlines()[-2:][0] for file in files]


@pytest.mark.parametrize("kind", ["--password", "--certificate"])
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_no_secret_is_printed_unless_asked_for(run, tmp_path, kind, form):
    done = run("enroll", "pi", kind, *HOST, *form)
    secrets = secrets_of(tmp_path)
    assert len(secrets) == 4, "those of CA, broker, collector and device"
    assert not [one for one in secrets if one in done.stdout + done.stderr]
    listed = run("identities", *form)
    assert not [one for one in secrets if one in listed.output]


@pytest.mark.parametrize(
    ("kind", "file"), [("--password", "agent-password"), ("--certificate", "agent.key")]
)
def test_the_secret_is_printed_where_it_is_asked_for(run, tmp_path, kind, file):
    done = run("enroll", "pi", kind, *HOST, "--show-secret")
    secret = (tmp_path / "identities/devices/pi" / file).read_text().strip()
    assert secret in done.stdout
    again = run("enroll", "pi", kind, "--renew", "--show-secret", "--json")
    told = json.loads(again.stdout)["devices"][0]["secret"]
    assert told == (tmp_path / "identities/devices/pi" / file).read_text().strip() != secret


def test_it_says_where_the_kit_is_until_when_it_counts_and_what_to_do(run, tmp_path):
    done = run("enroll", "pi", "ec2", *HOST)
    for device in ("pi", "ec2"):
        assert str(tmp_path / "identities/devices" / device) in done.stdout
    assert "certificate until 20" in done.stdout
    assert "install -m 640 -g fleetmark-agent * /etc/fleetmark/" in done.stdout


def test_a_renewal_leaves_the_devices_settings_alone(run):
    run("enroll", "pi", *HOST)
    done = run("enroll", "pi", "--renew")
    assert "fleetmark-agent agent-ca.crt agent.crt agent.key /etc/fleetmark/" in done.stdout
    assert 'must say: fleet = "default"' in done.stdout


def test_one_named_twice_is_one(run):
    done = run("enroll", "pi", "pi", *HOST, "--json")
    assert [one["device"] for one in json.loads(done.stdout)["devices"]] == ["pi"]


@pytest.fixture
def full(monkeypatch):
    """Have the disk full when it comes to the kit of the device `second`."""
    write = kit.write

    def full(there, device, files):
        if device == "second":
            raise OSError(errno.ENOSPC, "No space left on device", "/kits")
        write(there, device, files)

    return lambda: monkeypatch.setattr(kit, "write", full)


def test_of_several_those_leave_their_old_fleet_that_were_moved_before_one_failed(
    run, full, monkeypatch
):
    offline = []
    monkeypatch.setattr(enroll, "_say_offline", lambda _, *words: offline.append(words))
    run("enroll", "first", "second", *HOST)
    run("enroll", "--renew", "first")
    assert offline == []
    full()
    run("enroll", "--renew", "--fleet", "lab", "first", "second", fails="No space left")
    assert offline == [(["first"], "lab")]


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_of_several_those_are_listed_that_were_made_before_one_failed(run, tmp_path, full, form):
    full()
    done = run("enroll", "first", "second", "third", *HOST, *form, fails="No space left")
    assert str(tmp_path / "identities/devices/first") in done.stdout
    assert "second" not in done.stdout
    if form:
        assert [one["device"] for one in json.loads(done.stdout)["devices"]] == ["first"]


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (("--tag", "BAD TAG"), "no tag"),
        (("--fleet", "BAD FLEET"), "--fleet"),
        (("--host", "fe80::1%eth0"), "counts on one machine alone"),
        (("--host", "two words"), "neither a host name"),
    ],
)
def test_a_wrong_wish_makes_nothing_at_all(run, tmp_path, wish, message):
    run("enroll", "pi", *HOST, *wish, fails=message)
    assert not (tmp_path / "identities").exists()


def test_one_wrong_device_of_several_makes_none(run, tmp_path):
    run("enroll", "pi", "Not Right", *HOST, fails="no device id")
    assert not (tmp_path / "identities").exists()
    run("enroll", "pi", *HOST)
    run("enroll", "ec2", "pi", fails="enrolled already")
    assert [one["device"] for one in json.loads(run("identities", "--json").stdout)] == ["pi"]


def test_identities_are_listed_with_their_end(run):
    run("enroll", "pi", *HOST, "--days", 10)
    run("enroll", "ec2", "--password")
    (ec2, pi) = json.loads(run("identities", "--json").stdout)
    assert (pi["kind"], pi["state"]) == ("certificate", "ends soon")
    assert (ec2["kind"], ec2["state"], ec2["certificates"]) == ("password", "ok", {})
    assert "ends soon" in run("identities").stdout


def test_identities_are_listed_with_their_fleet(run, tmp_path):
    run("enroll", "pi", *HOST, "--fleet", "lab")
    run("enroll", "ec2")
    old = Enrolment.open(tmp_path).keep
    brokerusers.set_user(old, "pi-old", "password")
    listed = json.loads(run("identities", "--json").stdout)
    assert {one["device"]: one["fleet"] for one in listed} == {
        "pi": "lab",
        "ec2": "default",
        "pi-old": None,
    }
    shown = [line.split()[:2] for line in run("identities").stdout.splitlines()]
    assert shown == [["DEVICE", "FLEET"], ["ec2", "default"], ["pi", "lab"], ["pi-old", "any"]]


def test_revoking_says_who_is_out(run):
    run("enroll", "pi", "ec2", *HOST)
    assert "revoked: pi" in run("revoke", "pi").stdout
    run("revoke", "pi", fails="not enrolled: pi")
    run("revoke", fails="whom?")
    assert json.loads(run("revoke", "ec2", "--json").stdout)["revoked"] == ["ec2"]
    assert "nobody to revoke" in run("revoke", "--expired").stdout


def test_who_has_ended_is_out_by_expired_and_nobody_else(run, tmp_path):
    # Made by a clock of the year before last.
    long_ago = Enrolment.open(tmp_path, clock=Clock())
    long_ago._clock.pass_days(-600)
    long_ago.enroll("pi", BY_PASSWORD)
    run("enroll", "ec2")
    assert "revoked: pi\n" in run("revoke", "--expired").stdout
    assert [one["device"] for one in json.loads(run("identities", "--json").stdout)] == ["ec2"]


def test_the_exit_code_of_a_mistake_is_2_and_there_is_no_traceback(tmp_path):
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("fleetmark"), "enroll", "Pi"),
            *("--data-dir", tmp_path),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: 'Pi' is no device id")


def test_a_file_in_the_place_of_the_directory_is_named(run, tmp_path):
    (tmp_path / "identities").write_text("not a directory")
    run("enroll", "pi", *HOST, fails="identities")


def test_the_doctor_says_who_ends_soon_and_nothing_where_nobody_is_enrolled(run, tmp_path):
    settings = load_settings(None, {"data_dir": tmp_path})
    assert list(checking.examine(settings)) == []
    run("enroll", "pi", *HOST)
    (well,) = checking.examine(settings)
    assert (well.level, well.text) == ("ok", "1 enrolled")
    run("enroll", "ec2", "--days", 20)
    (soon,) = checking.examine(settings)
    assert soon.level == "warn"
    assert "ec2 (20" in soon.text
    assert "pi" not in soon.text
    assert "--renew" in soon.todo


# --- a centre set up by its script --------------------------------------------------------------


@pytest.fixture
def centre(tmp_path):
    """A directory as `setup_centre.py init` leaves it, as far as it matters here."""
    enrolment = Enrolment.open(tmp_path, tmp_path / "etc")
    enrolment.prepare(["centre.example", "192.0.2.7", "mosquitto"])
    (tmp_path / "etc" / "influxdb").mkdir()
    return tmp_path / "etc"


def test_there_the_hosts_are_the_scripts_and_one_of_them_may_be_chosen(run, centre):
    run("enroll", "pi", "--identities", centre, "--host", "new.example", fails="setup_centre.py")
    run("enroll", "pi", "--identities", centre, "--host", "192.0.2.7")
    assert 'host = "192.0.2.7"' in (centre / "devices/pi/agent.toml").read_text()


def test_there_it_says_how_the_broker_is_told(run, centre):
    done = run("enroll", "pi", "--identities", centre, "--json")
    assert not json.loads(done.stdout)["broker_told"]
    assert "docker compose kill -s HUP mosquitto" in done.stderr


# --- the broker and the collector find it -------------------------------------------------------


@pytest.fixture
def started(tmp_path, monkeypatch):
    """What `fleetmark broker` would run Mosquitto with."""
    app = typer.Typer()
    broker_command.register(app)
    got = []
    monkeypatch.setattr(brokers, "become_mosquitto", lambda _, options: got.append(options))
    monkeypatch.setattr(brokers, "_check_port", lambda *_: None)

    def invoke(*args):
        done = CliRunner().invoke(app, [*map(str, args), "--data-dir", str(tmp_path)])
        assert done.exit_code == 0, (done.output, done.exception)
        return got.pop(), done.output

    return invoke


def test_once_somebody_is_enrolled_the_broker_serves_the_network_over_tls(run, started, tmp_path):
    before, _ = started()
    assert (before.host, before.port, before.cert_file) == ("127.0.0.1", 1883, None)
    run("enroll", "pi", *HOST)
    options, said = started()
    assert (options.host, options.port, options.certificates_port) == ("", 8883, 8884)
    assert options.password_file == tmp_path / "identities/broker/passwords"
    assert options.acl_file == tmp_path / "identities/broker/acl"
    assert "8883 (TLS, passwords)" in said
    assert "8884 (TLS, client certificates)" in said


def test_when_the_broker_starts_who_has_ended_is_out(started, tmp_path):
    long_ago = Enrolment.open(tmp_path, clock=Clock())
    long_ago._clock.pass_days(-600)
    long_ago.enroll("pi", BY_PASSWORD)
    _, said = started()
    assert "let in no more: pi" in said
    assert Enrolment.open(tmp_path).identities() == []


def test_a_command_without_settings_takes_those_that_enroll_has_made(run, tmp_path):
    assert common.settings_from(None, tmp_path).broker.port == 1883
    run("enroll", "pi", *HOST)
    settings = common.settings_from(None, tmp_path)
    assert (settings.broker.host, settings.broker.port) == ("localhost", 8883)
    assert settings.broker.username == "fleetmark-collector"
    assert settings.data_dir == tmp_path
    own = tmp_path / "own.toml"
    own.write_text("log_level = 'error'\n")
    assert common.settings_from(own, tmp_path).broker.port == 1883
