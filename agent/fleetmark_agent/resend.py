"""Which records are under way, when they are late, and how many more may go: pure bookkeeping."""

import random
from collections.abc import Iterable

WINDOW_BATCHES = 4
"""Batches under way at once; one only while acks do not come."""
ACK_TIMEOUT_S = 4.0
ACK_TIMEOUT_MAX_S = 20.0
REFUSED_WAIT_S = 5.0
REFUSED_WAIT_MAX_S = 60.0
"""A collector that refuses us does so until one of the two is upgraded: it is asked rarely."""


class SendWindow:
    """Batches sent and not yet acknowledged; times are seconds of a monotonic clock."""

    def __init__(self, rng: random.Random) -> None:
        """Start with nothing under way.

        Args:
            rng: spreads the resends of a fleet whose collector was away.
        """
        self._rng = rng
        self._batches: list[tuple[float, set[int]]] = []
        self.missed = 0
        """Time-outs since the last ack."""
        self.refusals = 0
        """Refusals since the last ack; while there are any, little is to be sent at once."""
        self._not_before_s = 0.0

    def reset(self) -> None:
        """Forget what is under way: its connection is gone, so it is sent again."""
        self._batches.clear()
        self.missed = self.refusals = 0

    def sent(self, seqs: Iterable[int], now_s: float) -> None:
        """Note a batch; it is late after a time that doubles with each miss, plus jitter."""
        timeout_s = min(ACK_TIMEOUT_S * 2**self.missed, ACK_TIMEOUT_MAX_S)
        self._batches.append((now_s + timeout_s * self._rng.uniform(0.75, 1.25), set(seqs)))

    def acked(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Take acknowledged records out."""
        self.missed = self.refusals = 0
        for first, last in ranges:
            for _, seqs in self._batches:
                seqs.difference_update([seq for seq in seqs if first <= seq <= last])
        self._batches = [batch for batch in self._batches if batch[1]]

    def refused(self, now_s: float) -> None:
        """Take back what is under way, for a time that doubles with each refusal, plus jitter.

        Of several answers to what was under way together the first one counts.
        """
        if self._batches:
            wait_s = min(REFUSED_WAIT_S * 2**self.refusals, REFUSED_WAIT_MAX_S)
            self._not_before_s = now_s + wait_s * self._rng.uniform(0.75, 1.25)
            self.refusals = min(self.refusals + 1, 10)
            self._batches.clear()

    def expire(self, now_s: float) -> int:
        """Give up waiting for what is late, so that it is sent again; return how many batches."""
        late = sum(1 for deadline_s, _ in self._batches if deadline_s <= now_s)
        if late:
            self.missed = min(self.missed + 1, 10)
            self._batches = [batch for batch in self._batches if batch[0] > now_s]
        return late

    def may_send(self, now_s: float) -> bool:
        """Whether another batch may go."""
        if self.refusals and now_s < self._not_before_s:
            return False
        slow = self.missed or self.refusals
        return len(self._batches) < (1 if slow else WINDOW_BATCHES)

    def under_way(self) -> set[int]:
        """Return the sequence numbers not to send again yet."""
        return set().union(*(seqs for _, seqs in self._batches))
