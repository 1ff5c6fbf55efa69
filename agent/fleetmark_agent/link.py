"""The agent's connection: a paho client and two threads, lent to the device's conversation."""

import random
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import paho.mqtt.client as mqtt

from fleetmark_agent.announced import Jobs
from fleetmark_agent.assignments import RefusedJob
from fleetmark_agent.brokerclient import RECONNECT_MAX_S, RECONNECT_MIN_S, make_client
from fleetmark_agent.centre import Centre
from fleetmark_agent.config import AgentSettings
from fleetmark_agent.conversation import Conversation
from fleetmark_agent.outbox import Outbox
from fleetmark_agent.roles import Watcher
from fleetmark_protocol import logs
from fleetmark_protocol.backoff import Backoff
from fleetmark_protocol.brokertrouble import explain, explain_hang_up
from fleetmark_protocol.messages import Assignment, Inventory, Status

UNSTEADY = 3
"""So many connections in a row that did not hold are one too many for a broken network."""
BROKEN_TURN_S = 5.0
"""How long the sender rests after a mistake of ours: it may be made again at once."""
CLIENT_STOP_S = 5.0
"""How long a stop waits for paho's thread: a name server or a broker that hangs may hold it."""


class Link:
    """Keeps the connection for ever, sends what the outbox holds, and hands over assignments."""

    def __init__(
        self,
        settings: AgentSettings,
        outbox: Outbox,
        status: Status,
        on_assignment: Callable[[Assignment], None],
        on_refused: Callable[[RefusedJob], None],
        on_withdrawn: Callable[[str], None],
        rng: random.Random,
        watcher: Watcher | None = None,
        jobs: Jobs | None = None,
    ) -> None:
        """Prepare; nothing is sent before `start`.

        Args:
            settings: who we are and where the broker is.
            outbox: what is sent.
            status: the birth; its will is the same, offline.
            on_assignment: called from paho's thread with each assignment, repeated ones included.
            on_refused: called likewise with each assignment that we do not go by.
            on_withdrawn: called with the job id when an assignment was cleared.
            rng: spreads reconnections and resends of a fleet.
            watcher: counts what is sent and confirmed; None for nobody.
            jobs: reads what the inventory says of jobs; see `Announced`.

        Raises:
            ConfigError: a certificate or password file cannot be read.
        """
        self._settings = settings
        self._outbox = outbox
        self._log = logs.get("link")
        self._wake = threading.Condition()
        self._stopping = False
        self._complaint = ""
        self._talk = Conversation(
            settings,
            outbox,
            status,
            publish=self._publish,
            wake=self._notify,
            on_assignment=on_assignment,
            on_refused=on_refused,
            on_withdrawn=on_withdrawn,
            rng=rng,
            watcher=watcher,
            jobs=jobs,
        )
        self._client = make_client(settings)
        topic, payload = self._talk.will()
        self._client.will_set(topic, payload, qos=1, retain=True)
        self._backoff = Backoff(RECONNECT_MIN_S, RECONNECT_MAX_S, rng)
        self._client.on_connect = self._connected_now
        self._client.on_connect_fail = self._failed
        self._client.on_disconnect = self._disconnected_now
        self._client.on_message = self._received
        self._sender = threading.Thread(target=self._send_forever, name="link", daemon=True)

    def start(self, inventory: Inventory) -> None:
        """Begin to connect; a broker that is not there yet is waited for."""
        self._talk.announce(inventory)
        broker = self._settings.broker
        self._client.connect_async(broker.host, broker.port, keepalive=broker.keepalive_s)
        self._client.loop_start()
        self._sender.start()

    def announce(self, inventory: Inventory) -> None:
        """Publish a changed inventory."""
        self._talk.announce(inventory)

    def hold(self) -> AbstractContextManager[None]:
        """Send no records inside, so that the network does not disturb a timed window."""
        return self._talk.hold()

    def stop(self, drain_s: float = 3.0) -> None:
        """Send what still goes out within `drain_s`, say goodbye, disconnect."""
        deadline_s = time.monotonic() + drain_s
        while self.connected and self._outbox.backlog().records and time.monotonic() < deadline_s:
            self._talk.hurry()
            time.sleep(0.05)
        self._talk.leave()
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._sender.is_alive():
            self._sender.join(2)
        if self.connected:
            goodbye = self._talk.goodbye()
            try:
                if isinstance(goodbye, mqtt.MQTTMessageInfo):
                    goodbye.wait_for_publish(1)
            except (ValueError, RuntimeError) as error:
                self._log.debug("goodbye_not_sent", error=str(error))
        self._client.disconnect()
        ended = threading.Thread(target=self._client.loop_stop, name="link-stop", daemon=True)
        ended.start()
        ended.join(CLIENT_STOP_S)
        if ended.is_alive():
            self._log.warning("network_hangs", hint="left to itself; nothing is lost")

    @property
    def alive(self) -> bool:
        """Whether its thread still sends."""
        return self._sender.is_alive()

    @property
    def connected(self) -> bool:
        """Whether the broker has us."""
        return self._talk.connected

    @property
    def centre(self) -> Centre:
        """What the collector has said of itself."""
        return self._talk.centre

    def _publish(self, topic: str, payload: bytes, *, retain: bool) -> mqtt.MQTTMessageInfo:
        return self._client.publish(topic, payload, qos=1, retain=retain)

    # --- paho's thread -------------------------------------------------------------------------

    def _connected_now(
        self, client: mqtt.Client, _data: Any, _flags: Any, code: Any, _p: Any
    ) -> None:
        if code.is_failure:
            self._complain("broker_refused", str(code), "check username and password_file")
            return
        self._backoff.connected()
        broker = self._settings.broker
        self._complaint = ""
        self._log.info("connected", host=broker.host, port=broker.port)
        try:
            client.subscribe(self._talk.subscriptions())
            self._talk.greet()
        except Exception:  # noqa: BLE001 - as in `_received`
            self._log.exception("greeting_broke")

    def _failed(self, _client: mqtt.Client, _data: Any) -> None:
        self._wait_longer()
        # paho calls us while it handles what went wrong, and tells it no other way.
        error = sys.exception()
        if isinstance(error, OSError):
            trouble = explain(error, self._settings.broker, time.time_ns())
            self._complain("broker_unreachable", trouble.reason, trouble.hint)
        else:
            self._complain("broker_unreachable", str(error or "unknown"), "tried again and again")

    def _disconnected_now(
        self, _client: mqtt.Client, _data: Any, _flags: Any, code: Any, _props: Any
    ) -> None:
        was = self._talk.connected
        self._talk.lost()
        self._wait_longer()
        if self._stopping:
            return
        if not was:
            trouble = explain_hang_up(code, self._settings.broker, time.time_ns())
            if not self._complaint:
                self._complain("broker_unreachable", trouble.reason, trouble.hint)
            return
        hint = "tried again"
        if self._backoff.failures >= UNSTEADY:
            hint = "again and again: another device of this name, or a wrong fleet? See `doctor`"
        self._log.warning("disconnected", reason=str(code), hint=hint)

    def _wait_longer(self) -> None:
        """Have paho wait as we want it to; it calls this before each wait.

        A fleet whose broker restarts must not come back as one wave.
        """
        wait_s = self._backoff.next_s()
        self._client.reconnect_delay_set(wait_s, wait_s)  # type: ignore[arg-type]

    def _complain(self, event: str, reason: str, hint: str) -> None:
        """Log a trouble once, not once for each try."""
        if f"{event} {reason}" == self._complaint:
            return
        self._complaint = f"{event} {reason}"
        broker = self._settings.broker
        self._log.warning(
            event,
            host=broker.host,
            port=broker.port,
            reason=reason,
            hint=f"{hint}; tried again until it works, records wait in the outbox",
        )

    def _received(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        try:
            self._talk.received(message.topic, bytes(message.payload))
        except Exception:  # noqa: BLE001 - a mistake of ours must not end the network's thread
            self._log.exception("message_broke")

    # --- the sender's thread -------------------------------------------------------------------

    def _notify(self) -> None:
        with self._wake:
            self._wake.notify()

    def _send_forever(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(
                    lambda: self._stopping or self._talk.urgent,
                    timeout=max(0.0, self._talk.next_s - time.monotonic()),
                )
                if self._stopping:
                    return
            try:
                self._talk.turn()
            except Exception:  # noqa: BLE001 - as in `_received`
                self._log.exception("turn_broke")
                with self._wake:
                    self._wake.wait_for(lambda: self._stopping, timeout=BROKEN_TURN_S)
