"""What `fleetmark enroll` and `revoke` refuse, and that nothing is left half done."""

import errno
import os
from datetime import timedelta

import pytest
from cryptography import x509

from enrolled import BY_CERTIFICATE, BY_PASSWORD, Clock, tree, users
from fleetmark_collector.enrolment.enrolling import Enrolment, Wish
from fleetmark_collector.enrolment.keep import Keep
from fleetmark_protocol.errors import ConfigError


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def enrolment(tmp_path, clock):
    return Enrolment.open(tmp_path, clock=clock)


@pytest.mark.parametrize("device", ["Pi", "../etc", "pi/1", "pi 1", "", "-pi", "a" * 64, "pi\n"])
def test_what_is_no_device_id_gets_nothing(enrolment, device):
    with pytest.raises(ConfigError, match="no device id"):
        enrolment.enroll(device, BY_PASSWORD)
    assert not enrolment.keep.directory.exists()


@pytest.mark.parametrize(
    ("device", "wish", "message"),
    [
        ("fleetmark-collector", BY_PASSWORD, "collector's own name"),
        ("pi", Wish(), "how do devices reach this machine"),
        ("pi", Wish(host="two words"), "neither a host name nor an address"),
        ("pi", Wish(host="a.example,DNS:evil"), "neither a host name nor an address"),
        ("pi", Wish(host="fe80::1%eth0"), "counts on one machine alone"),
        ("pi", Wish(fleet="Not A Fleet"), "--fleet"),
        ("pi", Wish(days=0), "--days"),
        ("pi", Wish(days=3651), "--days"),
        ("pi", Wish(days=3650, host="a.example"), None),
        ("pi", Wish(tags=("Not A Tag",)), "no tag"),
    ],
)
def test_a_wrong_wish_is_named(enrolment, device, wish, message):
    if message is None:
        enrolment.enroll(device, wish)
        return
    with pytest.raises(ConfigError, match=message):
        enrolment.enroll(device, wish)
    assert enrolment.identities() == []


def test_who_is_enrolled_stays_as_he_is_unless_a_renewal_is_asked_for(enrolment):
    enrolment.enroll("pi", BY_PASSWORD)
    before = tree(enrolment.keep.directory)
    with pytest.raises(ConfigError, match="enrolled already, by password until 2027") as caught:
        enrolment.enroll("pi", BY_CERTIFICATE)
    assert "--renew" in caught.value.hint
    assert tree(enrolment.keep.directory) == before


def test_nobody_is_renewed_who_was_never_enrolled(enrolment):
    with pytest.raises(ConfigError, match="pi is not enrolled"):
        enrolment.enroll("pi", BY_PASSWORD, renew=True)


def test_who_is_not_enrolled_cannot_be_revoked_and_takes_nobody_along(enrolment):
    enrolment.enroll("pi", BY_PASSWORD)
    with pytest.raises(ConfigError, match="not enrolled: nobody"):
        enrolment.revoke(["pi", "nobody"])
    assert users(enrolment) == {"pi"}


def test_a_certificate_does_not_outlive_its_ca(enrolment, clock):
    enrolment.prepare(["a.example"])
    clock.pass_days(7000)
    with pytest.raises(ConfigError, match="CA itself ends on 2046"):
        enrolment.enroll("pi", BY_CERTIFICATE)


def test_the_longest_certificate_can_be_had_until_the_ca_is_half_way(enrolment, clock):
    enrolment.prepare(["a.example"])
    clock.pass_days(3650)
    enrolment.enroll("pi", Wish(days=3650))
    assert enrolment.find("pi").ends == clock.now + timedelta(days=3650)


def test_a_registry_that_is_damaged_is_named_and_nothing_is_overwritten(enrolment):
    enrolment.enroll("pi", BY_PASSWORD)
    enrolment.keep.path("identities.json").write_text('{"identities": 3}')
    before = tree(enrolment.keep.directory)
    with pytest.raises(ConfigError, match=r"identities\.json is damaged"):
        enrolment.enroll("ec2", BY_PASSWORD)
    assert tree(enrolment.keep.directory) == before


@pytest.mark.parametrize("name", ["identities.json", "agent-password", "acl"])
def test_a_full_disk_lets_nobody_in_by_half(enrolment, monkeypatch, name):
    enrolment.prepare(["a.example"])
    before = tree(enrolment.keep.directory)
    whole = Keep.write

    def full(keep, file, *rest):
        if file.endswith(name) and (name != "acl" or "user pi" in rest[0]):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(keep.path(file)))
        whole(keep, file, *rest)

    monkeypatch.setattr(Keep, "write", full)
    with pytest.raises(ConfigError, match="No space left") as caught:
        enrolment.enroll("pi", BY_PASSWORD)
    assert "make room" in caught.value.hint
    monkeypatch.undo()
    assert enrolment.identities() == []
    after = tree(enrolment.keep.directory)
    after.pop(enrolment.keep.path("identities.json"), None)
    assert set(after) == set(before)
    enrolment.enroll("pi", BY_PASSWORD)


