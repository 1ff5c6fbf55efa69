"""Identities of devices: their files, who may read them, how they end."""

import ssl
import stat
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from enrolled import BY_CERTIFICATE, BY_PASSWORD, START, Clock, tree, users
from fleetmark_agent.config import load_settings
from fleetmark_collector.config import load_settings as load_collector_settings
from fleetmark_collector.enrolment import brokeracl, brokerusers
from fleetmark_collector.enrolment.enrolling import Enrolment, Wish


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def enrolment(tmp_path, clock):
    return Enrolment.open(tmp_path, clock=clock)


def certificate_of(kit):
    return x509.load_pem_x509_certificate(kit.files["agent.crt"].encode())


def revoked(enrolment):
    crl = x509.load_pem_x509_crl(enrolment.keep.read("broker/revoked.crl").encode())
    ca = x509.load_pem_x509_certificate(enrolment.keep.read("ca.crt").encode())
    assert crl.is_signature_valid(ca.public_key())
    return {f"{one.serial_number:x}" for one in crl}


# --- what is made ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "port", "files"),
    [
        (BY_CERTIFICATE, 8884, {"agent.toml", "agent-ca.crt", "agent.crt", "agent.key"}),
        (BY_PASSWORD, 8883, {"agent.toml", "agent-ca.crt", "agent-password"}),
    ],
)
def test_a_kit_holds_what_its_settings_name_and_the_agent_understands_it(
    enrolment, wish, port, files
):
    kit = enrolment.enroll("pi-kitchen", wish)
    assert {file.name for file in kit.directory.iterdir()} == set(kit.files) == files
    settings = load_settings(kit.directory / "agent.toml")
    assert settings.device_id == "pi-kitchen"
    assert str(settings.state_dir) == "/var/lib/fleetmark-agent"
    broker = settings.broker
    assert (broker.host, broker.port) == ("centre.example", port)
    named = {broker.ca_file, broker.cert_file, broker.key_file, broker.password_file} - {None}
    assert {str(file.parent) for file in named} == {"/etc/fleetmark"}
    assert {file.name for file in named} == files - {"agent.toml"}
    assert (broker.username is None) == (wish.kind == "certificate")


def test_a_certificate_says_whose_it_is_and_is_good_for_nothing_else(enrolment):
    kit = enrolment.enroll("pi", Wish(days=10, host="centre.example"))
    made = certificate_of(kit)
    (name,) = made.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert name.value == "pi"
    assert made.not_valid_before_utc <= START < START + timedelta(days=10)
    assert made.not_valid_after_utc == START + timedelta(days=10)
    extensions = made.extensions
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    ca = x509.load_pem_x509_certificate(kit.files["agent-ca.crt"].encode())
    made.verify_directly_issued_by(ca)


def test_key_and_certificate_belong_together(enrolment):
    kit = enrolment.enroll("pi", BY_CERTIFICATE)
    context = ssl.create_default_context()
    context.load_cert_chain(kit.directory / "agent.crt", kit.directory / "agent.key")


def test_tags_and_the_first_host_go_into_the_settings(enrolment):
    enrolment.prepare(["192.0.2.7", "centre.example"])
    kit = enrolment.enroll("pi", Wish(tags=("pi4", "cooled")))
    settings = load_settings(kit.directory / "agent.toml")
    assert list(settings.tags) == ["pi4", "cooled"]
    assert settings.broker.host == "192.0.2.7"


@pytest.mark.parametrize("wish", [BY_CERTIFICATE, BY_PASSWORD])
def test_nobody_else_on_the_machine_sees_anything(enrolment, wish):
    enrolment.enroll("pi", wish)
    for one in [enrolment.keep.directory, *enrolment.keep.directory.rglob("*")]:
        mode = stat.S_IMODE(one.stat().st_mode)
        assert mode == (0o700 if one.is_dir() else 0o600), one


