"""Certificates and keys that the settings name: each mistake has a message of its own."""

import ssl
import subprocess

import pytest

from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.settings import BrokerSettings
from fleetmark_protocol.tls import client_context


def openssl(*words):
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=60)


def make(directory, name):
    """A certificate that signs itself, and its key."""
    cert, key = directory / f"{name}.crt", directory / f"{name}.key"
    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
        *("-subj", f"/CN={name}", "-days", 2, "-keyout", key, "-out", cert),
    )
    return cert, key


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tls")
    (ca, _), (cert, key), (_, other_key) = (make(directory, name) for name in ("ca", "pi", "x"))
    locked = directory / "locked.key"
    openssl("ec", "-in", key, "-aes256", "-passout", "pass:sesame", "-out", locked)
    text = directory / "text"
    text.write_text("no PEM at all")
    half = directory / "half.crt"
    half.write_text(cert.read_text()[:200])
    return {
        "ca": ca,
        "cert": cert,
        "key": key,
        "other key": other_key,
        "locked key": locked,
        "text": text,
        "half": half,
        "nowhere": directory / "nowhere",
        "directory": directory,
    }


def context(files, **names):
    chosen = {name: files[value] for name, value in names.items()}
    return client_context(BrokerSettings(**chosen))


def test_with_all_files_in_order_tls_is_spoken_and_the_broker_is_checked(files):
    made = context(files, ca_file="ca", cert_file="cert", key_file="key")
    assert made.check_hostname
    assert [one["subject"][0][0][1] for one in made.get_ca_certs()] == ["ca"], "and no other"


def test_on_this_machine_without_a_ca_no_tls_is_spoken():
    assert client_context(BrokerSettings()) is None


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({"ca_file": "nowhere"}, "broker.ca_file: {nowhere}: No such file"),
        ({"ca_file": "text"}, "broker.ca_file: {text} holds no certificate in PEM"),
        ({"ca_file": "half"}, "broker.ca_file: {half} holds no certificate in PEM"),
        ({"ca_file": "directory"}, "broker.ca_file: {directory}: Is a directory"),
        ({"cert_file": "nowhere"}, "broker.cert_file: {nowhere}: No such file"),
        ({"cert_file": "text"}, "broker.cert_file: {text} holds no certificate in PEM"),
        ({"key_file": "nowhere"}, "broker.key_file: {nowhere}: No such file"),
        ({"key_file": "text"}, "broker.key_file: {text} holds no private key in PEM"),
        ({"key_file": "directory"}, "broker.key_file: {directory}: Is a directory"),
        ({"key_file": "other key"}, "broker.key_file: {other key} is not the key of {cert}"),
        ({"key_file": "locked key"}, "broker.key_file: {locked key} is locked with a passphrase"),
        ({"cert_file": "half"}, "broker.cert_file, key_file: "),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_what_is_wrong_with_it(files, names, says):
    good = {"ca_file": "ca", "cert_file": "cert", "key_file": "key"}
    with pytest.raises(ConfigError) as caught:
        context(files, **{**good, **names})
    assert caught.value.message.startswith(says.format(**files))


def test_a_ca_made_by_hand_counts_whatever_python_thinks_of_its_extensions(files, monkeypatch):
    """From 3.13 on, Python's own context refuses those without a key identifier."""
    real = ssl.create_default_context

    def strict(**names):
        made = real(**names)
        made.verify_flags |= ssl.VERIFY_X509_STRICT
        return made

    monkeypatch.setattr(ssl, "create_default_context", strict)
    made = context(files, ca_file="ca")
    assert not made.verify_flags & ssl.VERIFY_X509_STRICT
    assert made.verify_mode is ssl.CERT_REQUIRED
