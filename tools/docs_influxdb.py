"""The page of the schema in InfluxDB, made from the code that writes and reads by it."""

from docs_tables import NOTE, table
from fleetmark_collector.sinks.influxdb.schema import (
    FIELDS,
    MAX_NEW_SERIES,
    MAX_OPTIONS_TAG,
    MEASUREMENTS,
    REST,
    SERIES_WINDOW_S,
    FieldType,
    Measurement,
    max_observed_series,
    max_series,
)

TYPES: dict[str, tuple[FieldType, ...]] = {
    "float": ("float",),
    "integer": ("integer",),
    "boolean": ("boolean",),
    "string": ("token", "text"),
    "string holding JSON": ("json",),
}
"""A type of InfluxDB's -> what of ours it holds."""

EXAMPLES = (
    ("a lab: a board of each kind", 5, 20, 12, 3),
    ("a fleet", 100, 50, 12, 3),
    ("1,000 devices that sample only", 1000, 0, 0, 0),
)
"""What it is, devices, campaigns, cells, workloads."""


_WINDOW_H = SERIES_WINDOW_S / 3600


def schema_page() -> str:
    """Return the page of measurements, tags and fields, and of how many series they make."""
    examples = [
        (
            name,
            *(f"{number:,}" for number in shape),
            f"{max_series(*shape) + max_observed_series(*shape):,}",
        )
        for name, *shape in EXAMPLES
    ]
    head = ("", "devices", "campaigns", "cells", "workloads", "series at most")
    parts = "\n\n".join(_measurement(one) for one in MEASUREMENTS.values())
    return f"""{NOTE}
# Schema in InfluxDB

How records lie in the [InfluxDB store](influxdb.md). A measurement is a record's `kind`; a field
has the name that it has [in the record](records.md) and never changes its type; what a record does
not have is not written. The time is the record's `time_ns`, in nanoseconds, on the device's clock:
a device makes its times strictly increasing for each kind, so that no point takes another's place.
What the collector writes about itself is described in [monitoring.md](monitoring.md).

`seq` and `epoch` are in every measurement: with fleet and device they identify a record. So is
`{FIELDS}`, the number of the point's fields, itself included: InfluxDB lets a query see some of the
fields of a point that is just being written, and fleetmark reads no row that has fewer.

The tag `options` is a short text of the options, sorted by name (`context_tokens=512 threads=2`),
for dashboards to group by; one longer than {MAX_OPTIONS_TAG} characters ends in a digest. A tag is
absent where the record has no such value. In `backend`, `model`, `quantization`,
`workload` and `options`, characters that not every server can hold in a tag (line breaks and other
unprintable ones, backslashes, U+FFFD) become `_`.

`{REST}` holds, as one JSON object, what has no exact place elsewhere: `options` with their types,
`tags` with values that the tags cannot hold exactly, `extra` and `failure_extra` with fields of
newer agents that this version does not know. It is absent where there is nothing of it. Reading
puts a record together again exactly as it was written.

{parts}

## How many series

A series is a measurement with one set of tag values; their index is what a time-series database
keeps in memory. Trials, samples and repetitions make no new ones. At most there are:

    records: devices x (2 + campaigns x (1 + cells x (workloads + 1)))
    observations: 1 + devices + campaigns + devices x campaigns x cells x workloads

`cells` are the combinations of backend, model, quantization and options that a campaign runs on one
device, `campaigns` those that each device takes part in; observations are what the collector writes
about itself.

{table(head, examples)}
InfluxDB 1 takes 1,000,000 series in one database unless it is told otherwise; `fleetmark store
check` says how many there are. One device may begin {MAX_NEW_SERIES:,} new ones within
{_WINDOW_H:g} hours. Beyond that, its records that would begin further ones go to the dead letters
with the reason, so that a broken or hostile device cannot fill the index.
"""


def _measurement(measurement: Measurement) -> str:
    rows = []
    for name, kinds in TYPES.items():
        fields = [f"`{field}`" for field, kind in measurement.fields.items() if kind in kinds]
        if fields:
            rows.append((name, ", ".join(fields)))
    tags = ", ".join(f"`{tag}`" for tag in measurement.tags)
    return f"## {measurement.name}\n\nTags: {tags}\n\n{table(('type', 'fields'), rows)}".rstrip()
