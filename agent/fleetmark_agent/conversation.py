"""One device's side of the wire contract: what is said, heard and sent again, and when.

It owns neither a connection nor a thread: whoever does lends them. The link of a device and the
simulation of a thousand devices therefore behave alike.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fleetmark_agent import hush
from fleetmark_agent.announced import Announced, Jobs
from fleetmark_agent.assignments import RefusedJob
from fleetmark_agent.centre import Centre
from fleetmark_agent.config import AgentSettings
from fleetmark_agent.outbox import TELEMETRY, Outbox
from fleetmark_agent.resend import SendWindow
from fleetmark_agent.roles import Publish, Watcher
from fleetmark_agent.wishes import Wishes
from fleetmark_protocol import codec, logs, topics
from fleetmark_protocol.errors import ContractError, StoreUnavailable
from fleetmark_protocol.messages import Ack, Assignment, Inventory, Status
from fleetmark_protocol.topics import Channel

BATCH_RECORDS = 200
BATCH_BYTES = 200_000
PROBE_RECORDS = 1
"""In a batch that is offered to a collector which has refused the last one."""
TELEMETRY_DELAY_S = 2.0
"""How long telemetry may wait for company; results go at once."""
ACKS_KEPT = 100
"""Acks that may wait for the end of a timed window; what a lost one confirmed is sent again."""


class Conversation:
    """Every method may be called from any thread; none waits for the network."""

    def __init__(
        self,
        settings: AgentSettings,
        outbox: Outbox,
        status: Status,
        *,
        publish: Publish,
        wake: Callable[[], None],
        on_assignment: Callable[[Assignment], None],
        on_refused: Callable[[RefusedJob], None],
        on_withdrawn: Callable[[str], None],
        rng: random.Random,
        watcher: Watcher | None = None,
        jobs: Jobs | None = None,
        clock_s: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Prepare; nothing is said before `greet`.

        Args:
            settings: who we are.
            outbox: what is sent.
            status: the birth; its will is the same, offline.
            publish: called without a lock held.
            wake: called, without a lock held, when `urgent` may have become true.
            on_assignment: called by `received` with each assignment, repeated ones included.
            on_refused: called by `received` with each assignment that we do not go by.
            on_withdrawn: called by `received` with the id of a job whose assignment was cleared.
            rng: spreads the resends of a fleet.
            watcher: counts; None for nobody.
            jobs: reads what the inventory says of jobs; see `Announced`.
            clock_s: a monotonic clock.
            wall_ns: the Unix time in nanoseconds.
        """
        self._fleet, self._device = settings.fleet, settings.device_id
        self._outbox, self._status = outbox, status
        self._publish, self._wake = publish, wake
        self._watcher = watcher
        self._clock_s = clock_s
        self._log = logs.get("link")
        self._lock, self._turning, self._hearing = (threading.Lock() for _ in range(3))
        self._window = SendWindow(rng)
        self._hush = hush.Hush()
        self._late_acks: deque[Ack] = deque(maxlen=ACKS_KEPT)
        self._said = Announced(self._publish_inventory, jobs, self.hurry, wall_ns)
        self._wishes = Wishes(self._said.noting(on_assignment), on_refused, on_withdrawn, clock_s)
        self.centre = Centre()
        self._hurry = self._connected = self._leaving = False
        self.next_s = clock_s()
        """When `turn` is due although nothing is urgent, on the clock."""
        outbox.on_append = self._appended

    # --- the connection ------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether the broker has us."""
        return self._connected

    def will(self) -> tuple[str, bytes]:
        """Return topic and payload of what the broker shall say, retained, when we vanish."""
        return self._topic("status"), self._birth(online=False)

    def subscriptions(self) -> list[tuple[str, int]]:
        """Return what to subscribe to before `greet`: filters and their QoS."""
        channels: tuple[Channel, ...] = ("jobs", "ack", "status")
        return [(topics.subscription(self._fleet, self._device, one), 1) for one in channels]

    def greet(self) -> None:
        """Say who we are on a new connection, and begin to send."""
        self._publish(self._topic("status"), self._birth(online=True), retain=True)
        self._said.say()
        with self._lock:
            self._connected = True
            # What was under way on the old connection may be lost with it.
            self._window.reset()
            self._hurry = True
        self._wake()

    def lost(self) -> None:
        """Send nothing until the next `greet`."""
        with self._lock:
            self._connected = False

    def announce(self, inventory: Inventory) -> None:
        """Publish a changed inventory; without a connection `greet` will."""
        self._said.change(inventory, connected=self._connected)

    def _publish_inventory(self, inventory: Inventory) -> None:
        self._publish(self._topic("inventory"), codec.encode(inventory), retain=True)

    def leave(self) -> None:
        """Take it from now on that somebody says we are offline."""
        self._leaving = True

    def goodbye(self) -> object:
        """Say that we are offline; return what `publish` returns."""
        self.leave()
        return self._publish(self._topic("status"), self._birth(online=False), retain=True)

    def forget(self) -> object:
        """Have broker and centre forget this device; return what `publish` returns."""
        self.leave()
        self._publish(self._topic("inventory"), b"", retain=True)
        return self._publish(self._topic("status"), b"", retain=True)

    def _topic(self, channel: Channel) -> str:
        return topics.topic(self._fleet, self._device, channel)

    def _birth(self, *, online: bool) -> bytes:
        return codec.encode(self._status.model_copy(update={"online": online}))

    # --- what is heard -------------------------------------------------------------------------

    def received(self, name: str, payload: bytes) -> None:
        """Take a message that came on the topic `name`; what cannot be understood is logged."""
        try:
            topic = topics.parse(name)
            if (topic.fleet, topic.device) != (self._fleet, self._device):
                # Some brokers hand everybody's retained messages to a new client.
                raise ContractError("meant for another device")
            if topic.channel == "ack":
                self._acked(codec.decode(Ack, payload))
            elif topic.channel == "status":
                self._heard_of_us(payload)
            elif topic.job_id is not None:
                self._wishes.take(topic.job_id, payload)
        except (ContractError, StoreUnavailable) as error:
            self._log.error("message_refused", topic=name, error=str(error))

    def _acked(self, ack: Ack) -> None:
        if ack.epoch != self._outbox.epoch:
            # Of an outbox that we had before, or the answer to a doctor.
            return
        # Taking it in writes to the disk, and makes room for more to be sent.
        self._late_acks.append(ack)
        if not self._hush.held:
            self._take_acks()

    def _take_acks(self) -> None:
        while not self._hush.held:
            with self._hearing:
                if not self._late_acks:
                    return
                ack = self._late_acks.popleft()
                taken = self.centre.takes(ack)
            try:
                self._take_ack(ack, taken=taken)
            except StoreUnavailable as error:
                self._log.error("ack_refused", error=str(error))

    def _take_ack(self, ack: Ack, *, taken: bool) -> None:
        if not taken:
            with self._lock:
                self._window.refused(self._clock_s())
            return
        freed = self._outbox.ack(ack.epoch, ack.ranges)
        with self._lock:
            self._window.acked(ack.ranges)
            self._hurry = self._hurry or self._outbox.backlog().records > 0
        if self._watcher is not None:
            self._watcher.acked(ack.ranges, freed)
        self._wake()
        self._log.debug("acked", records=freed)

    def _heard_of_us(self, payload: bytes) -> None:
        # The will of a connection that we lost may come after the birth of the next one.
        if payload and not codec.decode(Status, payload).online and not self._leaving:
            self._publish(self._topic("status"), self._birth(online=True), retain=True)

    # --- what is sent --------------------------------------------------------------------------

    @property
    def urgent(self) -> bool:
        """Whether `turn` is due now."""
        with self._lock:
            return (self._hurry or bool(self._late_acks)) and self._may_send()

    def hurry(self) -> None:
        """Let nothing wait for company."""
        with self._lock:
            self._hurry = True
        self._wake()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Send no records inside, so that the network does not disturb a timed window."""
        # What is due goes out before: windows may follow each other with hardly a pause. A turn
        # that has taken it up and not sent it yet is waited for, but not for long.
        if self._turning.acquire(timeout=hush.WAIT_S):
            try:
                if self.urgent:
                    self._deliver()
            finally:
                self._turning.release()
        try:
            with self._hush.hold():
                yield
        finally:
            self._wake()

    def turn(self) -> None:
        """Send what the outbox holds as far as it may go now, and set `next_s`.

        What came in and had to wait, for a disk or for the end of a window, is taken in before.
        """
        self._wishes.again()
        # Whoever measures delivers, too; two at once would send the same.
        with self._turning:
            self._deliver()

    def _deliver(self) -> None:
        self._take_acks()
        with self._lock:
            self.next_s = self._clock_s() + TELEMETRY_DELAY_S
            if not self._may_send():
                return
            self._hurry = False
        self._said.say_jobs(self._hush)
        try:
            self._send_what_fits()
        except StoreUnavailable as error:
            self._log.warning("outbox_unreadable", error=str(error))

    def _appended(self, priority: int) -> None:
        if priority != TELEMETRY:
            self.hurry()

    def _may_send(self) -> bool:
        return self._connected and not self._hush.held

    def _send_what_fits(self) -> None:
        while True:
            with self._lock:
                now_s = self._clock_s()
                late = self._window.expire(now_s)
                if late:
                    self._log.info("ack_missing", batches=late, in_a_row=self._window.missed)
                if not (self._may_send() and self._window.may_send(now_s)):
                    return
                skip = self._window.under_way()
                most = PROBE_RECORDS if self._window.refusals else BATCH_RECORDS
            items = self._outbox.batch(most, BATCH_BYTES, skip)
            if not items:
                return
            payload = codec.encode_batch(self._outbox.epoch, items)
            with self._hush.sending() as may:
                if not may:
                    # A window has begun since: at once after it.
                    with self._lock:
                        self._hurry = True
                    return
                self._publish_batch([seq for seq, _ in items], payload)

    def _publish_batch(self, seqs: list[int], payload: bytes) -> None:
        with self._lock:
            self._window.sent(seqs, self._clock_s())
        if self._watcher is not None:
            self._watcher.sent(seqs)
        self._publish(self._topic("data"), payload, retain=False)
