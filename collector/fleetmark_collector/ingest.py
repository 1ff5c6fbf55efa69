"""Data messages to durable records to acknowledgements: the threads that do it, and their queue."""

import random
import threading
import time
from collections.abc import Callable, Iterable

from fleetmark_collector.batch import Batch
from fleetmark_collector.commit import Committer, Publish
from fleetmark_collector.config import IngestSettings
from fleetmark_collector.culprits import Culprits, sender
from fleetmark_collector.dead_letters import DeadLetters
from fleetmark_collector.inbox import Arrival, Inbox
from fleetmark_collector.sinks.base import Writer
from fleetmark_collector.tally import Stats, Tally, WriteTimes
from fleetmark_collector.versions import Refuser
from fleetmark_protocol import logs
from fleetmark_protocol.errors import ContractError, FleetmarkError, StoreUnavailable

__all__ = ["Ingest", "Publish", "Stats", "WriteTimes"]

FULL_WAIT_S = 0.1
"""How long the network is held up by a full queue before a message is dropped: held up longer,
the broker would pile up in its memory what the agents keep on their disks anyway."""
STOP_S = 15.0
"""How long a stop waits for writes under way; with all else within the unit's TimeoutStopSec,
unless a request to the store is what the main thread waits for: see `supervision.END_S`."""


