"""The collector's end of the broker: connected for ever, subscribed again on every connect."""

import hashlib
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from fleetmark_protocol import logs
from fleetmark_protocol.backoff import Backoff
from fleetmark_protocol.brokertrouble import explain, explain_hang_up
from fleetmark_protocol.ids import new_uuid
from fleetmark_protocol.settings import BrokerSettings
from fleetmark_protocol.tls import client_context

Handler = Callable[[str, bytes, bool], None]
"""Takes topic, payload, and whether the message had been retained; runs in the network thread."""


class Mandate(Protocol):
    """Whether this collector is the one to speak; `lease.Lease` is one."""

    def holds(self) -> bool:
        """Whether it is; must be quick."""

    @property
    def lost(self) -> bool:
        """Whether another has surely taken over."""


RECONNECT_MIN_S = 1.0
RECONNECT_MAX_S = 30.0
UNSTEADY = 3
"""So many connections in a row that did not hold are one too many for a broken network."""
LOST_AGAIN = "again and again: is a copy of this data_dir in use, with its client_id? Delete it"
STOP_S = 5.0
"""How long a stop waits for the network thread."""


def stable_client_id(file: Path) -> str:
    """Return this collector's client id, made once and kept in `file`.

    With the same id after a crash the broker drops the dead connection at once, instead of
    delivering into it until its keep-alive runs out.
    """
    try:
        kept = file.read_text("ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        kept = ""
    if not kept:
        kept = f"fleetmark-collector-{new_uuid()}"
        file.write_text(kept + "\n", "ascii")
    return kept


def centre_name(file: Path) -> str:
    """Return the name by which this centre knows its own jobs again, even without its state file.

    It follows from the client id, and tells nothing of it: whoever knew that could have the broker
    drop the collector's connection.

    Args:
        file: see `stable_client_id`.
    """
    return hashlib.sha256(stable_client_id(file).encode()).hexdigest()[:32]


class Bus:
    """One connection to the broker; `publish` may be called from any thread.

    The session is a clean one: a broker that queued for us while we are away would promise a
    safety it does not have (its memory and its disk are not fsynced for each message), and would
    deliver what the agents send again anyway, because nothing frees a record but our own
    acknowledgement. Statuses and inventories are retained and come with every subscription.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        client_id: str,
        rng: random.Random | None = None,
        mandate: Mandate | None = None,
    ) -> None:
        """Prepare the connection; `start` makes it.

        Args:
            settings: where the broker is.
            client_id: see `stable_client_id`.
            rng: draws the delays between attempts to connect.
            mandate: without it nothing is said, and a connection that the broker has ended because
                another collector came with our client id is left to that one; None for a client
                that no other can take over from.

        Raises:
            ConfigError: the password's or a key's file cannot be used.
        """
        self._settings = settings
        self._mandate = mandate
        self._log = logs.get("mqtt")
        self._handlers: dict[str, Handler] = {}
        self._on_connect: list[Callable[[], None]] = []
        self._on_disconnect: list[Callable[[], None]] = []
        self._connected = False
        self.trouble = ""
        """Why there is no connection, as far as is known; empty while there is one."""
        self._sent = threading.Condition()
        self._unsent = 0
        # What matters is that the clients of one broker don't come back in step.
        rng = rng or random.Random()  # noqa: S311 - delays, not secrets
        self._backoff = Backoff(RECONNECT_MIN_S, RECONNECT_MAX_S, rng)
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=True)
        _introduce(client, settings)
        # No limits of the client's own: acks are small, and bounded by what ingest holds.
        client.max_inflight_messages_set(0)
        client.max_queued_messages_set(0)
        client.on_connect = self._connect_answered
        client.on_connect_fail = self._connect_failed
        client.on_pre_connect = self._before_connect
        client.on_disconnect = self._disconnected
        client.on_subscribe = self._subscribe_answered
        client.on_publish = self._published
        self._client = client

    @property
    def connected(self) -> bool:
        """Whether the broker has us."""
        return self._connected

    def on_connect(self, callback: Callable[[], None]) -> None:
        """Have `callback` called in the network thread after every connect."""
        self._on_connect.append(callback)

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Have `callback` called in the network thread after every loss of a connection."""
        self._on_disconnect.append(callback)

    def subscribe(self, topic_filter: str, handler: Handler) -> None:
        """Subscribe with QoS 1, now and after every connect."""
        self._handlers[topic_filter] = handler
        self._client.message_callback_add(
            topic_filter,
            lambda _client, _data, message: self._guarded(
                lambda: handler(message.topic, bytes(message.payload), message.retain)
            ),
        )
        self.ask_again(topic_filter)

    def ask_again(self, topic_filter: str) -> None:
        """Have the broker send again what it retains there; at a connect it does so by itself."""
        if self._connected:
            self._client.subscribe(topic_filter, qos=1)

    def start(self) -> None:
        """Connect in the background and stay connected; a broker that is down is waited for."""
        self._client.connect_async(
            self._settings.host, self._settings.port, self._settings.keepalive_s
        )
        self._client.loop_start()

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        """Publish with QoS 1; without a connection the message is dropped.

        Everything we publish is said again by its owner: an ack when the agent sends the records
        again, an assignment after the next connect. A queue of ours would only grow.
        """
        if not self._connected or (self._mandate is not None and not self._mandate.holds()):
            return
        with self._sent:
            self._unsent += 1
        if self._client.publish(topic, payload, qos=1, retain=retain).rc not in (
            paho.MQTT_ERR_SUCCESS,
            paho.MQTT_ERR_NO_CONN,  # kept by the client and sent after the next connect
        ):
            self._published()

    def flush(self, timeout_s: float) -> bool:
        """Wait until the broker has everything published; return whether it has."""
        with self._sent:
            return (
                self._sent.wait_for(lambda: self._unsent <= 0 or not self._connected, timeout_s)
                and self._connected
            )

    def stop(self) -> None:
        """Disconnect; waits for the network thread, as long as neither broker nor DNS holds it."""
        self._client.disconnect()
        ended = threading.Thread(target=self._client.loop_stop, name="mqtt-stop", daemon=True)
        ended.start()
        ended.join(STOP_S)
        if ended.is_alive():
            self._log.warning("network_hangs", hint="left to itself; nothing is lost")
        self._connected = False

    # --- the network thread ----------------------------------------------------------------

    def _connect_answered(
        self, client: paho.Client, _data: object, _flags: object, reason: ReasonCode, _p: object
    ) -> None:
        if reason.is_failure:
            self._complain("broker_refused", str(reason), "check broker.username, password_file")
            return
        self._backoff.connected()
        self.trouble = ""
        self._log.info("broker_connected", host=self._settings.host, port=self._settings.port)
        if self._handlers:
            client.subscribe([(topic_filter, 1) for topic_filter in self._handlers])
        self._connected = True
        for callback in self._on_connect:
            self._guarded(callback)

    def _before_connect(self, client: paho.Client, userdata: object) -> None:  # noqa: ARG002
        """Connect no more once another leads: the broker would drop that one for us."""
        if self._mandate is not None and not self._mandate.holds() and self._mandate.lost:
            raise ConnectionRefusedError("another collector has taken over")

    def _connect_failed(self, client: paho.Client, userdata: object) -> None:  # noqa: ARG002
        self._wait_longer()
        if self._mandate is not None and self._mandate.lost:
            return
        # paho calls us while it handles what went wrong, and tells it no other way.
        error = sys.exception()
        known = error if isinstance(error, OSError) else OSError(str(error))
        trouble = explain(known, self._settings, time.time_ns())
        self._complain("broker_unreachable", trouble.reason, f"{trouble.hint}; trying on")

    def _disconnected(
        self, _client: paho.Client, _data: object, _flags: object, reason: ReasonCode, _p: object
    ) -> None:
        was, self._connected = self._connected, False
        for callback in self._on_disconnect:
            self._guarded(callback)
        self._wait_longer()
        with self._sent:
            self._sent.notify_all()
        if was and reason.is_failure:
            unsteady = self._backoff.failures >= UNSTEADY
            hint = LOST_AGAIN if unsteady else "trying to connect again"
            self._complain("broker_lost", str(reason), hint)
        elif not was and not self.trouble:
            trouble = explain_hang_up(reason, self._settings, time.time_ns())
            self._complain("broker_unreachable", trouble.reason, f"{trouble.hint}; trying on")

    def _wait_longer(self) -> None:
        """Have paho wait as we want it to; it calls this before each wait."""
        wait_s = self._backoff.next_s()
        self._client.reconnect_delay_set(wait_s, wait_s)  # type: ignore[arg-type]

    def _subscribe_answered(
        self, _client: paho.Client, _data: object, _mid: int, reasons: list[ReasonCode], _p: object
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            self._log.error(
                "subscription_refused",
                topics=list(self._handlers),
                hint="the broker's ACL must let the collector read them",
            )

    def _published(self, *_: object) -> None:
        with self._sent:
            self._unsent -= 1
            self._sent.notify_all()

    def _guarded(self, function: Callable[..., None], *args: object) -> None:
        try:
            function(*args)
        except Exception:  # noqa: BLE001 - a handler's bug must not end the network thread
            self._log.exception("handler_failed")

    def _complain(self, event: str, reason: str, hint: str) -> None:
        """Log a trouble once, however often it is tried again."""
        trouble = f"{event.replace('_', ' ')}: {reason}"
        if self.trouble != trouble:
            self.trouble = trouble
            self._log.warning(
                event,
                host=self._settings.host,
                port=self._settings.port,
                reason=reason,
                hint=hint,
            )


def _introduce(client: paho.Client, settings: BrokerSettings) -> None:
    context = client_context(settings)
    if context is not None:
        client.tls_set_context(context)
    password = settings.password()
    if settings.username is not None:
        client.username_pw_set(
            settings.username, None if password is None else password.get_secret_value()
        )
