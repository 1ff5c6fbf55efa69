"""deploy/setup_centre.py: what it makes, who may read it, and that running it again is safe."""

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from deployed import COLLECTOR, setup_centre
from fleetmark_collector.enrolment.authority import CA_DAYS
from fleetmark_collector.enrolment.enrolling import Enrolment, Wish
from fleetmark_collector.enrolment.wish import MAX_DAYS

SECRETS = (
    "collector-password",
    "grafana-influxdb-password",
    "grafana-influxdb-token",
    "grafana-password",
    "influxdb-password",
    "influxdb-token",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    keep = tmp_path_factory.mktemp("made") / "secrets"
    done = setup_centre(keep, "init", "centre.example", "192.0.2.7")
    assert done.returncode == 0, done.stderr
    return keep


@pytest.fixture
def keep(made, tmp_path):
    """Secrets of a test's own, with the modes that the script gave them."""
    return Path(shutil.copytree(made, tmp_path / "secrets"))


def mode(file):
    return stat.S_IMODE(file.stat().st_mode)


def tree(directory):
    return {
        str(file.relative_to(directory)): (file.read_bytes(), file.stat().st_ino)
        for file in directory.rglob("*")
        if file.is_file()
    }


def openssl(*args):
    return subprocess.run(["openssl", *map(str, args)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", SECRETS)
def test_every_secret_is_long_and_random_and_alone_in_its_file(keep, name):
    text = (keep / name).read_text("ascii")
    assert re.fullmatch(r"[0-9a-f]{64}\n", text)


def test_no_two_secrets_are_alike_but_the_token_that_grafana_begins_with(keep):
    values = {name: (keep / name).read_text() for name in SECRETS}
    assert values.pop("grafana-influxdb-token") == values["influxdb-token"]
    assert len(set(values.values())) == len(values)


def test_only_its_owner_and_one_group_can_read_a_secret_and_only_its_owner_the_ca_key(keep):
    assert mode(keep) == 0o751, "an agent on this machine must get to its own settings"
    for file in keep.rglob("*"):
        if file.is_dir():
            assert mode(file) in {0o750, 0o700}, file
        elif file.name == "ca.crt" and file.parent == keep:
            assert mode(file) == 0o644
        elif file.name == "ca.key":
            assert mode(file) == 0o600, file
        else:
            assert mode(file) == 0o640, file
    assert mode(keep / "devices") == 0o700


def test_the_files_belong_to_the_group_that_is_named(tmp_path):
    groups = [group for group in os.getgroups() if group != os.getgid()] or [os.getgid()]
    done = setup_centre(tmp_path / "s", "--group", groups[0], "init", "a.example")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "s" / "influxdb-token").stat().st_gid == groups[0]
    assert (tmp_path / "s" / "broker").stat().st_gid == groups[0]


def test_nothing_secret_is_printed(tmp_path):
    keep = tmp_path / "s"
    done = setup_centre(keep, "init", "a.example")
    said = done.stdout + done.stderr
    secrets = [file for file in keep.rglob("*") if file.name in SECRETS]
    assert len(secrets) == len(SECRETS)
    for file in secrets:
        assert file.read_text().strip() not in said
    assert "PRIVATE KEY" not in said


def test_run_again_it_changes_nothing_and_says_nothing(keep):
    before = tree(keep)
    done = setup_centre(keep, "init")
    assert (done.returncode, done.stderr) == (0, "")
    after = tree(keep)
    assert after == before


def test_what_was_lost_is_made_again_and_the_rest_stays(keep):
    before = tree(keep)
    (keep / "grafana-password").unlink()
    (keep / "broker" / "server.key").unlink()
    assert setup_centre(keep, "init").returncode == 0
    after = tree(keep)
    changed = {name for name in before if before[name] != after[name]}
    assert changed >= {"grafana-password", "broker/server.key", "broker/server.crt"}
    assert not changed & {"ca.crt", "ca.key", "broker/passwords", "influxdb-token"}


def test_other_names_make_another_certificate_of_the_same_ca(keep):
    before = tree(keep)
    assert setup_centre(keep, "init", "new.example").returncode == 0
    cert = openssl("x509", "-noout", "-ext", "subjectAltName", "-in", keep / "broker/server.crt")
    assert "DNS:new.example" in cert.stdout
    assert "centre.example" not in cert.stdout
    assert tree(keep)["ca.crt"] == before["ca.crt"]
    verified = openssl("verify", "-CAfile", keep / "ca.crt", keep / "broker/server.crt")
    assert verified.returncode == 0


def test_a_certificate_that_ends_soon_is_made_anew(keep, tmp_path):
    request = tmp_path / "csr"
    openssl("req", "-new", "-key", keep / "broker/server.key", "-subj", "/CN=x", "-out", request)
    openssl(
        *("x509", "-req", "-in", request, "-days", 10, "-CA", keep / "ca.crt"),
        *("-CAkey", keep / "ca.key", "-set_serial", 1, "-out", keep / "broker/server.crt"),
    )
    ends_soon = (keep / "broker/server.crt").read_text()
    assert setup_centre(keep, "init").returncode == 0
    assert (keep / "broker/server.crt").read_text() != ends_soon


def test_the_ca_signs_certificates_and_nothing_below_them(keep):
    said = openssl("x509", "-noout", "-text", "-in", keep / "ca.crt").stdout
    assert "CA:TRUE, pathlen:0" in said
    said = openssl("x509", "-noout", "-text", "-in", keep / "broker/server.crt").stdout
    assert "CA:FALSE" in said
    assert "TLS Web Server Authentication" in said
    for name in ("DNS:centre.example", "IP Address:192.0.2.7", "DNS:mosquitto", "DNS:localhost"):
        assert name in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["init"], "init NAME"),
        (["init", "two words"], "neither a host name nor an address"),
        (["init", "a.example,DNS:evil.example"], "neither a host name nor an address"),
        (["init", "-x"], "-x"),
        (["--group", "no-such-group", "init", "a.example"], "no group no-such-group"),
    ],
)
def test_a_mistake_is_said_in_a_line_and_makes_nothing(tmp_path, arguments, message):
    done = setup_centre(tmp_path / "s", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "s").exists()


