"""Where a record lies in InfluxDB, as data: writing, reading, docs and tests all go by it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, StringConstraints

from fleetmark_protocol.records import (
    EventRecord,
    JobRecord,
    LoadRecord,
    TelemetryRecord,
    TrialRecord,
)

MIN_TIME_NS = 0
MAX_TIME_NS = 2**63 - 2
"""InfluxDB's range of times ends here: one nanosecond before the wire's does."""

MAX_NEW_SERIES = 10_000
"""Series that one device may begin within `SERIES_WINDOW_S`; what would begin more is refused."""

SERIES_WINDOW_S = 24 * 3600.0

WEEK_BITS = 49
"""A time in nanoseconds without so many bits tells its week, nearly: 6.5 days. InfluxDB opens files
for each week that holds a point."""

MAX_NEW_WEEKS = 520
"""Weeks that one device may have records of within `SERIES_WINDOW_S`: ten years, however late it
delivers; a clock that runs wild fills centuries."""

MAX_OPTIONS_TAG = 200
"""Characters of the tag `options`; a longer text is cut and told apart by a digest."""

FieldType = Literal["integer", "float", "boolean", "token", "text", "json"]
"""What a field holds. `token` is text out of an alphabet that needs no escaping, `json` a list or
an object as JSON text; InfluxDB knows both as strings."""

RECORDS: dict[str, type[BaseModel]] = {
    "telemetry": TelemetryRecord,
    "trial": TrialRecord,
    "load": LoadRecord,
    "job": JobRecord,
    "event": EventRecord,
}
"""Measurement (a record's `kind`) -> the record."""

TAGS: dict[str, tuple[str, ...]] = {
    "telemetry": ("fleet", "device"),
    "trial": (
        "fleet",
        "device",
        "campaign_id",
        "backend",
        "model",
        "quantization",
        "workload",
        "options",
    ),
    "load": ("fleet", "device", "campaign_id", "backend", "model", "quantization", "options"),
    "job": ("fleet", "device", "campaign_id"),
    "event": ("fleet", "device"),
}
"""Measurement -> what its series are told apart by; everything else is a field."""

FREE_TAGS = ("backend", "model", "quantization", "workload")
"""Tags whose values a campaign's author chose: what a tag cannot hold exactly, `rest` does."""

IDENTITY: dict[str, FieldType] = {"seq": "integer", "epoch": "token"}
"""Fields of every measurement: with fleet and device they identify a record."""

FIELDS = "fields"
"""How many fields a point has, this one included: InfluxDB lets a query see a part of the fields of
a point that is just being written. A row with fewer is not there yet."""

REST = "rest"
"""The field with all that has no field of its own, as a JSON object (see `docs/influxdb.md`)."""

FAILURE: dict[str, FieldType] = {
    "failure_code": "text",
    "failure_message": "text",
    "failure_retryable": "boolean",
}
"""The fields that a record's `failure` becomes."""

_TOKEN = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class Measurement:
    """One measurement of the schema.

    Attributes:
        name: the `kind` of its records.
        tags: in the order they are written in.
        plain: the record's own names of what becomes a field of the same name, in the record's
            order; without tags, time, `options` and `failure`.
        has_failure: whether its records may have failed.
    """

    name: str
    tags: tuple[str, ...]
    plain: Mapping[str, FieldType]
    has_failure: bool

    @property
    def fields(self) -> dict[str, FieldType]:
        """All its fields."""
        failure = FAILURE if self.has_failure else {}
        return {**IDENTITY, FIELDS: "integer", **self.plain, **failure, REST: "json"}


def _measurement(name: str, record: type[BaseModel]) -> Measurement:
    elsewhere = {"kind", "time_ns", "options", "failure", *TAGS[name]}
    plain = {
        field: field_type(info.annotation, info.metadata)
        for field, info in record.model_fields.items()
        if field not in elsewhere and not field.startswith("__")
    }
    return Measurement(name, TAGS[name], plain, "failure" in record.model_fields)


def field_type(annotation: Any, metadata: Any = ()) -> FieldType:
    """Return how values of an annotation are stored.

    Raises:
        TypeError: there is no rule for it.
    """
    kinds = {_one_type(kind, found) for kind, found in _members(annotation, list(metadata))}
    if len(kinds) != 1:
        raise TypeError(f"no one field type for {annotation!r}: teach schema.py")
    return kinds.pop()


def _members(annotation: Any, metadata: list[Any]) -> Iterator[tuple[Any, list[Any]]]:
    """Take an annotation apart into its types, each with its constraints; None left out."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _members(args[0], [*args[1:], *metadata])
    elif origin in (Union, UnionType):
        for arg in args:
            yield from _members(arg, metadata)
    elif annotation is not NoneType:
        yield annotation, metadata


def _one_type(kind: Any, metadata: list[Any]) -> FieldType:
    origin = get_origin(kind)
    if origin in (tuple, dict):
        return "json"
    if origin is Literal:
        return "token" if all(_TOKEN.fullmatch(str(arg)) for arg in get_args(kind)) else "text"
    for known, found in _SCALARS:
        if issubclass(kind, known):
            return found
    if issubclass(kind, Enum):
        return "token" if all(_TOKEN.fullmatch(str(one.value)) for one in kind) else "text"
    if issubclass(kind, str):
        return "token" if any(_is_identifier(one) for one in metadata) else "text"
    raise TypeError(f"no field type for {kind!r}: teach schema.py")


_SCALARS: tuple[tuple[type, FieldType], ...] = (
    (bool, "boolean"),
    (int, "integer"),
    (float, "float"),
)

_HARMLESS = re.compile(r"\^(\[[a-z0-9_.-]+\](\{[0-9,]+\})?|-)+\$")


def _is_identifier(constraint: Any) -> bool:
    """Whether a constraint allows nothing but letters, digits, `_`, `.` and `-`."""
    pattern = constraint.pattern if isinstance(constraint, StringConstraints) else None
    return isinstance(pattern, str) and _HARMLESS.fullmatch(pattern) is not None


MEASUREMENTS: dict[str, Measurement] = {
    name: _measurement(name, record) for name, record in RECORDS.items()
}


def max_series(devices: int, campaigns: int, cells: int, workloads: int) -> int:
    """Return the most series that honest devices make.

    Formula: devices x (2 + campaigns x (1 + cells x (workloads + 1))): telemetry and event, then
    for each campaign job, and for each of its cells its loads and each workload's trials.

    Args:
        devices: devices in the store.
        campaigns: campaigns that each device took part in.
        cells: combinations of backend, model, quantization and options of a campaign on a device.
        workloads: workloads of a campaign.
    """
    return devices * (2 + campaigns * (1 + cells * (workloads + 1)))


def max_observed_series(devices: int, campaigns: int, cells: int, workloads: int) -> int:
    """Return the most series that the collector's own observations make.

    Formula: 1 + devices + campaigns + devices x campaigns x cells x workloads.
    """
    return 1 + devices + campaigns + devices * campaigns * cells * workloads
