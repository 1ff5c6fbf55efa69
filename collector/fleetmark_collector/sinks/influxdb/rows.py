"""Turns rows of an answer into records: the exact inverse of `lines`."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from pydantic import ValidationError

from fleetmark_collector.sinks.base import Stored
from fleetmark_collector.sinks.influxdb.query import Chunk
from fleetmark_collector.sinks.influxdb.schema import FAILURE, FIELDS, MEASUREMENTS, REST
from fleetmark_protocol.errors import StoreError
from fleetmark_protocol.records import (
    EventRecord,
    JobRecord,
    LoadRecord,
    TelemetryRecord,
    TrialRecord,
)

_EXTRA = "*"
"""Stands for the unknown fields while a row is taken apart; no field has such a name."""

R = TypeVar("R", TelemetryRecord, TrialRecord, LoadRecord, JobRecord, EventRecord)


def records(kind: type[R], chunks: Iterable[Chunk]) -> Iterator[Stored[R]]:
    """Yield the records of an answer to `SELECT *`, in its order; without those just being written.

    Raises:
        StoreError: a row is no record that this version can read.
    """
    name = kind.model_fields["kind"].default
    for chunk in chunks:
        read, is_whole = _reader(name, chunk), _completeness(name, chunk)
        for row in filter(is_whole, chunk.values):
            try:
                values = read(row)
                fleet, device = values.pop("fleet"), values.pop("device")
                epoch, seq = values.pop("epoch"), values.pop("seq")
                # Only now: a field that this version does not know may have any name.
                record = kind.model_validate({**values.pop(_EXTRA), **values})
                yield Stored(fleet, device, epoch, seq, record)
            except (KeyError, TypeError, ValueError) as error:
                raise _unreadable(name, error) from error


def _reader(kind: str, chunk: Chunk) -> Callable[[list[Any]], dict[str, Any]]:
    """Return what makes a record's values, and what identifies it, of a row of a chunk."""
    measurement = MEASUREMENTS[kind]
    known = {"time", REST, *measurement.tags, *measurement.fields} - {"options", FIELDS}
    places = [
        ("time_ns" if name == "time" else name, at, measurement.fields.get(name) == "json")
        for at, name in enumerate(chunk.columns)
        if name in known
    ]

    def read(row: list[Any]) -> dict[str, Any]:
        values: dict[str, Any] = dict(chunk.tags)
        for name, at, is_json in places:
            value = row[at]
            if value is not None:
                values[name] = json.loads(value) if is_json else value
        # A tag that is not there comes as null, or as the empty text.
        for name in measurement.tags:
            if values.get(name) == "":
                del values[name]
        values.pop("options", None)
        return _unfolded(values)

    return read


def _completeness(kind: str, chunk: Chunk) -> Callable[[list[Any]], bool]:
    """Return what tells whether a row of a chunk has all the fields that were written."""
    if FIELDS not in chunk.columns:
        return lambda _: False
    number = chunk.columns.index(FIELDS)
    others = {"time", *MEASUREMENTS[kind].tags}
    places = [at for at, name in enumerate(chunk.columns) if name not in others]

    def is_whole(row: list[Any]) -> bool:
        wanted = row[number]
        return wanted is not None and sum(row[at] is not None for at in places) >= wanted

    return is_whole


def _unfolded(values: dict[str, Any]) -> dict[str, Any]:
    """Put together what was taken apart: the failure, and what `rest` holds."""
    rest = values.pop(REST, {})
    if "failure_code" in values:
        failure = {
            name.removeprefix("failure_"): values.pop(name) for name in FAILURE if name in values
        }
        values["failure"] = {**rest.get("failure_extra", {}), **failure}
    values.update(rest.get("tags", {}))
    if "options" in rest:
        values["options"] = rest["options"]
    values[_EXTRA] = rest.get("extra", {})
    return values


def _unreadable(kind: str, error: Exception) -> StoreError:
    reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else repr(error)
    return StoreError(
        f"a stored {kind} cannot be read by this version: {reason}",
        hint="use the version that wrote it; what other programs write belongs into a database "
        "of their own",
    )
