"""Turns records into line protocol, fast: what repeats is made once and remembered.

A line is `measurement,tags fields time`. Its head, down to the fields that all records of one
outbox and one series share, is made once. What follows is a bytes template for each shape of record
(which optional fields are there), filled in with what orjson makes of the values: its numbers are
InfluxDB's numbers, and the shortest that read back exactly.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, cast

import orjson

from fleetmark_collector.plain import AnyRecord, PlainTelemetry
from fleetmark_collector.sinks.base import Point, Stored
from fleetmark_collector.sinks.influxdb.samples import Samples, out_of_range
from fleetmark_collector.sinks.influxdb.schema import (
    FAILURE,
    FIELDS,
    MAX_NEW_WEEKS,
    MAX_TIME_NS,
    MEASUREMENTS,
    MIN_TIME_NS,
    REST,
    TAGS,
    WEEK_BITS,
)
from fleetmark_collector.sinks.influxdb.series import WEEKS, SeriesBudget
from fleetmark_collector.sinks.influxdb.tags import rest_of, tag_text, tags_of
from fleetmark_protocol.records import Failure, Record

MAX_REMEMBERED = 100_000
"""Heads, and shapes; past it all are forgotten and made again as they come."""

_TAG_ESCAPES = str.maketrans({",": "\\,", "=": "\\=", " ": "\\ "})

_END_OF_REST = b'}",'
"""How a head with a `rest` ends; others end with an outbox's epoch."""

_CELL = {kind: tuple(name for name in tags[2:] if name != "options") for kind, tags in TAGS.items()}
"""Kind -> the fields that are tags as they are; fleet and device come with the record."""


@dataclass(frozen=True)
class _Shape:
    """How records of one kind with the same optional fields are written.

    Attributes:
        template: bytes with a place for the head, for what each of `encoders` makes, for the seq,
            for the number of fields and for what `values` gets, in this order.
        values: gets numbers, truth values and tokens, and the time as the last.
        encoders: field of the record -> makes a piece of line of it: what needs escaping.
        fields: how many fields the line has, but for `rest`.
    """

    template: bytes
    fields: int
    values: Callable[[Mapping[str, Any]], tuple[Any, ...]]
    encoders: tuple[tuple[str, Callable[[Any], bytes]], ...]


