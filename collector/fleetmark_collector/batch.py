"""Gathers messages into one write, and knows what each outbox is to be told of it afterwards."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import repeat

from fleetmark_collector import plain
from fleetmark_collector.inbox import Arrival
from fleetmark_collector.plain import AnyRecord
from fleetmark_collector.sinks.base import Stored
from fleetmark_protocol import codec, topics
from fleetmark_protocol.errors import ContractError
from fleetmark_protocol.messages import MAX_BATCH_RECORDS, Ack


@dataclass
class Source:
    """What a batch holds of one outbox.

    Attributes:
        topic: of the first of its messages.
        seqs: of the records that were understood.
        bad: records that were not, or that can never be written.
    """

    topic: str
    fleet: str
    device: str
    epoch: str
    seqs: list[int] = field(default_factory=list)
    bad: list[codec.BadRecord] = field(default_factory=list)

    def acks(self, but: Iterable[int | None] = ()) -> Iterator[Ack]:
        """Make the acknowledgements of all its records whose `seq` is known, but of some.

        Args:
            but: numbers of records that are to be sent again.
        """
        left_out = {*but, None}
        seqs = {*self.seqs, *(bad.seq for bad in self.bad)} - left_out
        ranges = codec.to_ranges(seq for seq in seqs if seq is not None)
        for start in range(0, len(ranges), MAX_BATCH_RECORDS):
            yield Ack(epoch=self.epoch, ranges=tuple(ranges[start : start + MAX_BATCH_RECORDS]))


@dataclass
class Batch:
    """What is gathered for one write.

    Attributes:
        items: the records to write, of all sources, in the order they came.
        sources: (fleet, device, epoch) -> what is here of that outbox.
        first_s: when its first message arrived (monotonic clock).
    """

    items: list[Stored[AnyRecord]] = field(default_factory=list)
    sources: dict[tuple[str, str, str], Source] = field(default_factory=dict)
    first_s: float = 0.0

    def add(self, arrival: Arrival) -> None:
        """Take in a data message.

        Raises:
            ContractError: it is not even a batch; nothing of it was taken in.
        """
        topic = topics.parse(arrival.topic)
        if topic.channel != "data":
            raise ContractError(f"not a data topic: {arrival.topic!r}")
        decoded = plain.decode_batch(arrival.payload)
        key = (topic.fleet, topic.device, decoded.epoch)
        if not self.sources:
            self.first_s = arrival.arrived_s
        source = self.sources.get(key)
        if source is None:
            source = self.sources[key] = Source(arrival.topic, *key)
        source.bad += decoded.bad
        self.items += map(Stored, *map(repeat, key), decoded.seqs, decoded.records)
        source.seqs += decoded.seqs

    def defer(self, positions: Iterable[int]) -> None:
        """Leave items, by their positions, to their agents: they are not acknowledged."""
        left: dict[tuple[str, str, str], set[int]] = {}
        for at in positions:
            item = self.items[at]
            left.setdefault((item.fleet, item.device, item.epoch), set()).add(item.seq)
        for key, seqs in left.items():
            source = self.sources[key]
            source.seqs = [seq for seq in source.seqs if seq not in seqs]

    def reject(self, at: int, reason: str) -> None:
        """Count an item, by its position, among the bad records of its source."""
        item = self.items[at]
        self.sources[item.fleet, item.device, item.epoch].bad.append(
            codec.BadRecord(item.seq, reason, repr(item.record))
        )
