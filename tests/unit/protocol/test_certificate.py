"""The dates of certificates, against what openssl says of the same ones."""

import ssl
import subprocess
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmark_protocol.certificate import DAY_NS, Validity, read_validity, validity
from fleetmark_protocol.errors import ConfigError

FIELD = "broker.cert_file"
NOW_NS = 1_800_000_000 * 10**9


def openssl(*words):
    done = subprocess.run(
        ["openssl", *map(str, words)], check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout


def ns(text):
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


def make(directory, begins, ends, *more):
    """Have openssl make a certificate; its dates are YYYYMMDDHHMMSSZ."""
    key, request, cert = (directory / name for name in ("key", "request", "cert"))
    openssl(
        *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
        *("-subj", "/O=a rather long name of somebody/CN=pi-1", "-keyout", key, "-out", request),
    )
    config = directory / "ca.conf"
    (directory / "index").write_text("")
    config.write_text(
        f"[ca]\ndefault_ca=x\n[x]\ndatabase={directory}/index\nnew_certs_dir={directory}\n"
        f"serial={directory}/serial\ndefault_md=sha256\npolicy=p\n[p]\nO=optional\nCN=supplied\n"
    )
    (directory / "serial").write_text("0102030405060708090A0B0C0D0E0F\n")
    openssl(
        *("ca", "-batch", "-notext", "-config", config, "-selfsign", "-keyfile", key),
        *("-in", request, "-startdate", begins, "-enddate", ends, "-out", cert, *more),
    )
    return cert


@pytest.mark.parametrize(
    ("begins", "ends", "expected"),
    [
        ("20260101000000Z", "20270203040506Z", ("2026-01-01T00:00:00", "2027-02-03T04:05:06")),
        # From 2050 on the dates are written in another form.
        ("20491231235959Z", "20600102030405Z", ("2049-12-31T23:59:59", "2060-01-02T03:04:05")),
        ("19991231235959Z", "20000101000000Z", ("1999-12-31T23:59:59", "2000-01-01T00:00:00")),
    ],
)
def test_the_dates_are_those_that_openssl_was_told(tmp_path, begins, ends, expected):
    found = read_validity(FIELD, make(tmp_path, begins, ends))
    assert (found.begins_ns, found.ends_ns) == tuple(map(ns, expected))


def test_they_are_those_that_openssl_reads_in_a_large_rsa_certificate_of_version_1(tmp_path):
    cert = tmp_path / "cert"
    openssl("genrsa", "-out", tmp_path / "key", "2048")
    openssl("req", "-new", "-key", tmp_path / "key", "-subj", "/CN=x", "-out", tmp_path / "req")
    openssl(
        *("x509", "-req", "-in", tmp_path / "req", "-signkey", tmp_path / "key", "-days", 3),
        *("-out", cert),
    )
    assert "Version: 1" in openssl("x509", "-in", cert, "-noout", "-text")
    said = dict(
        line.split("=", 1) for line in openssl("x509", "-in", cert, "-noout", "-dates").splitlines()
    )
    found = read_validity(FIELD, cert)
    assert found.begins_ns == ssl.cert_time_to_seconds(said["notBefore"]) * 10**9
    assert found.ends_ns == ssl.cert_time_to_seconds(said["notAfter"]) * 10**9


def test_the_first_certificate_of_a_chain_counts_whatever_stands_before_it(tmp_path):
    (tmp_path / "other").mkdir()
    other = make(tmp_path / "other", "20200101000000Z", "20210101000000Z")
    cert = make(tmp_path, "20260101000000Z", "20270203040506Z")
    chain = tmp_path / "chain"
    chain.write_text(f"Subject: pi-1 (größer)\n{cert.read_text()}{other.read_text()}", "utf-8")
    assert read_validity(FIELD, chain).ends_ns == ns("2027-02-03T04:05:06")


@pytest.mark.parametrize(
    ("left_ns", "phase"),
    [
        (31 * DAY_NS, "ok"),
        (30 * DAY_NS, "ok"),
        (30 * DAY_NS - 1, "ends soon"),
        (0, "ends soon"),
        (-1, "expired"),
    ],
)
def test_it_is_told_thirty_days_before_its_end(left_ns, phase):
    own = Validity(NOW_NS - 5 * DAY_NS, NOW_NS + left_ns)
    assert own.phase(NOW_NS) == phase


def test_before_its_beginning_it_is_not_yet_valid():
    assert Validity(NOW_NS + 1, NOW_NS + DAY_NS).phase(NOW_NS) == "not yet valid"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing",
        "-----END CERTIFICATE----------BEGIN CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----",
    ],
)
def test_a_file_without_a_certificate_is_named(tmp_path, text):
    file = tmp_path / "cert"
    file.write_text(text)
    with pytest.raises(ConfigError, match=f"{FIELD}: {file}"):
        read_validity(FIELD, file)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read_validity(FIELD, tmp_path / "nowhere")


@pytest.fixture(scope="module")
def der(tmp_path_factory):
    cert = make(tmp_path_factory.mktemp("der"), "20260101000000Z", "20270203040506Z")
    return ssl.PEM_cert_to_DER_cert(cert.read_text())


@given(st.binary(max_size=200))
def test_whatever_comes_is_a_certificate_or_a_value_error(data):
    with pytest.raises(ValueError):
        validity(data)


@given(data=st.data())
def test_a_damaged_certificate_is_read_or_is_a_value_error(der, data):
    at = data.draw(st.integers(0, len(der) - 1))
    damaged = bytearray(der[: data.draw(st.integers(at + 1, len(der)))])
    damaged[at] = data.draw(st.integers(0, 255))
    try:
        validity(bytes(damaged))
    except ValueError:
        return