class Lines:
    """Makes line protocol; any number of threads may use one."""

    def __init__(self, budget: SeriesBudget | None = None) -> None:
        """Begin with nothing remembered.

        Args:
            budget: how many series a device may begin; None for the usual bound.
        """
        self._budget = budget or SeriesBudget()
        limit = MAX_NEW_WEEKS if self._budget.limited else None
        self._weeks = SeriesBudget(limit, what=WEEKS)
        self._known_weeks: set[tuple[str, str, int]] = set()
        self._heads: dict[tuple[Any, ...], bytes] = {}
        self._shapes: dict[tuple[Any, ...], _Shape] = {}
        self._samples = Samples(lambda item: self._new_head(None, item))

    def lines(self, items: Sequence[Stored[AnyRecord]]) -> list[bytes]:
        """Return records as lines, as `line` does one; telemetry costs much less together.

        Raises:
            ValueError: one of them can never be written; `line` tells which, and why.
        """
        self._check_weeks(items)
        made: list[bytes] = []
        for is_plain, some in groupby(items, _is_plain):
            if is_plain:
                made += self._samples.lines(cast(list[Stored[PlainTelemetry]], list(some)))
            else:
                made += map(self.line, some)
        return made

    def line(self, item: Stored[AnyRecord]) -> bytes:
        """Return a record as one line, without a newline at its end.

        Raises:
            ValueError: it can never be written; the message says why.
        """
        record = item.record
        self._check_weeks([item])
        if isinstance(record, PlainTelemetry):
            return self._samples.lines([cast(Stored[PlainTelemetry], item)])[0]
        try:
            values = record.__dict__
            _check_time(record.time_ns)
            key = (record.kind, *map(type, values.values()))
            shape = self._shapes.get(key) or self._new_shape(key, values)
            head = self._head(item, record)
            return shape.template % (
                head,
                *[encode(values[name]) for name, encode in shape.encoders],
                item.seq,
                shape.fields + head.endswith(_END_OF_REST),
                # No value here holds a comma: they are numbers, truth values and tokens.
                *orjson.dumps(shape.values(values))[1:-1].split(b","),
            )
        except TypeError as error:
            raise ValueError(f"a value that cannot be written: {error}") from error

    def _check_weeks(self, items: Sequence[Stored[AnyRecord]]) -> None:
        """Let pass what lies in weeks that a device may write to.

        Raises:
            ValueError: it has records of too many already.
        """
        weeks = {(one[0], one[1], one[4].time_ns >> WEEK_BITS) for one in items}
        for fleet, device, week in weeks - self._known_weeks:
            self._weeks.use(fleet, device, b"%d" % week)
            if len(self._known_weeks) >= MAX_REMEMBERED:
                self._known_weeks.clear()
            self._known_weeks.add((fleet, device, week))

    def _head(self, item: Stored[AnyRecord], record: Record) -> bytes:
        """Return the line up to the fields that differ from record to record."""
        values, extra = record.__dict__, record.__pydantic_extra__
        if record.kind == "telemetry" and not extra:
            outbox = item[:3]
            return self._heads.get(outbox) or self._new_head(outbox, item)
        failure = values.get("failure")
        if extra or (failure is not None and failure.__pydantic_extra__):
            return self._new_head(None, item)
        options = values.get("options")
        key = (
            *(record.kind, item.fleet, item.device, item.epoch),
            *[values[name] for name in _CELL[record.kind]],
            # As text: to a dict 1, 1.0 and true are equal, but they are not the same options.
            orjson.dumps(options) if options else None,
        )
        return self._heads.get(key) or self._new_head(key, item)

    def _new_head(self, key: tuple[Any, ...] | None, item: Stored[AnyRecord]) -> bytes:
        """Make the head of a record's line; remember it where others may have the same."""
        tags = [b",%b=%b" % (name.encode(), _tag(text)) for name, text in tags_of(item).items()]
        series = b"%b%b" % (item.record.kind.encode(), b"".join(tags))
        self._budget.use(item.fleet, item.device, series)
        head = b'%b epoch="%b",' % (series, item.epoch.encode())
        if not isinstance(item.record, PlainTelemetry) and (rest := rest_of(item.record)):
            head += _json(REST)(rest)
        if key is not None:
            if len(self._heads) >= MAX_REMEMBERED:
                self._heads.clear()
            self._heads[key] = head
        return head

    def _new_shape(self, key: tuple[Any, ...], values: Mapping[str, Any]) -> _Shape:
        """Make and remember how records like this one are written."""
        plain: list[str] = []
        fields = [b"seq=%%di,%b=%%di" % FIELDS.encode()]
        encoders: list[tuple[str, Callable[[Any], bytes]]] = []
        for name, kind in MEASUREMENTS[key[0]].plain.items():
            if values[name] is None:
                continue
            if kind == "text":
                encoders.append((name, _text(name)))
            elif kind == "json":
                encoders.append((name, _json(name)))
            else:
                plain.append(name)
                fields.append(name.encode() + (b"=%bi" if kind == "integer" else b"=%b"))
        if values.get("failure") is not None:
            encoders.append(("failure", _failure))
        number = 3 + len(plain) + len(encoders)  # with epoch, seq and the number itself
        if values.get("failure") is not None:
            number += len(FAILURE) - 1
        shape = _Shape(
            b"%b" * (1 + len(encoders)) + b",".join(fields) + b" %b",
            number,
            itemgetter(*plain, "time_ns"),
            tuple(encoders),
        )
        if len(self._shapes) >= MAX_REMEMBERED:
            self._shapes.clear()
        self._shapes[key] = shape
        return shape


def _is_plain(item: Stored[AnyRecord]) -> bool:
    return isinstance(item.record, PlainTelemetry)


def _check_time(time_ns: int) -> None:
    if not MIN_TIME_NS <= time_ns <= MAX_TIME_NS:
        raise ValueError(out_of_range(time_ns))


def point_line(point: Point) -> bytes:
    """Return an observation as one line, without a newline at its end.

    A tag without a value and a number that is not finite are left out.

    Raises:
        ValueError: nothing is left to write, or a text is no Unicode.
    """
    tags = [b",%b=%b" % (_tag(name), _tag(text)) for name, text in point.tags.items() if text]
    fields = [
        b"%b=%b" % (_tag(name), _value(value))
        for name, value in point.fields.items()
        if not isinstance(value, float) or math.isfinite(value)
    ]
    if not fields:
        raise ValueError(f"{point.measurement}: no field to write")
    parts = (_tag(point.measurement), b"".join(tags), b",".join(fields), point.time_ns)
    return b"%b%b %b %d" % parts


def _tag(text: str) -> bytes:
    return tag_text(text).translate(_TAG_ESCAPES).encode()


def _value(value: float | str) -> bytes:
    """Return any value of a field."""
    if isinstance(value, str):
        return b'"%b"' % _escaped(value.encode())
    if isinstance(value, int) and not isinstance(value, bool):
        return b"%di" % value
    return orjson.dumps(value)


def _escaped(text: bytes) -> bytes:
    return text.replace(b"\\", b"\\\\").replace(b'"', b'\\"')


def _text(name: str) -> Callable[[Any], bytes]:
    template = name.encode() + b'="%b",'
    return lambda text: template % _escaped(text.encode())


def _json(name: str) -> Callable[[Any], bytes]:
    """Return what writes a list or an object, as JSON text."""
    template = name.encode() + b'="%b",'
    return lambda value: template % _escaped(orjson.dumps(value))


def _failure(failure: Failure) -> bytes:
    return b'failure_code="%b",failure_message="%b",failure_retryable=%b,' % (
        _escaped(failure.code.encode()),
        _escaped(failure.message.encode()),
        b"true" if failure.retryable else b"false",
    )
