"""From data messages to durable records to acknowledgements, in this order and never another."""

import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from fleetmark_collector.batch import Batch, Source
from fleetmark_collector.config import IngestSettings
from fleetmark_collector.dead_letters import DeadLetters
from fleetmark_collector.inbox import Arrival, Inbox
from fleetmark_collector.sinks.base import Writer
from fleetmark_protocol import codec, logs, topics
from fleetmark_protocol.errors import (
    ContractError,
    FleetmarkError,
    PartialWrite,
    StoreUnavailable,
)

FULL_WAIT_S = 0.1
"""How long the network is held up by a full queue before a message is dropped: held up longer,
the broker would pile up in its memory what the agents keep on their disks anyway."""

RETRY_MIN_S = 0.5
RETRY_MAX_S = 15.0


class Publish(Protocol):
    """Hands a message to the broker; one that is not connected drops it."""

    def __call__(self, topic: str, payload: bytes, retain: bool) -> None:
        """Publish with QoS 1."""


@dataclass(frozen=True)
class Stats:
    """What ingest has done since it started, and how it stands.

    Attributes:
        messages: data messages received.
        messages_dropped: not taken because the queue was full; their agents send them again.
        messages_dead: not even a batch; in the dead letters.
        records_written: durably written and acknowledged, repeated deliveries included.
        records_dead: single records in the dead letters, acknowledged where `seq` could be read.
        queue_messages: waiting to be written.
        lag_s: since the oldest message that is waiting arrived; 0 when none is.
        store_available: False while a write is being tried again.
    """

    messages: int = 0
    messages_dropped: int = 0
    messages_dead: int = 0
    records_written: int = 0
    records_dead: int = 0
    queue_messages: int = 0
    lag_s: float = 0.0
    store_available: bool = True


