"""How long to wait before the next attempt to connect, so that nobody spins and a fleet spreads."""

import random
import time
from collections.abc import Callable

STABLE_S = 60.0
"""A connection that held so long counts as good. One that is lost sooner again and again, as when
two agents of one name throw each other off the broker, is waited for longer and longer."""


class Backoff:
    """Used by one thread."""

    def __init__(
        self,
        min_s: float,
        max_s: float,
        rng: random.Random,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with the shortest wait.

        Args:
            min_s: before the second attempt, at most; half of it at least.
            max_s: what it doubles up to.
            rng: draws each wait between the half and all of what it may be.
            clock_s: a monotonic clock.
        """
        self._min_s = min_s
        self._max_s = max_s
        self._rng = rng
        self._clock_s = clock_s
        self._failures = 0
        self._since_s: float | None = None

    @property
    def failures(self) -> int:
        """Attempts in a row that came to nothing, connections that did not hold among them."""
        return self._failures

    def connected(self) -> None:
        """Note that an attempt came through."""
        self._since_s = self._clock_s()

    def next_s(self) -> float:
        """Note that there is no connection (any more); return how long to wait."""
        since_s, self._since_s = self._since_s, None
        if since_s is not None and self._clock_s() - since_s >= STABLE_S:
            self._failures = 0
        # The bound of the exponent is far above any that matters.
        longest_s = min(self._max_s, self._min_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return self._rng.uniform(longest_s / 2, longest_s)
