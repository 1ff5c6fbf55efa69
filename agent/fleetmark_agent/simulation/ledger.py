"""Keeps the books of a simulation: what was made must be acknowledged, waiting, or thinned."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

STEP = 1.05
"""Delays are counted in classes, each so much wider than the one before."""

SHORTEST_S = 0.001


@dataclass
class Delays:
    """How long records took, in classes that can be added up over processes."""

    counts: dict[int, int] = field(default_factory=dict)
    max_s: float = 0.0

    def add(self, delay_s: float) -> None:
        """Count a delay."""
        place = math.ceil(math.log(max(delay_s, SHORTEST_S) / SHORTEST_S, STEP))
        self.counts[place] = self.counts.get(place, 0) + 1
        self.max_s = max(self.max_s, delay_s)

    def by_length(self) -> dict[str, int]:
        """Return how many came in each class, by the longest delay of the class in seconds."""
        places = sorted(self.counts)
        return {f"{SHORTEST_S * STEP**place:.4g}": self.counts[place] for place in places}


@dataclass
class Tally:
    """Counts of all devices of one process since its start.

    Attributes:
        samples: telemetry records put into outboxes.
        results: other records put into outboxes: events, job states, loads, trials.
        acked: records that acknowledgements freed.
        sent: records sent, those sent again included.
        resent: records sent again.
        refused: samples that an outbox did not take: its disk was full.
        skipped: samples that were not made because the simulation was too slow.
        trials: simulated trials recorded.
        jobs: simulated jobs ended.
        delays: from a sample until its acknowledgement.
    """

    samples: int = 0
    results: int = 0
    acked: int = 0
    sent: int = 0
    resent: int = 0
    refused: int = 0
    skipped: int = 0
    trials: int = 0
    jobs: int = 0
    delays: Delays = field(default_factory=Delays)


class Ledger:
    """One device's records that are not acknowledged; watches its conversation."""

    def __init__(self, tally: Tally, clock_s: Callable[[], float]) -> None:
        """Begin with nothing.

        Args:
            tally: shared by all devices of the process.
            clock_s: a monotonic clock.
        """
        self._tally = tally
        self._clock_s = clock_s
        self._made_s: dict[int, float] = {}
        self._carried: set[int] = set()
        self._sent: set[int] = set()

    def carried(self, seq: int, made_s: float) -> None:
        """Note what an earlier simulation left; its delay is not this one's."""
        self._made_s[seq] = made_s
        self._carried.add(seq)

    def made(self, seq: int) -> None:
        """Note a record that was made just now."""
        self._made_s[seq] = self._clock_s()

    def sent(self, seqs: Sequence[int]) -> None:
        """See `roles.Watcher`."""
        self._tally.sent += len(seqs)
        self._tally.resent += sum(seq in self._sent for seq in seqs)
        self._sent.update(seqs)

    def acked(self, ranges: Sequence[tuple[int, int]], freed: int) -> None:
        """See `roles.Watcher`."""
        self._tally.acked += freed
        now_s = self._clock_s()
        for first, last in ranges:
            self._sent.difference_update(_within(self._sent, first, last))
            for seq in _within(self._made_s, first, last):
                made_s = self._made_s.pop(seq)
                if seq in self._carried:
                    self._carried.discard(seq)
                else:
                    self._tally.delays.add(now_s - made_s)

    def keep_only(self, seqs: Iterable[int]) -> None:
        """Forget what was thinned: all but these."""
        there = set(seqs)
        self._made_s = {seq: made_s for seq, made_s in self._made_s.items() if seq in there}
        self._sent &= there
        self._carried &= there

    @property
    def oldest_s(self) -> float | None:
        """When the oldest record that is not acknowledged was made; None for none."""
        return next(iter(self._made_s.values()), None)


def _within(seqs: set[int] | dict[int, float], first: int, last: int) -> list[int]:
    """Return which of `seqs` are in a range, however long the range or `seqs` may be."""
    if last - first < len(seqs):
        return [seq for seq in range(first, last + 1) if seq in seqs]
    return [seq for seq in seqs if first <= seq <= last]
