"""A device's own certificate comes to its end: doctor, log and status say so in time."""

import json
import subprocess

import pytest

from fleetmark_agent.certificatewatch import CertificateWatch
from fleetmark_agent.cli.status import _certificate
from fleetmark_agent.config import AgentSettings
from fleetmark_agent.connectivity import examine_broker
from fleetmark_protocol.brokertrouble import own_certificate
from fleetmark_protocol.certificate import DAY_NS
from fleetmark_protocol.settings import BrokerSettings
from servers import free_port


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """One that asks for certificates; ours is valid for a hundred days."""
    directory = tmp_path_factory.mktemp("own")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        + ["-nodes", "-subj", "/CN=pi-1", "-days", "100"]
        + ["-keyout", directory / "pi.key", "-out", directory / "pi.crt"],
        check=True,
        capture_output=True,
    )
    return BrokerSettings(
        port=free_port(),
        ca_file=directory / "pi.crt",
        cert_file=directory / "pi.crt",
        key_file=directory / "pi.key",
    )


@pytest.fixture
def ends_ns(broker):
    return own_certificate(broker).ends_ns


@pytest.mark.parametrize(
    ("left_ns", "level", "says", "hint"),
    [
        (40 * DAY_NS, "ok", "in 40 days", None),
        (29 * DAY_NS, "warn", "in 29 days", "fleetmark enroll"),
        (-DAY_NS, "bad", "our own certificate ended on", "fleetmark enroll"),
        (101 * DAY_NS, "bad", "our own certificate begins on", "is that right?"),
    ],
)
def test_the_doctor_tells_what_is_wrong_with_it(
    tmp_path, broker, ends_ns, left_ns, level, says, hint
):
    settings = AgentSettings(device_id="pi-1", state_dir=tmp_path, broker=broker)
    first, *_ = examine_broker(settings, clock_ns=lambda: ends_ns - left_ns)
    assert first.level == level
    assert says in first.what
    assert first.hint is None if hint is None else hint in first.hint


def test_without_one_the_doctor_says_nothing_of_it(tmp_path):
    settings = AgentSettings(device_id="pi-1", state_dir=tmp_path, broker={"port": free_port()})
    assert not any("certificate" in one.what for one in examine_broker(settings))


def test_the_log_says_so_at_once_and_then_once_a_day(broker, ends_ns, capsys):
    now_ns = ends_ns - 20 * DAY_NS
    watch = CertificateWatch(broker, lambda: now_ns)
    for _ in range(48):
        watch.look()
        now_ns += DAY_NS // 24
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {one["event"] for one in events} == {"certificate_ends_soon"}
    # Two days touch three dates at most.
    assert 2 <= len(events) <= 3
    now_ns = ends_ns + 1
    watch.look()
    (last,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (last["event"], last["level"]) == ("certificate_ended", "error")


def test_one_that_is_valid_for_long_is_not_spoken_of(broker, ends_ns, capsys):
    CertificateWatch(broker, lambda: ends_ns - 31 * DAY_NS).look()
    CertificateWatch(BrokerSettings()).look()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("days", "says"), [(90, "in 90 days"), (12, "MAKE A NEW ONE"), (-3, "HAS ENDED")]
)
def test_the_status_tells_how_long_it_counts(ends_ns, days, says):
    assert says in _certificate(ends_ns, ends_ns - days * DAY_NS)
    assert _certificate(None, ends_ns) is None
