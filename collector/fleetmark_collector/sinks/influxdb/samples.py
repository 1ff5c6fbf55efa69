"""Makes lines of telemetry, many at once: nearly all that ingest writes is telemetry.

The values of many samples become JSON in one go (its numbers are InfluxDB's numbers, and the
shortest that read back exactly), and its pieces fill the places of one template of all the lines.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import orjson
from msgspec.structs import astuple

from fleetmark_collector.plain import TELEMETRY_FIELDS, PlainTelemetry
from fleetmark_collector.sinks.base import Stored
from fleetmark_collector.sinks.influxdb.schema import FIELDS, MAX_TIME_NS, MEASUREMENTS

CHUNK = 250
"""Samples at once: few enough for a processor's nearest memory."""

MAX_OUTBOXES = 100_000
MAX_SHAPES = 1000
"""Remembered; past it all are forgotten and made again as they come."""

_KINDS = MEASUREMENTS["telemetry"].plain
_PLACE = {name: at for at, name in enumerate(TELEMETRY_FIELDS)}
_CORES = _PLACE["cpu_percent_per_core"]
_TIME = _PLACE["time_ns"]
_OUTBOX = itemgetter(0, 1, 2)


@dataclass(frozen=True)
class _Shape:
    """How samples are written that observed the same values.

    Attributes:
        absent: gets the values that are None in all of them, and one that never is.
        none: what it gets.
        present: gets the other values, in the order of the template.
        cores: how many numbers their one list has.
        template: the line after the head, with a place for the seq, for each value of `present`
            and for each number of the list.
    """

    absent: Callable[[tuple[Any, ...]], Any]
    none: Any
    present: Callable[[tuple[Any, ...]], tuple[Any, ...]]
    cores: int
    template: bytes


class Samples:
    """Makes lines of telemetry; any number of threads may use one."""

    def __init__(self, head: Callable[[Stored[PlainTelemetry]], bytes]) -> None:
        """Begin with nothing remembered.

        Args:
            head: makes what all lines of an outbox begin with, up to the first field.
        """
        self._head = head
        # Outbox -> its head, and the shape of its newest sample: the next one's, most likely.
        self._known: dict[tuple[str, str, str], tuple[bytes, _Shape]] = {}
        self._shapes: dict[tuple[Any, ...], _Shape] = {}

    def lines(self, items: Sequence[Stored[PlainTelemetry]]) -> list[bytes]:
        """Return samples as lines, without newlines.

        Raises:
            ValueError: one of them can never be written; the message says why.
        """
        made: list[bytes] = []
        try:
            for start in range(0, len(items), CHUNK):
                made += self._together(items[start : start + CHUNK])
        except TypeError as error:
            raise ValueError(f"a value that cannot be written: {error}") from error
        return made

    def _together(
        self, items: Sequence[Stored[PlainTelemetry]], *, look_closely: bool = False
    ) -> list[bytes]:
        values: list[Any] = []
        templates: list[bytes] = []
        for outbox, run in groupby(items, _OUTBOX):
            head, shape = self._known.get(outbox) or (b"", _NO_SHAPE)
            for item in run:
                sample = astuple(item.record)
                if (
                    shape.absent(sample) != shape.none
                    or len(sample[_CORES] or ()) != shape.cores
                    or (look_closely and None in shape.present(sample))
                ):
                    head, shape = self._learn(outbox, item, sample)
                if sample[_TIME] > MAX_TIME_NS:
                    raise ValueError(out_of_range(sample[_TIME]))
                values.append(item.seq)
                values.extend(shape.present(sample))
                templates += (head, shape.template)
        text = orjson.dumps(values)
        if b",null," in text and not look_closely:
            # Somewhere an outbox observes less than before: too rare to look for every time.
            return self._together(items, look_closely=True)
        # Nothing but the list has commas of its own, and these have their places.
        return (b"".join(templates) % tuple(text[1:-1].split(b","))).split(b"\n")[:-1]

    def _learn(
        self, outbox: tuple[str, str, str], item: Stored[PlainTelemetry], sample: tuple[Any, ...]
    ) -> tuple[bytes, _Shape]:
        """Make or find how the samples of an outbox are written now, and remember it."""
        known = self._known.get(outbox)
        head = self._head(item).replace(b"%", b"%%") if known is None else known[0]
        key = (len(sample[_CORES] or ()), *[value is None for value in sample])
        shape = self._shapes.get(key)
        if shape is None:
            if len(self._shapes) >= MAX_SHAPES:
                self._shapes.clear()
            shape = self._shapes[key] = _shape_of(sample)
        if len(self._known) >= MAX_OUTBOXES:
            self._known.clear()
        self._known[outbox] = (head, shape)
        return head, shape


def _shape_of(sample: tuple[Any, ...]) -> _Shape:
    absent = itemgetter(_PLACE["kind"], *[at for at, value in enumerate(sample) if value is None])
    names = [name for name in _KINDS if sample[_PLACE[name]] is not None]
    cores = len(sample[_CORES] or ())
    # The fields that all have: epoch, seq, and their number itself.
    fields = [b"seq=%%bi,%b=%di" % (FIELDS.encode(), 3 + len(names))]
    for name in names:
        field = name.encode()
        match _KINDS[name]:
            case "integer":
                fields.append(field + b"=%bi")
            case "float" | "token":  # JSON's quotes are those of a text, too
                fields.append(field + b"=%b")
            case "json" if name == "cpu_percent_per_core":
                # An empty list is one piece of JSON, as a list of one number is.
                fields.append(field + b'="' + b",".join([b"%b"] * max(1, cores)) + b'"')
            case kind:
                raise TypeError(f"telemetry.{name}: no rule for {kind}: teach samples.py")
    return _Shape(
        absent,
        absent(sample),
        itemgetter(*[_PLACE[name] for name in names], _TIME),
        cores,
        b",".join(fields) + b" %b\n",
    )


_NO_SHAPE = _Shape(lambda _: True, False, lambda _: (), 0, b"")
"""Fits no sample."""


def out_of_range(time_ns: int) -> str:
    """Return why a time cannot be written."""
    return f"time_ns {time_ns} is out of the store's range of times"
