"""Copies all records of one store into another; may be stopped at any moment and started again."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fleetmark_collector.sinks.base import Stored, Writer
from fleetmark_protocol.errors import PartialWrite, StoreUnavailable
from fleetmark_protocol.records import Record

BATCH_RECORDS = 5000
SAVE_S = 1.0
PATIENCE_S = 60.0
"""How long a target may be unavailable before the copy gives up (until it is started again)."""

MAX_REFUSALS = 5
"""Refused records that are named with their reason; all are counted."""


@dataclass(frozen=True)
class Part:
    """What is copied as one piece.

    Attributes:
        kind: of its records.
        epoch: of the outbox; empty: of all of the device's.
        records: how many there are at the source.
    """

    kind: str
    fleet: str
    device: str
    epoch: str
    records: int

    @property
    def key(self) -> str:
        """Its name; fleets, devices and epochs have no slash."""
        return f"{self.kind}/{self.fleet}/{self.device}/{self.epoch}"


class Parts(Protocol):
    """A store as a copy sees it."""

    def parts(self) -> list[Part]:
        """Return all there is."""

    def batches(self, part: Part, after: int) -> Iterator[tuple[list[Stored[Record]], int]]:
        """Yield records of a part in some order, and the position that each batch ends at.

        Args:
            part: which.
            after: the position to go on from; -1 for the beginning. Records at it may come again.
        """

    def count(self, part: Part) -> int:
        """Return how many records of a part of another store are in this one."""

    def close(self) -> None:
        """Release the store."""


@dataclass
class Copied:
    """How a copy stands.

    Attributes:
        total: records at the source when it began.
        done: records that are in the target, by this run or by one before.
        kind: what is being copied now; empty while counts are compared.
        refused: records that the target can never hold.
        refusals: what and why, of some of them.
        missing: parts of which the target has fewer than it should, and how many are not there.
    """

    total: int = 0
    done: int = 0
    kind: str = ""
    refused: int = 0
    refusals: list[str] = field(default_factory=list)
    missing: list[tuple[Part, int]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether the target has all of it."""
        return not self.refused and not self.missing


class Positions:
    """Where an unfinished copy stands, in a file beside the embedded store.

    Losing it costs time only: writing a record twice changes nothing.
    """

    def __init__(self, file: Path, route: str) -> None:
        """Take up what an earlier copy left.

        Args:
            file: JSON; made when there is something to keep.
            route: from where to where; positions of another route are not taken.
        """
        self._file = file
        self._route = route
        self._parts: dict[str, tuple[int, int]] = {}
        self._saved_s = time.monotonic()
        with suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(file.read_text("utf-8"))
            if kept["route"] == route:
                self._parts = {key: (int(at), int(n)) for key, (at, n) in kept["parts"].items()}

    def of(self, part: Part) -> tuple[int, int]:
        """Return the position a part was copied to, and how many records that were."""
        return self._parts.get(part.key, (-1, 0))

    def reached(self, part: Part, position: int, records: int) -> None:
        """Remember it; on disk about once a second."""
        self._parts[part.key] = (position, records)
        if time.monotonic() - self._saved_s >= SAVE_S:
            self.save()

    def save(self) -> None:
        """Write the file, whole or not at all."""
        new = self._file.with_suffix(".new")
        self._file.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(json.dumps({"route": self._route, "parts": self._parts}), "utf-8")
        new.replace(self._file)
        self._saved_s = time.monotonic()

    def forget(self) -> None:
        """Have the next copy begin anew."""
        self._parts.clear()
        self._file.unlink(missing_ok=True)


def copy(
    source: Parts,
    target: Parts,
    writer: Writer,
    positions: Positions,
    tell: Callable[[Copied], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Copied:
    """Copy all that is there, compare the numbers, and return how it went.

    Args:
        source: where records come from.
        target: where they go to, for counting.
        writer: of the target.
        positions: where an earlier copy stopped.
        tell: called after each batch.
        sleep: waits so many seconds.

    Raises:
        StoreUnavailable: one of the stores was away for too long; start it again.
        StoreError: a store cannot be used.
    """
    parts = source.parts()
    state = Copied(total=sum(part.records for part in parts))
    state.done = sum(min(positions.of(part)[1], part.records) for part in parts)
    refused: dict[str, int] = {}
    try:
        for part in parts:
            state.kind = part.kind
            position, written = positions.of(part)
            tell(state)
            for items, reached in source.batches(part, position):
                reasons = _write(writer, items, sleep)
                refused[part.key] = refused.get(part.key, 0) + len(reasons)
                for at, reason in reasons.items():
                    state.refused += 1
                    if len(state.refusals) < MAX_REFUSALS:
                        where = f"{part.kind} {part.fleet}/{part.device} seq {items[at].seq}"
                        state.refusals.append(f"{where}: {reason}")
                written += len(items)
                state.done += len(items)
                positions.reached(part, reached, written)
                tell(state)
    finally:
        positions.save()
    state.kind = ""
    tell(state)
    for part in parts:
        lacking = part.records - refused.get(part.key, 0) - target.count(part)
        if lacking > 0:
            state.missing.append((part, lacking))
    positions.forget()
    return state


def _write(
    writer: Writer, items: Sequence[Stored[Record]], sleep: Callable[[float], None]
) -> dict[int, str]:
    """Write until all is durable or refused; return position -> reason of what is refused."""
    rejected: dict[int, str] = {}
    todo = list(range(len(items)))
    waited_s, wait_s = 0.0, 0.5
    while todo:
        trouble: StoreUnavailable | PartialWrite
        try:
            writer.write([items[at] for at in todo])
            return rejected
        except PartialWrite as error:
            rejected |= {todo[at]: reason for at, reason in error.rejected.items()}
            settled = {*error.accepted, *error.rejected}
            # A server may have taken some, refused others, and put the rest off.
            todo = [at for place, at in enumerate(todo) if place not in settled]
            trouble = error
        except StoreUnavailable as error:
            trouble = error
        if todo:
            if waited_s >= PATIENCE_S:
                raise StoreUnavailable(trouble.message, hint=trouble.hint) from trouble
            sleep(wait_s)
            waited_s += wait_s
            wait_s = min(2 * wait_s, 10.0)
    return rejected
