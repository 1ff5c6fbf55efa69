"""What ingest counts: added to by several threads, read whole by anyone."""

import threading
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate

WRITE_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the histogram of write times, as Prometheus likes them."""


@dataclass(frozen=True)
class Stats:
    """What ingest has done since it started, and how it stands.

    All but the last three are counters that only grow: the change between two readings, divided
    by the time between them, is a rate.

    Attributes:
        messages: data messages received.
        messages_dropped: not taken because the queue was full, or because their device sends too
            much nonsense; their agents send them again.
        messages_dead: not even a batch; in the dead letters.
        messages_refused: of agents whose version does not go with ours; they keep their records.
        records_written: durably written and acknowledged, repeated deliveries included.
        records_dead: single records in the dead letters, acknowledged where `seq` could be read.
        records_deferred: times a record was left to its agent because the store took others of
            the same write but not this one now (a limit of the server's is reached).
        writes: writes that the store took, whole or in part.
        write_s_total: seconds they took together; its change divided by that of `writes` is the
            mean of a period.
        queue_messages: waiting to be written.
        lag_s: since the oldest message that is waiting arrived; 0 when none is.
        store_available: False while a write is being tried again.
    """

    messages: int = 0
    messages_dropped: int = 0
    messages_dead: int = 0
    messages_refused: int = 0
    records_written: int = 0
    records_dead: int = 0
    records_deferred: int = 0
    writes: int = 0
    write_s_total: float = 0.0
    queue_messages: int = 0
    lag_s: float = 0.0
    store_available: bool = True


@dataclass(frozen=True)
class WriteTimes:
    """How long the writes that the store took have lasted since the start, as a histogram.

    Attributes:
        counts: upper bound in seconds -> writes that took at most so long (cumulative, as
            Prometheus has it); the last bound is infinite, so its count is the number of writes.
        total_s: seconds they took together.
    """

    counts: dict[float, int]
    total_s: float


class Tally:
    """The counters; every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._messages = 0
        self._messages_dropped = 0
        self._messages_dead = 0
        self._messages_refused = 0
        self._records_written = 0
        self._records_dead = 0
        self._records_deferred = 0
        self._write_counts = [0] * (len(WRITE_BOUNDS_S) + 1)
        self._write_s_total = 0.0
        self._write_s_max = 0.0
        self._store_available = True
        self._working_since_s: dict[int, float] = {}

    @contextmanager
    def working(self) -> Iterator[None]:
        """Note that this thread works at something that ought not to take long."""
        thread = threading.get_ident()
        self._working_since_s[thread] = time.monotonic()
        try:
            yield
        finally:
            self._working_since_s.pop(thread, None)

    def working_s(self) -> float:
        """Return how long the longest piece of work under way has taken; 0 where none is."""
        started_s = min(list(self._working_since_s.values()), default=None)
        return 0.0 if started_s is None else time.monotonic() - started_s

    def received(self, *, taken: bool) -> None:
        """Count a data message."""
        with self._lock:
            self._messages += 1
            self._messages_dropped += not taken

    def dropped(self) -> None:
        """Count a message that was received and not read."""
        with self._lock:
            self._messages_dropped += 1

    def message_dead(self) -> None:
        """Count a message that is not even a batch."""
        with self._lock:
            self._messages_dead += 1

    def message_refused(self) -> None:
        """Count a message of an agent whose version does not go with ours."""
        with self._lock:
            self._messages_refused += 1

    def records(self, *, written: int = 0, dead: int = 0, deferred: int = 0) -> None:
        """Count records."""
        with self._lock:
            self._records_written += written
            self._records_dead += dead
            self._records_deferred += deferred

    def write(self, took_s: float) -> None:
        """Count a write that the store took."""
        with self._lock:
            self._write_counts[bisect_left(WRITE_BOUNDS_S, took_s)] += 1
            self._write_s_total += took_s
            self._write_s_max = max(self._write_s_max, took_s)

    def store(self, *, available: bool) -> bool:
        """Note whether the store could be had; return whether that is news."""
        with self._lock:
            news = self._store_available != available
            self._store_available = available
            return news

    @property
    def store_available(self) -> bool:
        """Whether the store could be had when it was last tried."""
        return self._store_available

    def stats(self, queue_messages: int, oldest_s: float | None) -> Stats:
        """Return all of it.

        Args:
            queue_messages: waiting to be written.
            oldest_s: when the oldest of them arrived (monotonic clock), None where none waits.
        """
        with self._lock:
            return Stats(
                messages=self._messages,
                messages_dropped=self._messages_dropped,
                messages_dead=self._messages_dead,
                messages_refused=self._messages_refused,
                records_written=self._records_written,
                records_dead=self._records_dead,
                records_deferred=self._records_deferred,
                writes=sum(self._write_counts),
                write_s_total=round(self._write_s_total, 6),
                queue_messages=queue_messages,
                lag_s=0.0 if oldest_s is None else round(time.monotonic() - oldest_s, 3),
                store_available=self._store_available,
            )

    def write_times(self) -> WriteTimes:
        """Return the histogram of write times."""
        with self._lock:
            cumulative = accumulate(self._write_counts)
            bounds = (*WRITE_BOUNDS_S, float("inf"))
            return WriteTimes(dict(zip(bounds, cumulative, strict=True)), self._write_s_total)

    def take_write_s_max(self) -> float:
        """Return how long the longest write took since this was last asked; for one asker."""
        with self._lock:
            longest_s, self._write_s_max = self._write_s_max, 0.0
            return longest_s