class Ingest:
    """Takes data messages from the network thread and writes them in threads of its own.

    An acknowledgement is published after the store has the records durably, so whatever dies
    in between, the agents send again and the store knows them by their key.

    One thread at a time gathers and decodes a batch; while the store works at it, the next
    thread gathers the next one, as far as the store takes several writes at once.
    """

    def __init__(
        self,
        settings: IngestSettings,
        sink: Writer,
        dead_letters: DeadLetters,
        publish: Publish,
        seen: Callable[[Iterable[tuple[str, str]]], None] = lambda _: None,
        rng: random.Random | None = None,
        culprits: Culprits | None = None,
    ) -> None:
        """Prepare; `start` begins to write.

        Args:
            settings: limits of the queue and of a batch.
            sink: the store; used by the writer threads only, closed by its owner.
            dead_letters: where what cannot be understood is kept.
            publish: sends acknowledgements; called from several threads where the sink has them.
            seen: told the (fleet, device) pairs of each write; must be quick.
            rng: draws the delays between attempts to write.
            culprits: whose messages are not to be read; shared with those who read others.
        """
        self._settings = settings
        self._culprits = culprits or Culprits()
        self._dead_letters = dead_letters
        self._log = logs.get("ingest")
        self._inbox = Inbox(settings.queue_messages)
        self._stopping = threading.Event()
        self._tally = Tally()
        self._committer = Committer(
            sink,
            dead_letters,
            publish,
            seen,
            self._tally,
            self._stopping,
            rng or random.Random(),  # noqa: S311 - delays, not secrets
        )
        self._refuser = Refuser(publish, seen, self._tally)
        self._gathering = threading.Lock()
        self._batches = [Batch() for _ in range(sink.threads)]
        self.failure: FleetmarkError | None = None
        """Why the writer gave up: an error that trying again cannot help. Nothing more is taken."""
        self._threads = [
            threading.Thread(target=self._work, args=(at,), name=f"ingest-{at}", daemon=True)
            for at in range(sink.threads)
        ]

    # --- any thread -------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to write."""
        for thread in self._threads:
            thread.start()

    def receive(self, topic: str, payload: bytes, retained: bool = False) -> None:  # noqa: ARG002
        """Take a data message, or drop it when there is no room; runs in the network thread."""
        self._tally.received(taken=self._inbox.put(topic, payload, FULL_WAIT_S))

    def relieved(self) -> bool:
        """Whether there was once more to do than there was room for, and no more; told once."""
        return self._inbox.relieved()

    def stop(self) -> None:
        """Take nothing more, write and acknowledge what is here, and return.

        While the store is not available one last attempt is made; what it does not take is left
        to the agents, who still have it. So is what a store that hangs has not taken in time.
        """
        self._stopping.set()
        self._inbox.close()
        deadline_s = time.monotonic() + STOP_S
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline_s - time.monotonic()))
        if self.hangs:
            self._log.error("writer_hangs", hint="what it was to write is left to its agents")
        if left := len(self._inbox):
            self._log.info("messages_left_to_their_agents", messages=left)

    @property
    def hangs(self) -> bool:
        """Whether a thread still works although it was told to stop; not to be asked before."""
        return any(thread.is_alive() for thread in self._threads)

    def working_s(self) -> float:
        """Return how long the longest piece of work under way has taken, in seconds."""
        return self._tally.working_s()

    def stats(self) -> Stats:
        """Return the counters as they are now."""
        waiting = [batch.first_s for batch in self._batches if batch.sources]
        in_inbox_s = self._inbox.oldest_s()
        oldest_s = min(waiting, default=in_inbox_s)
        return self._tally.stats(len(self._inbox), oldest_s)

    def write_times(self) -> WriteTimes:
        """Return how long writes have taken since the start, for a histogram."""
        return self._tally.write_times()

    def take_write_s_max(self) -> float:
        """Return the seconds that the longest write took since this was last asked.

        For one asker: what it took is forgotten. 0 where nothing was written meanwhile.
        """
        return self._tally.take_write_s_max()

    # --- a writer thread --------------------------------------------------------------------

    def _work(self, at: int) -> None:
        try:
            more = True
            while more:
                batch = self._batches[at] = Batch()
                with self._gathering:
                    more = self._gather(batch)
                if batch.sources and not self._committer.commit(batch):
                    break
        except FleetmarkError as error:
            self.failure = self.failure or error
        except BaseException as error:
            self.failure = self.failure or FleetmarkError(
                f"the writer failed: {type(error).__name__}: {error}"
            )
            raise
        finally:
            self._inbox.close()
            self._batches[at] = Batch()

    def _gather(self, batch: Batch) -> bool:
        """Fill the batch up to its size or its age; return False when nothing will come.

        Of age, it still takes what is here already: behind with the work, small batches would be
        the end of all hope of catching up.
        """
        while not batch.full(self._settings.batch_records):
            wait_s = None
            if batch.sources:
                due_s = batch.first_s + self._settings.batch_age_s
                wait_s = max(0.0, due_s - time.monotonic())
            arrival = self._inbox.get(wait_s)
            if arrival is None:
                # Closed and empty, or the batch has come of age.
                return bool(batch.sources)
            batch.count(arrival)
            with self._tally.working():
                self._take(batch, arrival)
        return True

    def _take(self, batch: Batch, arrival: Arrival) -> None:
        device = sender(arrival.topic)
        if self._culprits.ignored(device):
            self._tally.dropped()
            return
        bad_before = batch.bad
        try:
            refused = batch.add(arrival)
        except ContractError as error:
            self._bury_message(arrival, error)
        except Exception:  # noqa: BLE001 - a mistake of ours with one message must not end all work
            self._log.exception("message_broke", topic=arrival.topic)
            self._bury_message(arrival, ContractError("the collector made a mistake with it"))
        else:
            if refused is not None:
                self._refuser.refuse(refused)
                # An honest one that waits for its upgrade: many count, not how large they are.
                self._culprits.charge(device, 0)
                return
            if batch.bad == bad_before:
                return
        self._culprits.charge(device, len(arrival.payload))

    def _bury_message(self, arrival: Arrival, error: ContractError) -> None:
        self._tally.message_dead()
        self._log.warning("message_not_understood", topic=arrival.topic, reason=error.message)
        try:
            # Nothing of it is acknowledged, so nothing depends on the letter.
            letter = (error.message, arrival.payload)
            self._dead_letters.add(arrival.topic, [letter], durable=False)
        except StoreUnavailable as problem:
            self._log.error("dead_letter_not_kept", reason=problem.message)
