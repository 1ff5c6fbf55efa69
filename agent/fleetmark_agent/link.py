"""The agent's connection: a paho client and two threads, lent to the device's conversation."""

import random
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import paho.mqtt.client as mqtt

from fleetmark_agent.brokerclient import RECONNECT_MIN_S, make_client, reconnect_max_s
from fleetmark_agent.config import AgentSettings
from fleetmark_agent.conversation import Conversation, Watcher
from fleetmark_agent.outbox import Outbox
from fleetmark_protocol import logs
from fleetmark_protocol.messages import Assignment, Inventory, Status


class Link:
    """Keeps the connection for ever, sends what the outbox holds, and hands over assignments."""

    def __init__(
        self,
        settings: AgentSettings,
        outbox: Outbox,
        status: Status,
        on_assignment: Callable[[Assignment], None],
        on_withdrawn: Callable[[str], None],
        rng: random.Random,
        watcher: Watcher | None = None,
    ) -> None:
        """Prepare; nothing is sent before `start`.

        Args:
            settings: who we are and where the broker is.
            outbox: what is sent.
            status: the birth; its will is the same, offline.
            on_assignment: called from paho's thread with each assignment, repeated ones included.
            on_withdrawn: called with the job id when an assignment was cleared.
            rng: spreads reconnections and resends of a fleet.
            watcher: counts what is sent and confirmed; None for nobody.

        Raises:
            ConfigError: a certificate or password file cannot be read.
        """
        self._settings = settings
        self._outbox = outbox
        self._log = logs.get("link")
        self._wake = threading.Condition()
        self._stopping = False
        self._complaint: str | None = None
        self._talk = Conversation(
            settings,
            outbox,
            status,
            publish=self._publish,
            wake=self._notify,
            on_assignment=on_assignment,
            on_withdrawn=on_withdrawn,
            rng=rng,
            watcher=watcher,
        )
        self._client = make_client(settings)
        topic, payload = self._talk.will()
        self._client.will_set(topic, payload, qos=1, retain=True)
        self._client.reconnect_delay_set(RECONNECT_MIN_S, reconnect_max_s(rng))
        self._client.on_connect = self._connected_now
        self._client.on_connect_fail = self._failed
        self._client.on_disconnect = self._disconnected_now
        self._client.on_message = self._received
        self._sender = threading.Thread(target=self._send_forever, name="link", daemon=True)

    def start(self, inventory: Inventory) -> None:
        """Begin to connect; a broker that is not there yet is waited for."""
        self._talk.inventory = inventory
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
        self._client.loop_stop()

    @property
    def alive(self) -> bool:
        """Whether its thread still sends."""
        return self._sender.is_alive()

    @property
    def connected(self) -> bool:
        """Whether the broker has us."""
        return self._talk.connected

    def _publish(self, topic: str, payload: bytes, *, retain: bool) -> mqtt.MQTTMessageInfo:
        return self._client.publish(topic, payload, qos=1, retain=retain)

    # --- paho's thread -------------------------------------------------------------------------

    def _connected_now(
        self, client: mqtt.Client, _data: Any, _flags: Any, code: Any, _p: Any
    ) -> None:
        if code.is_failure:
            self._log.error("broker_refused", reason=str(code), hint="check username and password")
            return
        broker = self._settings.broker
        client.subscribe(self._talk.subscriptions())
        self._complaint = None
        self._log.info("connected", host=broker.host, port=broker.port)
        self._talk.greet()

    def _failed(self, _client: mqtt.Client, _data: Any) -> None:
        # paho calls us while it handles what went wrong, and tells it no other way.
        reason = str(sys.exception() or "unknown")
        if reason != self._complaint:
            # Once for each trouble, not once for each try.
            self._complaint = reason
            broker = self._settings.broker
            self._log.warning(
                "broker_unreachable",
                host=broker.host,
                port=broker.port,
                reason=reason,
                hint="kept trying; records wait in the outbox",
            )

    def _disconnected_now(
        self, _client: mqtt.Client, _data: Any, _flags: Any, code: Any, _props: Any
    ) -> None:
        self._talk.lost()
        if not self._stopping:
            self._log.warning("disconnected", reason=str(code))

    def _received(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        self._talk.received(message.topic, bytes(message.payload))

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
            self._talk.turn()
