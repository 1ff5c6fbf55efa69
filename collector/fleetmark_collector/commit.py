"""Makes a batch durable and tells its outboxes: write, bury, acknowledge, in this order only."""

import random
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from fleetmark_collector.batch import Batch, Source
from fleetmark_collector.dead_letters import DeadLetters
from fleetmark_collector.sinks.base import Writer
from fleetmark_collector.tally import Tally
from fleetmark_protocol import codec, logs, topics
from fleetmark_protocol.errors import PartialWrite, StoreUnavailable

RETRY_MIN_S = 0.5
RETRY_MAX_S = 15.0

RETRY_AFTER_MAX_S = 300.0
"""A store that asks to be left alone for longer is asked again all the same."""

DEFERRED_LOG_S = 60.0
"""Records that the store does not take now come again and again; the log says so this often."""


class Publish(Protocol):
    """Hands a message to the broker; one that is not connected drops it."""

    def __call__(self, topic: str, payload: bytes, retain: bool) -> None:
        """Publish with QoS 1."""


class Committer:
    """Commits batches; as many threads may use it at the same time as the sink allows."""

    def __init__(
        self,
        sink: Writer,
        dead_letters: DeadLetters,
        publish: Publish,
        seen: Callable[[Iterable[tuple[str, str]]], None],
        tally: Tally,
        stopping: threading.Event,
        rng: random.Random,
    ) -> None:
        """Prepare.

        Args:
            sink: the store.
            dead_letters: where what can never be written is kept.
            publish: sends acknowledgements.
            seen: told the (fleet, device) pairs of each write.
            tally: counts.
            stopping: set, a write that the store does not take is tried once more and no longer.
            rng: draws the delays between attempts to write.
        """
        self._sink = sink
        self._dead_letters = dead_letters
        self._publish = publish
        self._seen = seen
        self._tally = tally
        self._stopping = stopping
        self._rng = rng
        self._log = logs.get("ingest")
        self._not_before_s = 0.0
        self._deferred_logged_s = -DEFERRED_LOG_S

    def commit(self, batch: Batch) -> bool:
        """Write, bury, acknowledge; return False where the store would not have it at the end.

        Raises:
            FleetmarkError: the store will not have it however often it is tried.
        """
        wait_s = RETRY_MIN_S
        self._stopping.wait(max(0.0, self._not_before_s - time.monotonic()))
        while True:
            try:
                self._write(batch)
                break
            except StoreUnavailable as error:
                if self._tally.store(available=False):
                    self._log.warning("store_unavailable", reason=error.message, hint=error.hint)
                asked_s = min(error.retry_after_s or 0.0, RETRY_AFTER_MAX_S)
                # The other threads' next writes keep to what the store asks for, too.
                self._not_before_s = max(self._not_before_s, time.monotonic() + asked_s)
                if self._stopping.wait(max(asked_s, self._rng.uniform(wait_s / 2, wait_s))):
                    return self._last_attempt(batch)
                wait_s = min(wait_s * 2, RETRY_MAX_S)
        self._finish(batch)
        return True

    def _last_attempt(self, batch: Batch) -> bool:
        try:
            self._write(batch)
        except StoreUnavailable as error:
            self._log.error(
                "records_left_to_their_agents", records=len(batch.items), reason=error.message
            )
            return False
        self._finish(batch)
        return True

    def _write(self, batch: Batch) -> None:
        """Write; what is left of the batch's items afterwards is to be acknowledged or buried."""
        written = len(batch.items)
        if batch.items:
            start_s = time.monotonic()
            try:
                with self._tally.working():
                    self._sink.write(batch.items)
            except PartialWrite as error:
                written = len(error.accepted)
                self._sort_out(batch, error)
            self._tally.write(time.monotonic() - start_s)
            # Without records the store was not touched, so nothing is known of it.
            if self._tally.store(available=True):
                self._log.info("store_available_again")
        self._tally.records(written=written)

    def _sort_out(self, batch: Batch, error: PartialWrite) -> None:
        taken = {*error.accepted, *error.rejected}
        deferred = [at for at in range(len(batch.items)) if at not in taken]
        if deferred:
            self._tally.records(deferred=len(deferred))
            now_s = time.monotonic()
            if now_s - self._deferred_logged_s >= DEFERRED_LOG_S:
                self._deferred_logged_s = now_s
                self._log.warning(
                    "records_deferred",
                    records=len(deferred),
                    reason=error.message,
                    hint=error.hint or "their agents keep them and send them again",
                )
            batch.defer(deferred)
        for at, reason in error.rejected.items():
            batch.reject(at, reason)

    def _finish(self, batch: Batch) -> None:
        self._seen({(source.fleet, source.device) for source in batch.sources.values()})
        for source in batch.sources.values():
            self._acknowledge(source)

    def _acknowledge(self, source: Source) -> None:
        unburied: set[int | None] = set()
        if source.bad:
            self._tally.records(dead=len(source.bad))
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
        # Who asks if anybody takes records is answered when somebody does.
        source.asked = source.asked and self._tally.store_available
        for ack in source.acks(but=unburied):
            self._publish(topic, codec.encode(ack), False)