def test_a_directory_that_may_not_be_written_is_said_with_what_helps(enrolment, monkeypatch):
    def locked(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", "/etc/fleetmark/.lock")

    enrolment.prepare(["a.example"])
    monkeypatch.setattr(os, "open", locked)
    with pytest.raises(ConfigError, match=r"\.lock: Permission denied") as caught:
        enrolment.enroll("pi", BY_PASSWORD)
    assert "root" in caught.value.hint


def test_without_the_cas_key_a_password_can_be_given_but_no_certificate(enrolment):
    enrolment.prepare(["a.example"])
    enrolment.keep.path("ca.key").unlink()
    enrolment.enroll("by-password", Wish(kind="password"))
    for wish in (Wish(kind="certificate"), Wish(kind="password", host="another.example")):
        with pytest.raises(ConfigError, match=r"ca\.key is not there") as caught:
            enrolment.enroll("by-certificate", wish)
        assert "put it back" in caught.value.hint
    assert [one.device for one in enrolment.identities()] == ["by-password"]


# --- revoked while the CA's key was in its safe place ----------------------------------------


def listed(enrolment):
    crl = x509.load_pem_x509_crl(enrolment.keep.read("broker/revoked.crl").encode())
    return {f"{one.serial_number:x}" for one in crl}


@pytest.fixture
def unsigned(enrolment):
    """Return the serial numbers of a device that was revoked without the key, and the key."""
    enrolment.enroll("pi", BY_CERTIFICATE)
    serials = set(enrolment.find("pi").certificates)
    key = enrolment.keep.path("ca.key").rename(enrolment.keep.path("safe"))
    assert not enrolment.revoke(["pi"])
    return serials, key


def test_nobody_gets_back_the_topics_of_a_certificate_that_still_opens(enrolment, unsigned):
    before = enrolment.keep.read("broker/acl")
    with pytest.raises(ConfigError, match="would open again") as caught:
        enrolment.enroll("pi", BY_PASSWORD)
    assert "ca.key" in caught.value.hint
    with pytest.raises(ConfigError, match="would open again"):
        enrolment.check(["pi"])
    assert enrolment.keep.read("broker/acl") == before
    enrolment.enroll("another", BY_PASSWORD)


def test_with_the_key_back_the_list_is_signed_before_anybody_is_let_in(
    enrolment, unsigned, monkeypatch
):
    serials, key = unsigned
    key.rename(enrolment.keep.path("ca.key"))
    let_in = Enrolment._let_in

    def looked(*arguments):
        assert listed(enrolment) == serials
        let_in(*arguments)

    monkeypatch.setattr(Enrolment, "_let_in", looked)
    enrolment.check(["pi"])
    enrolment.enroll("pi", BY_PASSWORD)
    assert users(enrolment) == {"pi"}


def test_a_list_that_was_lost_is_made_again_from_what_is_written_down(enrolment):
    enrolment.enroll("pi", BY_CERTIFICATE)
    serials = set(enrolment.find("pi").certificates)
    enrolment.revoke(["pi"])
    enrolment.keep.path("broker/revoked.crl").unlink()
    enrolment.prepare()
    assert listed(enrolment) == serials


# --- the broker's certificate while the CA's key is away --------------------------------------


def test_without_the_cas_key_the_broker_starts_for_as_long_as_its_certificate_is_good(
    tmp_path, clock
):
    Enrolment.open(tmp_path, clock=clock).prepare(["a.example"])
    said = []
    enrolment = Enrolment.open(tmp_path, say=said.append, clock=clock)
    enrolment.keep.path("ca.key").unlink()
    clock.pass_days(824)
    enrolment.prepare()
    assert [text.partition("/broker/")[2] for text in said] == [
        "server.crt ends on 2028-06-03: put ca.key back, to have it made anew"
    ]
    clock.pass_days(2)
    with pytest.raises(ConfigError, match=r"ca\.key is not there"):
        enrolment.prepare()


def test_in_the_cas_own_last_month_the_brokers_certificate_is_not_made_at_each_start(
    enrolment, clock
):
    enrolment.prepare(["a.example"])
    clock.pass_days(7290)
    enrolment.prepare()
    last = enrolment.keep.read("broker/server.crt")
    enrolment.prepare()
    assert enrolment.keep.read("broker/server.crt") == last
