"""A connection's client id: one for each identity, and nobody else's to guess."""

import itertools
import subprocess

import pytest

from fleetmark_agent.brokerclient import CLIENT_ID_DIGITS, client_id, make_client
from fleetmark_agent.config import AgentSettings
from fleetmark_agent.simulation.plan import Plan


@pytest.fixture
def settings(tmp_path):
    def make(fleet="lab", device="pi", password=None, **broker):
        if password is not None:
            file = tmp_path / f"password-{password}"
            file.write_text(f"{password}\n")
            file.chmod(0o600)
            broker = {"username": device, "password_file": file, **broker}
        return AgentSettings(device_id=device, fleet=fleet, state_dir=tmp_path, broker=broker)

    return make


def id_of(settings, suffix=""):
    return make_client(settings, suffix)._client_id.decode()


@pytest.mark.parametrize("password", [None, "secret"])
def test_no_two_of_fleet_device_and_purpose_make_one_client_id(settings, password):
    ids = [
        id_of(settings(fleet, device, password), suffix)
        for fleet, device, suffix in itertools.product(
            ("a", "a-b", "a-b-c"), ("c", "b-c", "c-doctor", "pi", "pi-doctor"), ("", "-doctor")
        )
    ]
    assert len(set(ids)) == len(ids)
    # Nor by luck: the digests alone tell them apart.
    assert len({made[-CLIENT_ID_DIGITS:] for made in ids}) == len(ids)


def test_the_same_identity_has_the_same_client_id_so_that_two_of_them_clash(settings):
    assert id_of(settings(password="secret")) == id_of(settings(password="secret"))
    assert id_of(settings()) == id_of(settings())


def test_a_client_id_cannot_be_made_without_the_secret(settings):
    ids = {id_of(settings(password=password)) for password in (None, "one", "two")}
    assert len(ids) == 3


def test_a_client_id_begins_with_the_device_and_is_short_and_plain(settings):
    made = id_of(settings(password="secret"), "-doctor")
    assert made.startswith("pi-doctor-")
    assert len(made) < 40
    assert made.replace("-", "").isalnum()
    assert "secret" not in made


def test_a_device_with_a_certificate_is_known_by_its_key(settings, tmp_path):
    cert, key = tmp_path / "pi.crt", tmp_path / "pi.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        + ["-nodes", "-subj", "/CN=pi", "-days", "2", "-keyout", key, "-out", cert],
        check=True,
        capture_output=True,
    )
    pair = {"cert_file": cert, "key_file": key, "tls": True}
    made = id_of(settings(**pair))
    assert made == client_id(settings(), "", key.read_bytes())
    assert made != id_of(settings())
    # A password that several share tells less than a key of one's own.
    assert made == id_of(settings(password="secret", **pair))


def test_simulated_devices_of_one_password_have_client_ids_of_their_own(settings):
    plan = Plan(total=20, first=0, count=20)
    base = settings(password="secret")
    assert len({id_of(plan.device_settings(base, number)) for number in range(20)}) == 20
