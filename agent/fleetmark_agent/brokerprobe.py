"""Asks a broker, under a client id of its own, what it lets this device do."""

import queue
import threading
import time
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import MQTTProtocolVersion

from fleetmark_agent.brokerclient import make_client
from fleetmark_agent.config import AgentSettings
from fleetmark_protocol import codec, topics
from fleetmark_protocol.errors import ContractError
from fleetmark_protocol.ids import new_uuid
from fleetmark_protocol.messages import Ack, Batch, Status
from fleetmark_protocol.version import __version__

RETAINED_S = 1.0
"""How long a retained message may take once the subscription is granted."""
ANSWER_S = 3.0
"""How long a collector may take to answer."""


@dataclass(frozen=True)
class Heard:
    """What a broker answered.

    Attributes:
        answered: whether it spoke MQTT at all.
        refusal: why it does not take us; None if it does.
        may_speak: whether we may publish as this device; None where it does not say (MQTT 3.1.1).
        status: the retained status under this device's name; None if there is none.
        collector: what a collector answered; None if none did.
    """

    answered: bool = False
    refusal: str | None = None
    may_speak: bool | None = None
    status: Status | None = None
    collector: Ack | None = None


def ask_broker(settings: AgentSettings, timeout_s: float) -> Heard:
    """Connect, look at our own status, try to speak, and disconnect; changes nothing there.

    Raises:
        ConfigError: a certificate or password file cannot be read.
        OSError: the connection failed.
    """
    found = _Probe(settings, timeout_s, MQTTProtocolVersion.MQTTv311).look()
    if not found.answered or found.refusal is not None:
        return found
    # Only MQTT 5 says that what was published was not let through.
    may_speak, answer = _Probe(settings, timeout_s, MQTTProtocolVersion.MQTTv5).speak()
    return Heard(found.answered, None, may_speak, found.status, answer)


class _Probe:
    """One connection."""

    def __init__(
        self, settings: AgentSettings, timeout_s: float, version: MQTTProtocolVersion
    ) -> None:
        self._settings = settings
        self._timeout_s = timeout_s
        self._client = make_client(settings, "-doctor", version)
        self._client.connect_timeout = timeout_s
        self._connected: queue.Queue[str | None] = queue.Queue()
        self._granted = threading.Event()
        self._retained: queue.Queue[bytes] = queue.Queue()
        self._published: queue.Queue[bool] = queue.Queue()
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._granted.set()
        self._client.on_message = lambda _c, _d, message: self._retained.put(bytes(message.payload))
        self._client.on_publish = self._on_publish

    def look(self) -> Heard:
        """Return whether we are taken, and the status under our name."""
        try:
            refusal = self._connect()
            if refusal is not None:
                return Heard(answered=True, refusal=refusal)
            self._client.subscribe(self._topic("status"), 1)
            payload = b""
            if self._granted.wait(self._timeout_s):
                try:
                    payload = self._retained.get(timeout=RETAINED_S)
                except queue.Empty:
                    payload = b""
            return Heard(answered=True, status=_status(payload))
        except queue.Empty:
            return Heard()
        finally:
            self._end()

    def speak(self) -> tuple[bool | None, Ack | None]:
        """Return whether a batch without records is let through, and what a collector says to it.

        None stands for nobody who says.
        """
        through: bool | None = None
        try:
            if self._connect() is not None:
                return None, None
            self._client.subscribe(self._topic("ack"), 1)
            self._granted.wait(self._timeout_s)
            empty = Batch(epoch=new_uuid(), records=(), agent_version=__version__)
            self._client.publish(self._topic("data"), codec.encode(empty), qos=1)
            through = self._published.get(timeout=self._timeout_s)
            return through, self._answer(empty.epoch) if through else None
        except (queue.Empty, OSError):
            return through, None
        finally:
            self._end()

    def _answer(self, epoch: str) -> Ack | None:
        """Return what is said to our batch, among what is said to the agent that runs here.

        Raises:
            queue.Empty: nobody says anything.
        """
        end_s = time.monotonic() + ANSWER_S
        while True:
            payload = self._retained.get(timeout=max(0.0, end_s - time.monotonic()))
            try:
                ack = codec.decode(Ack, payload)
            except ContractError:
                continue
            if ack.epoch == epoch:
                return ack

    def _connect(self) -> str | None:
        """Return why we are refused, or None.

        Raises:
            OSError: the connection failed.
            queue.Empty: nobody answered.
        """
        broker = self._settings.broker
        self._client.connect(broker.host, broker.port, keepalive=10)
        self._client.loop_start()
        return self._connected.get(timeout=self._timeout_s)

    def _end(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _topic(self, channel: topics.Channel) -> str:
        return topics.topic(self._settings.fleet, self._settings.device_id, channel)

    def _on_connect(self, _c: mqtt.Client, _d: Any, _f: Any, code: Any, _p: Any) -> None:
        self._connected.put(str(code) if code.is_failure else None)

    def _on_publish(self, _c: mqtt.Client, _d: Any, _mid: int, code: Any, _p: Any) -> None:
        self._published.put(not code.is_failure)


def _status(payload: bytes) -> Status | None:
    try:
        return codec.decode(Status, payload) if payload else None
    except ContractError:
        return None
