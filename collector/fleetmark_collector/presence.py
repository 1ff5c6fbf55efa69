"""Whose agent has itself said what it is since we are connected: what is older may not be true."""

import threading
import time
from collections.abc import Callable

from fleetmark_protocol.messages import Inventory, Status

RETAINED_S = 60.0
"""For so long after a connect a retained status counts for nothing. A broker restarted with
us still holds what agents said before; one that is there, upgraded or not, is back by then."""

Key = tuple[str, str]


class Presence:
    """Which devices' statuses are to be believed; any thread may use it."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        """Not connected yet.

        Args:
            clock_s: monotonic.
        """
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._since_s: float | None = None
        self._retained: set[Key] = set()
        self._live: set[Key] = set()

    def connected(self) -> None:
        """Forget what was heard before this connection."""
        self._begin(self._clock_s())

    def disconnected(self) -> None:
        """Hear nobody."""
        self._begin(None)

    def _begin(self, since_s: float | None) -> None:
        with self._lock:
            self._since_s = since_s
            self._retained.clear()
            self._live.clear()

    def note(self, device: Key, *, retained: bool) -> None:
        """Take note that a device's agent says that it is there."""
        with self._lock:
            (self._retained if retained else self._live).add(device)

    def heard(self) -> frozenset[Key]:
        """Return whose statuses, as far as they say online, are of now; none without a broker."""
        with self._lock:
            if self._since_s is None:
                return frozenset()
            if self._clock_s() - self._since_s < RETAINED_S:
                return frozenset(self._live)
            return frozenset(self._live | self._retained)


def late_will(new: Status, known: Status | Inventory | None) -> bool:
    """Whether `new` is the will of an old connection that comes after a newer birth.

    A birth is always believed: a living agent says it. So is a will of the boot we know.
    """
    return (
        isinstance(known, Status)
        and known.online
        and not new.online
        and new.boot_id != known.boot_id
        and new.started_ns <= known.started_ns
    )
