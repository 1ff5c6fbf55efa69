"""The agent's end of the wire: birth and will, records out, acks and assignments in (paho-mqtt)."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import paho.mqtt.client as mqtt

from fleetmark_agent.brokerclient import make_client
from fleetmark_agent.config import AgentSettings
from fleetmark_agent.outbox import TELEMETRY, Outbox
from fleetmark_agent.resend import SendWindow
from fleetmark_protocol import codec, logs, topics
from fleetmark_protocol.errors import ContractError, StoreUnavailable
from fleetmark_protocol.messages import Ack, Assignment, Inventory, Status
from fleetmark_protocol.topics import Channel

BATCH_RECORDS = 200
BATCH_BYTES = 200_000
TELEMETRY_DELAY_S = 2.0
"""How long telemetry may wait for company; results go at once."""
RECONNECT_MAX_S = 20


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
    ) -> None:
        """Prepare; nothing is sent before `start`.

        Args:
            settings: who we are and where the broker is.
            outbox: what is sent.
            status: the birth; its will is the same, offline.
            on_assignment: called from paho's thread with each assignment, repeated ones included.
            on_withdrawn: called with the job id when an assignment was cleared.
            rng: spreads reconnections and resends of a fleet.

        Raises:
            ConfigError: a certificate or password file cannot be read.
        """
        self._settings = settings
        self._outbox = outbox
        self._status = status
        self._on_assignment = on_assignment
        self._on_withdrawn = on_withdrawn
        self._rng = rng
        self._inventory: Inventory | None = None
        self._log = logs.get("link")
        self._wake = threading.Condition()
        self._window = SendWindow(rng)
        self._held = 0
        self._urgent = False
        self._connected = False
        self._stopping = False
        self._complained = False
        self.last_ack_s: float | None = None
        self._client = make_client(settings)
        self._client.will_set(self._topic("status"), self._birth(online=False), qos=1, retain=True)
        # A fleet whose broker restarts must not come back as one wave.
        self._client.reconnect_delay_set(
            1, self._rng.randint(RECONNECT_MAX_S // 2, RECONNECT_MAX_S)
        )
        self._client.on_connect = self._connected_now
        self._client.on_connect_fail = self._failed
        self._client.on_disconnect = self._disconnected_now
        self._client.on_message = self._received
        self._sender = threading.Thread(target=self._send_forever, name="link", daemon=True)
        outbox.on_append = self._appended

    def start(self, inventory: Inventory) -> None:
        """Begin to connect; a broker that is not there yet is waited for."""
        self._inventory = inventory
        broker = self._settings.broker
        self._client.connect_async(broker.host, broker.port, keepalive=broker.keepalive_s)
        self._client.loop_start()
        self._sender.start()

    def announce(self, inventory: Inventory) -> None:
        """Publish a changed inventory."""
        self._inventory = inventory
        if self._connected:
            self._publish("inventory", codec.encode(inventory), retain=True)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Send no records inside, so that the network does not disturb a timed window."""
        with self._wake:
            self._held += 1
        try:
            yield
        finally:
            with self._wake:
                self._held -= 1
                self._wake.notify()

    def stop(self, drain_s: float = 3.0) -> None:
        """Send what still goes out within `drain_s`, say goodbye, disconnect."""
        deadline_s = time.monotonic() + drain_s
        while self._connected and self._outbox.backlog().records and time.monotonic() < deadline_s:
            with self._wake:
                self._urgent = True
                self._wake.notify()
            time.sleep(0.05)
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._sender.is_alive():
            self._sender.join(2)
        if self._connected:
            goodbye = self._publish("status", self._birth(online=False), retain=True)
            try:
                goodbye.wait_for_publish(1)
            except (ValueError, RuntimeError) as error:
                self._log.debug("goodbye_not_sent", error=str(error))
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def connected(self) -> bool:
        """Whether the broker has us."""
        return self._connected

    def _topic(self, channel: Channel) -> str:
        return topics.topic(self._settings.fleet, self._settings.device_id, channel)

    def _birth(self, *, online: bool) -> bytes:
        return codec.encode(self._status.model_copy(update={"online": online}))

    def _publish(self, channel: Channel, payload: bytes, *, retain: bool) -> mqtt.MQTTMessageInfo:
        return self._client.publish(self._topic(channel), payload, qos=1, retain=retain)

    # --- paho's thread -------------------------------------------------------------------------

    def _connected_now(
        self, client: mqtt.Client, _data: Any, _flags: Any, code: Any, _p: Any
    ) -> None:
        if code.is_failure:
            self._log.error("broker_refused", reason=str(code), hint="check username and password")
            return
        s = self._settings
        client.subscribe(
            [
                (topics.subscription(s.fleet, s.device_id, channel), 1)
                for channel in ("jobs", "ack", "status")
            ]
        )
        self._publish("status", self._birth(online=True), retain=True)
        if self._inventory is not None:
            self._publish("inventory", codec.encode(self._inventory), retain=True)
        self._log.info("connected", host=s.broker.host, port=s.broker.port)
        with self._wake:
            self._connected = True
            self._complained = False
            # What was under way on the old connection may be lost with it.
            self._window.reset()
            self._urgent = True
            self._wake.notify()

    def _failed(self, _client: mqtt.Client, _data: Any) -> None:
        if not self._complained:
            self._complained = True
            broker = self._settings.broker
            self._log.warning(
                "broker_unreachable",
                host=broker.host,
                port=broker.port,
                hint="kept trying; records wait in the outbox",
            )

    def _disconnected_now(
        self, _client: mqtt.Client, _data: Any, _flags: Any, code: Any, _props: Any
    ) -> None:
        with self._wake:
            self._connected = False
        if not self._stopping:
            self._log.warning("disconnected", reason=str(code))

    def _received(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        payload = bytes(message.payload)
        try:
            topic = topics.parse(message.topic)
            if (topic.fleet, topic.device) != (self._settings.fleet, self._settings.device_id):
                # Some brokers hand everybody's retained messages to a new client.
                raise ContractError("meant for another device")
            if topic.channel == "ack":
                self._acked(codec.decode(Ack, payload))
            elif topic.channel == "status":
                self._heard_of_us(payload)
            elif topic.job_id is not None and not payload:
                self._on_withdrawn(topic.job_id)
            elif topic.job_id is not None:
                assignment = codec.decode(Assignment, payload)
                if assignment.job.job_id != topic.job_id:
                    raise ContractError("the assignment is of another job than its topic says")
                self._on_assignment(assignment)
        except (ContractError, StoreUnavailable) as error:
            self._log.error("message_refused", topic=message.topic, error=str(error))

    def _acked(self, ack: Ack) -> None:
        freed = self._outbox.ack(ack.epoch, ack.ranges)
        if ack.epoch != self._outbox.epoch:
            return
        self.last_ack_s = time.monotonic()
        with self._wake:
            self._window.acked(ack.ranges)
            self._urgent = self._urgent or self._outbox.backlog().records > 0
            self._wake.notify()
        self._log.debug("acked", records=freed)

    def _heard_of_us(self, payload: bytes) -> None:
        # The will of a connection that we lost may come after the birth of the next one.
        if payload and not codec.decode(Status, payload).online and not self._stopping:
            self._publish("status", self._birth(online=True), retain=True)

    # --- the sender's thread -------------------------------------------------------------------

    def _appended(self, priority: int) -> None:
        if priority != TELEMETRY:
            with self._wake:
                self._urgent = True
                self._wake.notify()

    def _send_forever(self) -> None:
        next_s = time.monotonic()
        while True:
            with self._wake:
                self._wake.wait_for(
                    lambda: self._stopping or (self._urgent and self._may_send()),
                    timeout=max(0.0, next_s - time.monotonic()),
                )
                if self._stopping:
                    return
                if not self._may_send():
                    next_s = time.monotonic() + TELEMETRY_DELAY_S
                    continue
                self._urgent = False
            next_s = time.monotonic() + TELEMETRY_DELAY_S
            try:
                self._send_what_fits()
            except StoreUnavailable as error:
                self._log.warning("outbox_unreadable", error=str(error))

    def _may_send(self) -> bool:
        return self._connected and not self._held

    def _send_what_fits(self) -> None:
        while True:
            with self._wake:
                late = self._window.expire(time.monotonic())
                if late:
                    self._log.info("ack_missing", batches=late, in_a_row=self._window.missed)
                if not (self._may_send() and self._window.may_send()):
                    return
                skip = self._window.under_way()
            items = self._outbox.batch(BATCH_RECORDS, BATCH_BYTES, skip)
            if not items:
                return
            with self._wake:
                self._window.sent((seq for seq, _ in items), time.monotonic())
            self._publish("data", codec.encode_batch(self._outbox.epoch, items), retain=False)
