"""The bounded queue between the network thread and the writer: full means full."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

MAX_INBOX_BYTES = 256 * 2**20
"""Payloads held at most, whatever the number of messages: they may be 1 MB each."""

RELIEVED_S = 10.0
"""So long without being full, and the broker has delivered what waited there as well."""


@dataclass(frozen=True)
class Arrival:
    """A message as it came; `arrived_s` is on the monotonic clock."""

    topic: str
    payload: bytes
    arrived_s: float


class Inbox:
    """A queue bounded by number and by bytes; read by one thread at a time."""

    def __init__(
        self,
        max_messages: int,
        max_bytes: int = MAX_INBOX_BYTES,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._arrivals: deque[Arrival] = deque()
        self._bytes = 0
        self._clock_s = clock_s
        self._full_s: float | None = None
        self._closed = False
        self._changed = threading.Condition()

    def put(self, topic: str, payload: bytes, wait_s: float) -> bool:
        """Add a message, waiting a little for room; return whether it was taken."""
        with self._changed:
            if not self._room(payload):
                self._full_s = self._clock_s()
            if not self._changed.wait_for(lambda: self._closed or self._room(payload), wait_s):
                return False
            if self._closed:
                return False
            self._arrivals.append(Arrival(topic, payload, time.monotonic()))
            self._bytes += len(payload)
            self._changed.notify_all()
            return True

    def _room(self, payload: bytes) -> bool:
        if not self._arrivals:
            return True
        return (
            len(self._arrivals) < self._max_messages
            and self._bytes + len(payload) <= self._max_bytes
        )

    def get(self, wait_s: float | None) -> Arrival | None:
        """Return the oldest message, or None: nothing came in time, or it is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._arrivals, wait_s)
            if not self._arrivals:
                return None
            arrival = self._arrivals.popleft()
            self._bytes -= len(arrival.payload)
            self._changed.notify_all()
            return arrival

    def relieved(self) -> bool:
        """Whether it was full since this was last true, and the work has been caught up with since.

        While it is full the network waits, and the broker drops what is more than it may keep.
        """
        with self._changed:
            if self._full_s is None or self._clock_s() - self._full_s < RELIEVED_S:
                return False
            if 2 * len(self._arrivals) > self._max_messages or 2 * self._bytes > self._max_bytes:
                return False
            self._full_s = None
            return True

    def close(self) -> None:
        """Take nothing more; what is in it can still be got."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether it takes nothing more."""
        return self._closed

    def oldest_s(self) -> float | None:
        """Return when the oldest message in it arrived (monotonic clock)."""
        with self._changed:
            return self._arrivals[0].arrived_s if self._arrivals else None

    def __len__(self) -> int:
        return len(self._arrivals)
