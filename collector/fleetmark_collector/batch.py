"""Gathers messages into one write, and knows what each outbox is to be told of it afterwards."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import repeat

from fleetmark_collector import plain
from fleetmark_collector.dead_letters import short
from fleetmark_collector.inbox import Arrival
from fleetmark_collector.plain import AnyRecord
from fleetmark_collector.sinks.base import Stored
from fleetmark_protocol import codec, topics
from fleetmark_protocol.errors import ContractError
from fleetmark_protocol.messages import MAX_BATCH_RECORDS, Ack
from fleetmark_protocol.version import __version__, objection

MAX_BYTES = 32 * 2**20
"""Of the messages of one write: as records they take several times as much memory."""


@dataclass(frozen=True)
class Refused:
    """A data message that is not taken.

    Attributes:
        agent_version: as its sender says; None where it tells none.
        reason: what stands against it, and which side to upgrade.
    """

    fleet: str
    device: str
    epoch: str
    agent_version: str | None
    reason: str


@dataclass
class Source:
    """What a batch holds of one outbox.

    Attributes:
        topic: of the first of its messages.
        seqs: of the records that were understood.
        bad: records that were not, or that can never be written.
        asked: whether a message without records asked if anybody takes them.
    """

    topic: str
    fleet: str
    device: str
    epoch: str
    seqs: list[int] = field(default_factory=list)
    bad: list[codec.BadRecord] = field(default_factory=list)
    asked: bool = False

    def acks(self, but: Iterable[int | None] = ()) -> Iterator[Ack]:
        """Make the acknowledgements of all its records whose `seq` is known, but of some.

        Who only asked is answered without any.

        Args:
            but: numbers of records that are to be sent again.
        """
        left_out = {*but, None}
        seqs = {*self.seqs, *(bad.seq for bad in self.bad)} - left_out
        ranges = codec.to_ranges(seq for seq in seqs if seq is not None)
        for start in range(0, len(ranges) or self.asked, MAX_BATCH_RECORDS):
            yield Ack(
                epoch=self.epoch,
                ranges=tuple(ranges[start : start + MAX_BATCH_RECORDS]),
                collector_version=__version__,
            )


@dataclass
class Batch:
    """What is gathered for one write.

    Attributes:
        items: the records to write, of all sources, in the order they came.
        sources: (fleet, device, epoch) -> what is here of that outbox.
        first_s: when its first message arrived (monotonic clock).
        messages: how many were looked at for it, those that it has nothing of included.
        bytes: what they took.
        bad: records that were not understood.
    """

    items: list[Stored[AnyRecord]] = field(default_factory=list)
    sources: dict[tuple[str, str, str], Source] = field(default_factory=dict)
    first_s: float = 0.0
    messages: int = 0
    bytes: int = 0
    bad: int = 0

    def full(self, max_records: int) -> bool:
        """Whether to look at no more messages for it: the bad and the empty cost time, too."""
        pieces = max(self.messages, len(self.items) + self.bad)
        return pieces >= max_records or self.bytes >= MAX_BYTES

    def count(self, arrival: Arrival) -> None:
        """Take note of a message that is looked at."""
        self.messages += 1
        self.bytes += len(arrival.payload)

    def add(self, arrival: Arrival) -> Refused | None:
        """Take in a data message, or return why its sender is not one that we go with.

        Raises:
            ContractError: it is not even a batch; nothing of it was taken in.
        """
        topic = topics.parse(arrival.topic)
        if topic.channel != "data":
            raise ContractError(f"not a data topic: {arrival.topic!r}")
        decoded = plain.decode_batch(arrival.payload)
        key = (topic.fleet, topic.device, decoded.epoch)
        reason = objection(agent=decoded.agent_version, collector=__version__)
        if reason is not None:
            return Refused(*key, decoded.agent_version, reason)
        if not self.sources:
            self.first_s = arrival.arrived_s
        source = self.sources.get(key)
        if source is None:
            source = self.sources[key] = Source(arrival.topic, *key)
        source.bad += [replace(one, raw=short(one.raw)) for one in decoded.bad]
        self.bad += len(decoded.bad)
        self.items += map(Stored, *map(repeat, key), decoded.seqs, decoded.records)
        source.seqs += decoded.seqs
        source.asked = source.asked or not (decoded.seqs or decoded.bad)
        return None

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
            codec.BadRecord(item.seq, reason, short(repr(item.record)))
        )