def test_the_servers_of_a_centre_may_read_their_files_and_no_others(tmp_path, clock):
    directory = tmp_path / "etc"
    directory.mkdir(mode=0o751)
    group = directory.stat().st_gid
    enrolment = Enrolment.open(tmp_path, directory, clock=clock)
    enrolment.enroll("pi", BY_CERTIFICATE)
    for name in ("passwords", "acl", "revoked.crl", "server.key"):
        found = (directory / "broker" / name).stat()
        assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o640, group), name
    for name in ("ca.key", "identities.json", "devices/pi/agent.key"):
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600, name


def test_the_collector_gets_a_user_and_settings_of_its_own(enrolment):
    enrolment.enroll("pi", BY_CERTIFICATE)
    keep = enrolment.keep
    settings = load_collector_settings(keep.path("collector.toml"))
    assert (settings.broker.host, settings.broker.port) == ("localhost", 8883)
    assert settings.broker.username in brokerusers.users(keep)
    assert settings.broker.password().get_secret_value() == keep.read("collector-password")


def test_only_the_enrolled_have_topics_each_under_its_own_name(enrolment):
    enrolment.enroll("pi", BY_CERTIFICATE)
    enrolment.enroll("ec2", BY_PASSWORD)
    rules = enrolment.keep.read("broker/acl")
    assert "pattern" not in rules
    blocks = {
        block.splitlines()[0]: block for block in rules.split("\n\n") if not block.startswith("#")
    }
    assert set(blocks) == {
        "user fleetmark-collector",
        "user fleetmark-simulator",
        "user ec2",
        "user pi",
    }
    assert "topic read fleetmark/v1/default/pi/ack" in blocks["user pi"]
    assert "ec2" not in blocks["user pi"]
    assert "write fleetmark/v1/default/pi/ack" not in rules
    assert "write fleetmark/v1/default/pi/jobs" not in rules


def test_the_simulator_plays_devices_of_its_own_fleet_only(enrolment):
    enrolment.enroll("fleetmark-simulator", BY_PASSWORD)
    assert users(enrolment) == {"fleetmark-simulator"}
    assert "fleetmark/v1/+/fleetmark-simulator" not in enrolment.keep.read("broker/acl")


def test_more_names_of_the_centre_take_none_away(enrolment):
    enrolment.prepare(["a.example"])
    enrolment.prepare(["192.0.2.7"])
    made = x509.load_pem_x509_certificate(enrolment.keep.read("broker/server.crt").encode())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"a.example", "localhost"} <= set(names.get_values_for_type(x509.DNSName))
    assert "192.0.2.7" in map(str, names.get_values_for_type(x509.IPAddress))


def test_the_brokers_certificate_is_made_anew_in_its_last_month_only(enrolment, clock):
    enrolment.prepare(["a.example"])
    first = enrolment.keep.read("broker/server.crt")
    clock.pass_days(700)
    enrolment.prepare()
    assert enrolment.keep.read("broker/server.crt") == first
    clock.pass_days(100)
    enrolment.prepare()
    assert enrolment.keep.read("broker/server.crt") != first


def test_a_kit_may_go_elsewhere_and_leaves_no_copy(enrolment, tmp_path):
    kit = enrolment.enroll("pi", BY_PASSWORD, out=tmp_path / "stick")
    assert kit.directory == tmp_path / "stick" / "pi"
    assert stat.S_IMODE(kit.directory.stat().st_mode) == 0o700
    secret = kit.files["agent-password"]
    assert not [
        file for file, text in tree(enrolment.keep.directory).items() if secret.encode() in text
    ]


# --- how it ends -----------------------------------------------------------------------------


