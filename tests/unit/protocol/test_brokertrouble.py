"""Why a broker cannot be reached: who spoke plain MQTT by default before is told what to set."""

import ssl

import pytest

from fleetmark_protocol.brokertrouble import explain
from fleetmark_protocol.settings import BrokerSettings


def no_tls():
    error = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")
    error.reason = "WRONG_VERSION_NUMBER"
    return error


@pytest.mark.parametrize("error", [no_tls(), ConnectionResetError(), ConnectionRefusedError()])
def test_a_broker_elsewhere_that_speaks_no_tls_has_the_setting_named(error):
    trouble = explain(error, BrokerSettings(host="10.0.0.5"), 0)
    assert "broker.tls = false" in trouble.hint


@pytest.mark.parametrize("wish", [{"tls": True}, {"tls": False}, {"ca_file": "/ca.crt"}])
def test_who_has_said_whether_tls_is_spoken_is_not_told_to_turn_it_off(wish):
    trouble = explain(ConnectionRefusedError(), BrokerSettings(host="10.0.0.5", **wish), 0)
    assert "broker.tls" not in trouble.hint
