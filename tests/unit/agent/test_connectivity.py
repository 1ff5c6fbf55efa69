"""What the doctor advises where the way to the broker fails and no real network can be had."""

import socket

import pytest

from fleetmark_agent import connectivity
from fleetmark_agent.config import AgentSettings
from fleetmark_agent.connectivity import examine_broker
from servers import free_port


def settings_for(directory, **broker):
    broker.setdefault("port", free_port())
    return AgentSettings(device_id="pi", state_dir=directory / "state", broker=broker)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (TimeoutError("timed out"), "firewall or security group"),
        (ConnectionRefusedError(111, "Connection refused"), "nothing listens on port"),
        (socket.gaierror(-2, "Name or service not known"), "name server (DNS)"),
        (OSError(101, "Network is unreachable"), "is this machine's network up?"),
    ],
)
def test_each_way_to_fail_has_an_advice_of_its_own(tmp_path, monkeypatch, error, advice):
    def fails(*_args, **_more):
        raise error

    monkeypatch.setattr(connectivity.socket, "create_connection", fails)
    (finding,) = examine_broker(settings_for(tmp_path))
    assert finding.level == "bad"
    assert str(error) in finding.what
    assert advice in finding.hint


def test_a_clock_that_was_never_set_is_told_first(tmp_path):
    first, _ = examine_broker(settings_for(tmp_path), clock_ns=lambda: 10**9)
    assert first.level == "bad"
    assert first.what == "clock: it says 1970-01-01 00:00 UTC"
    assert "timedatectl" in first.hint


def test_a_file_that_is_missing_is_told_before_anybody_is_asked(tmp_path, monkeypatch):
    def asked(*_args, **_more):
        raise AssertionError("the network was used")

    monkeypatch.setattr(connectivity.socket, "create_connection", asked)
    settings = settings_for(tmp_path, ca_file=tmp_path / "gone.crt")
    (finding,) = examine_broker(settings)
    assert "broker.ca_file" in finding.what
    assert "gone.crt" in finding.what


def test_somebody_who_listens_and_says_nothing_is_no_broker(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = settings_for(tmp_path, port=silent.getsockname()[1])
        (finding,) = examine_broker(settings, timeout_s=0.3)
    assert finding.level == "bad"
    assert "no answer" in finding.what
