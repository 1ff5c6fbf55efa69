"""What a conversation needs of others: a way to publish, and somebody who counts."""

from collections.abc import Sequence
from typing import Protocol


class Publish(Protocol):
    """Hands a message to the connection, at QoS 1; what it returns goes to who asked for it."""

    def __call__(self, topic: str, payload: bytes, *, retain: bool) -> object:
        """Take a message."""


class Watcher(Protocol):
    """Counts what a conversation does."""

    def sent(self, seqs: Sequence[int]) -> None:
        """Take note of records that were sent, for the first time or again."""

    def acked(self, ranges: Sequence[tuple[int, int]], freed: int) -> None:
        """Take note of an ack of ours, and of how many records it freed."""