def test_the_brokers_files_for_certificates_are_there_before_any_device(keep):
    assert (keep / "broker/ca.crt").read_text() == (keep / "ca.crt").read_text()
    verified = openssl(
        *("crl", "-noout", "-verify", "-CAfile", keep / "ca.crt"),
        *("-in", keep / "broker/revoked.crl"),
    )
    assert "verify OK" in verified.stderr
    rules = (keep / "broker/acl").read_text()
    assert f"user {COLLECTOR}\n" in rules
    assert "pattern" not in rules, "nobody has topics for having a name"


def test_without_the_cas_key_nothing_is_made_anew_that_is_good_still(keep):
    (keep / "ca.key").unlink()
    before = tree(keep)
    assert setup_centre(keep, "init").returncode == 0
    assert tree(keep) == before
    refused = setup_centre(keep, "init", "new.example")
    assert refused.returncode == 2
    assert "ca.key is needed" in refused.stderr


@pytest.mark.parametrize("lost", ["broker/revoked.crl", "broker/ca.crt"])
def test_an_empty_list_never_takes_the_place_of_one_that_named_somebody(keep, lost):
    known = '{"revoked": {"1f": {"revoked": "2026-01-01T00:00Z", "ends": "2027-01-01T00:00Z"}}}'
    (keep / lost).unlink()
    (keep / "identities.json").write_text(known)
    refused = setup_centre(keep, "init")
    assert (refused.returncode, "fleetmark enroll" in refused.stderr) == (2, True), refused.stderr
    assert not (keep / lost).exists()
    (keep / "identities.json").write_text('{"revoked": {}}')
    assert setup_centre(keep, "init").returncode == 0
    assert (keep / lost).exists()


def test_devices_of_an_older_fleetmark_get_rules_of_their_own(keep):
    passwords = keep / "broker/passwords"
    passwords.write_text(passwords.read_text() + "pi-old:$7$101$c2FsdA==$a2V5\n")
    (keep / "broker/acl").unlink()
    assert setup_centre(keep, "init").returncode == 0
    assert "topic read fleetmark/v1/+/pi-old/ack\n" in (keep / "broker/acl").read_text()


def test_run_again_it_leaves_the_rules_of_those_who_are_enrolled(keep):
    enroll = subprocess.run(
        [
            *(sys.executable, "-m", "fleetmark_collector", "enroll", "pi-1"),
            *("--identities", keep, "--data-dir", keep),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert enroll.returncode == 0, enroll.stderr
    before = tree(keep)
    assert "user pi-1\n" in (keep / "broker/acl").read_text()
    assert setup_centre(keep, "init").returncode == 0
    assert tree(keep) == before


def test_its_ca_lives_as_long_as_that_of_enroll_and_signs_the_longest_identity(keep):
    enrolment = Enrolment.open(keep.parent, keep)
    enrolment.enroll("pi", Wish(days=MAX_DAYS))
    ca = x509.load_pem_x509_certificate((keep / "ca.crt").read_bytes())
    lives = ca.not_valid_after_utc - ca.not_valid_before_utc
    assert lives.days == CA_DAYS


def test_a_second_run_leaves_each_device_in_its_fleet(keep):
    enrolment = Enrolment.open(keep.parent, keep)
    enrolment.enroll("pi", Wish(kind="password", fleet="lab"))
    before = (keep / "broker" / "acl").read_text()
    assert "fleetmark/v1/lab/pi/status" in before
    assert setup_centre(keep, "init").returncode == 0
    assert (keep / "broker" / "acl").read_text() == before


def test_an_address_that_counts_on_this_machine_alone_is_refused(tmp_path):
    done = setup_centre(tmp_path / "keep", "init", "fe80::1%eth0")
    assert (done.returncode, "one machine alone" in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "keep").exists()
