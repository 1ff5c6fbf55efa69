"""The bounded queue between the network thread and the writer: full means full."""

import threading
import time
from collections import deque
from dataclasses import dataclass

MAX_INBOX_BYTES = 256 * 2**20
"""Payloads held at most, whatever the number of messages: they may be 1 MB each."""


@dataclass(frozen=True)
class Arrival:
    """A message as it came; `arrived_s` is on the monotonic clock."""

    topic: str
    payload: bytes
    arrived_s: float


class Inbox:
    """A queue bounded by number and by bytes; read by one thread at a time."""

    def __init__(self, max_messages: int, max_bytes: int = MAX_INBOX_BYTES) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._arrivals: deque[Arrival] = deque()
        self._bytes = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, topic: str, payload: bytes, wait_s: float) -> bool:
        """Add a message, waiting a little for room; return whether it was taken."""
        with self._changed:
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