class Ingest:
    """Takes data messages from the network thread and writes them in a thread of its own.

    An acknowledgement is published after the store has the records durably, so whatever dies
    in between, the agents send again and the store knows them by their key.
    """

    def __init__(
        self,
        settings: IngestSettings,
        sink: Writer,
        dead_letters: DeadLetters,
        publish: Publish,
        seen: Callable[[Iterable[tuple[str, str]]], None] = lambda _: None,
        rng: random.Random | None = None,
    ) -> None:
        """Prepare; `start` begins to write.

        Args:
            settings: limits of the queue and of a batch.
            sink: the store; used by the writer thread only, closed by its owner.
            dead_letters: where what cannot be understood is kept.
            publish: sends acknowledgements.
            seen: told the (fleet, device) pairs of each write; must be quick.
            rng: draws the delays between attempts to write.
        """
        self._settings = settings
        self._sink = sink
        self._dead_letters = dead_letters
        self._publish = publish
        self._seen = seen
        self._rng = rng or random.Random()  # noqa: S311 - delays, not secrets
        self._log = logs.get("ingest")
        self._inbox = Inbox(settings.queue_messages)
        self._stopping = threading.Event()
        self._batch = Batch()
        self._messages = 0
        self._messages_dropped = 0
        self._messages_dead = 0
        self._records_written = 0
        self._records_dead = 0
        self._store_available = True
        self.failure: FleetmarkError | None = None
        """Why the writer gave up: an error that trying again cannot help. Nothing more is taken."""
        self._thread = threading.Thread(target=self._work, name="ingest", daemon=True)

    # --- any thread -------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def receive(self, topic: str, payload: bytes, retained: bool = False) -> None:  # noqa: ARG002
        """Take a data message, or drop it when there is no room; runs in the network thread."""
        self._messages += 1
        if not self._inbox.put(topic, payload, FULL_WAIT_S):
            self._messages_dropped += 1

    def stop(self) -> None:
        """Take nothing more, write and acknowledge what is here, and return.

        While the store is not available one last attempt is made; what it does not take is left
        to the agents, who still have it.
        """
        self._stopping.set()
        self._inbox.close()
        if self._thread.is_alive():
            self._thread.join()

    def stats(self) -> Stats:
        """Return the counters as they are now."""
        oldest_s = self._batch.first_s if self._batch.sources else self._inbox.oldest_s()
        return Stats(
            messages=self._messages,
            messages_dropped=self._messages_dropped,
            messages_dead=self._messages_dead,
            records_written=self._records_written,
            records_dead=self._records_dead,
            queue_messages=len(self._inbox),
            lag_s=0.0 if oldest_s is None else round(time.monotonic() - oldest_s, 3),
            store_available=self._store_available,
        )

    # --- the writer thread ------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while self._gather():
                if self._batch.sources and not self._commit(self._batch):
                    break
                self._batch = Batch()
        except FleetmarkError as error:
            self.failure = error
        except BaseException as error:
            self.failure = FleetmarkError(f"the writer failed: {type(error).__name__}: {error}")
            raise
        finally:
            self._inbox.close()

    def _gather(self) -> bool:
        """Fill the batch up to its size or its age; return False when nothing will come."""
        batch = self._batch
        while len(batch.items) < self._settings.batch_records:
            wait_s = None
            if batch.sources:
                wait_s = batch.first_s + self._settings.batch_age_s - time.monotonic()
                if wait_s <= 0:
                    return True
            arrival = self._inbox.get(wait_s)
            if arrival is None:
                # Closed and empty, or the batch has come of age.
                return bool(batch.sources)
            try:
                batch.add(arrival)
            except ContractError as error:
                self._bury_message(arrival, error)
        return True

    def _bury_message(self, arrival: Arrival, error: ContractError) -> None:
        self._messages_dead += 1
        self._log.warning("message_not_understood", topic=arrival.topic, reason=error.message)
        try:
            self._dead_letters.add(arrival.topic, [(error.message, arrival.payload)])
        except StoreUnavailable as problem:
            # Nothing of it is acknowledged, so nothing depends on the letter.
            self._log.error("dead_letter_not_kept", reason=problem.message)

    def _commit(self, batch: Batch) -> bool:
        """Write, bury, acknowledge; return False where the store would not have it at the end."""
        wait_s = RETRY_MIN_S
        while True:
            try:
                rejected = self._write(batch)
                break
            except StoreUnavailable as error:
                if self._store_available:
                    self._log.warning("store_unavailable", reason=error.message, hint=error.hint)
                self._store_available = False
                if self._stopping.wait(self._rng.uniform(wait_s / 2, wait_s)):
                    return self._last_attempt(batch)
                wait_s = min(wait_s * 2, RETRY_MAX_S)
        self._finish(batch, rejected)
        return True

    def _last_attempt(self, batch: Batch) -> bool:
        try:
            self._finish(batch, self._write(batch))
        except StoreUnavailable as error:
            self._log.error(
                "records_left_to_their_agents",
                records=len(batch.items),
                messages=len(self._inbox),
                reason=error.message,
            )
            return False
        return True

    def _write(self, batch: Batch) -> dict[int, str]:
        """Return position -> reason of the records that can never be written."""
        rejected: dict[int, str] = {}
        if batch.items:
            try:
                self._sink.write(batch.items)
            except PartialWrite as error:
                rejected = error.rejected
        if not self._store_available:
            self._store_available = True
            self._log.info("store_available_again")
        return rejected

    def _finish(self, batch: Batch, rejected: dict[int, str]) -> None:
        self._records_written += len(batch.items) - len(rejected)
        self._seen({(source.fleet, source.device) for source in batch.sources.values()})
        for at, reason in rejected.items():
            batch.reject(at, reason)
        for source in batch.sources.values():
            self._acknowledge(source)

    def _acknowledge(self, source: Source) -> None:
        unburied: set[int | None] = set()
        if source.bad:
            self._records_dead += len(source.bad)
            self._log.warning(
                "records_not_understood",
                device=source.device,
                fleet=source.fleet,
                count=len(source.bad),
                reason=source.bad[0].reason,
            )
            try:
                self._dead_letters.add(source.topic, [(bad.reason, bad.raw) for bad in source.bad])
            except StoreUnavailable as error:
                # Acknowledged without a letter they would be lost unseen.
                self._log.error("dead_letter_not_kept", reason=error.message)
                unburied = {bad.seq for bad in source.bad}
        topic = topics.topic(source.fleet, source.device, "ack")
        for ack in source.acks(but=unburied):
            self._publish(topic, codec.encode(ack), False)