def test_of_a_revoked_device_nothing_opens_anything_any_more(enrolment):
    by_certificate = enrolment.enroll("pi", BY_CERTIFICATE)
    enrolment.enroll("ec2", BY_PASSWORD)
    enrolment.enroll("stays", BY_PASSWORD)
    assert enrolment.revoke(["pi", "ec2"])
    assert users(enrolment) == {"stays"}
    assert set(brokeracl.devices(enrolment.keep)) == {"stays"}
    assert revoked(enrolment) == {f"{certificate_of(by_certificate).serial_number:x}"}
    assert [one.device for one in enrolment.identities()] == ["stays"]
    assert {one.name for one in enrolment.keep.path("devices").iterdir()} == {"stays"}


def test_a_revoked_device_may_be_enrolled_again_with_a_new_secret(enrolment):
    first = enrolment.enroll("pi", BY_CERTIFICATE)
    enrolment.revoke(["pi"])
    second = enrolment.enroll("pi", BY_CERTIFICATE)
    assert first.files["agent.key"] != second.files["agent.key"]
    assert revoked(enrolment) == {f"{certificate_of(first).serial_number:x}"}


def test_a_renewed_certificate_leaves_the_old_one_until_its_end_but_revoking_ends_both(
    enrolment, clock
):
    first = enrolment.enroll("pi", BY_CERTIFICATE)
    clock.pass_days(300)
    second = enrolment.enroll("pi", BY_CERTIFICATE, renew=True)
    assert revoked(enrolment) == set()
    assert enrolment.find("pi").ends == clock.now + timedelta(days=365)
    enrolment.revoke(["pi"])
    serials = {f"{certificate_of(kit).serial_number:x}" for kit in (first, second)}
    assert revoked(enrolment) == serials


def test_a_device_that_changes_to_a_certificate_has_no_password_any_more(enrolment):
    enrolment.enroll("pi", BY_PASSWORD)
    kit = enrolment.enroll("pi", BY_CERTIFICATE, renew=True)
    assert users(enrolment) == set()
    assert {file.name for file in kit.directory.iterdir()} == set(kit.files)


def test_identities_end_by_themselves_and_are_told_before(enrolment, clock):
    enrolment.enroll("pi", Wish(kind="password", days=100, host="a.example"))
    enrolment.enroll("ec2", Wish(kind="certificate", days=300))
    assert enrolment.find("pi").state(clock.now) == "ok"
    clock.pass_days(80)
    assert enrolment.find("pi").state(clock.now) == "ends soon"
    assert enrolment.expired() == []
    clock.pass_days(21)
    assert enrolment.expired() == ["pi"]
    enrolment.revoke(enrolment.expired())
    assert users(enrolment) == set()
    assert [one.device for one in enrolment.identities()] == ["ec2"]


def test_a_certificate_that_has_ended_need_not_stand_among_the_revoked(enrolment, clock):
    enrolment.enroll("pi", Wish(days=10, host="a.example"))
    clock.pass_days(11)
    enrolment.revoke(enrolment.expired())
    assert revoked(enrolment) == set()


def test_without_the_cas_key_a_revoked_certificate_has_no_topics_and_that_is_said(enrolment):
    enrolment.enroll("pi", BY_CERTIFICATE)
    key = enrolment.keep.path("ca.key").rename(enrolment.keep.path("safe"))
    assert not enrolment.revoke(["pi"])
    assert brokeracl.devices(enrolment.keep) == {}
    key.rename(enrolment.keep.path("ca.key"))
    enrolment.enroll("other", BY_PASSWORD)
    enrolment.revoke(["other"])
    assert len(revoked(enrolment)) == 1, "made up for when the key is back"


def test_devices_of_an_older_fleetmark_are_known_and_can_be_revoked(enrolment):
    enrolment.prepare(["a.example"])
    brokerusers.set_user(enrolment.keep, "pi-old", "password")
    (old,) = enrolment.identities()
    assert (old.device, old.kind, old.ends) == ("pi-old", "password", None)
    enrolment.enroll("pi-new", BY_PASSWORD)
    assert brokeracl.devices(enrolment.keep) == {"pi-new": "default", "pi-old": None}
    enrolment.revoke(["pi-old"])
    assert users(enrolment) == {"pi-new"}
