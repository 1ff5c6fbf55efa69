"""An MQTT client made from the settings, and a trial connection for the doctor (paho-mqtt)."""

import hashlib
import hmac
import random
import threading
import time
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from pydantic import SecretStr

from fleetmark_agent.config import AgentSettings
from fleetmark_protocol.brokertrouble import explain
from fleetmark_protocol.errors import StoreUnavailable
from fleetmark_protocol.settings import BrokerSettings
from fleetmark_protocol.tls import client_context

RECONNECT_MIN_S = 1
RECONNECT_MAX_S = 20
CLIENT_ID_DIGITS = 24
"""Hexadecimal ones: 96 bits, which nobody guesses by trying at a broker."""


def reconnect_max_s(rng: random.Random) -> int:
    """Return up to where a device's delays between attempts to connect double.

    A fleet whose broker restarts must not come back as one wave.
    """
    return rng.randint(RECONNECT_MAX_S // 2, RECONNECT_MAX_S)


def make_client(
    settings: AgentSettings,
    suffix: str = "",
    version: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv311,
) -> mqtt.Client:
    """Return a client that is not connected yet.

    Args:
        settings: who we are; where and how to connect.
        suffix: of the client id; two clients with one id would throw each other out.
        version: of MQTT; all that is part of the contract works with 3.1.1.

    Raises:
        ConfigError: a certificate or password file cannot be used.
    """
    broker = settings.broker
    context = client_context(broker)
    password = broker.password()
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id(settings, suffix, _secret(broker, password)),
        # The outbox is our session: what a broker queued for us would only come twice.
        clean_session=None if version is MQTTProtocolVersion.MQTTv5 else True,
        protocol=version,
    )
    if context is not None:
        client.tls_set_context(context)
    if broker.username is not None:
        client.username_pw_set(
            broker.username, None if password is None else password.get_secret_value()
        )
    return client


def client_id(settings: AgentSettings, suffix: str, secret: bytes) -> str:
    """Return the name of a connection: the same for the same identity, and for no other.

    Who comes to a broker under another's client id throws that one out, and no rule of the broker
    (ACL) is asked. So it cannot be guessed without the secret, of which it tells nothing.

    Args:
        settings: who we are.
        suffix: see `make_client`.
        secret: what only this device has; empty where the broker asks for nothing.
    """
    # None of the three can hold a 0: fleet `a`, device `b-c` is not fleet `a-b`, device `c`.
    who = "\0".join(("fleetmark client", settings.fleet, settings.device_id, suffix))
    digest = hmac.digest(secret, who.encode(), hashlib.sha256).hex()
    return f"{settings.device_id}{suffix}-{digest[:CLIENT_ID_DIGITS]}"


def _secret(broker: BrokerSettings, password: SecretStr | None) -> bytes:
    if broker.key_file is not None:
        return broker.key_file.read_bytes()
    return b"" if password is None else password.get_secret_value().encode()


def try_broker(settings: AgentSettings, timeout_s: float = 5.0) -> None:
    """Connect once and disconnect.

    Raises:
        ConfigError: see `make_client`.
        StoreUnavailable: the broker cannot be reached or does not take us; says why.
    """
    client = make_client(settings, "-doctor")
    client.connect_timeout = timeout_s
    answered = threading.Event()
    refused: list[str] = []

    def on_connect(_client: mqtt.Client, _data: Any, _flags: Any, code: Any, _props: Any) -> None:
        if code.is_failure:
            refused.append(str(code))
        answered.set()

    client.on_connect = on_connect
    try:
        client.connect(settings.broker.host, settings.broker.port, keepalive=10)
    except OSError as error:
        trouble = explain(error, settings.broker, time.time_ns())
        raise StoreUnavailable(trouble.reason, hint=trouble.hint) from error
    client.loop_start()
    came = answered.wait(timeout_s)
    client.disconnect()
    client.loop_stop()
    if refused:
        raise StoreUnavailable(
            f"it refused us: {refused[0]}", hint="check username and password_file"
        )
    if not came:
        raise StoreUnavailable("no answer", hint="is it an MQTT broker that listens there?")
