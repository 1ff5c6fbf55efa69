"""What devices say of themselves, and when they were heard."""

from collections.abc import Sequence

from fleetmark_collector.grafana.influxql import INTERVAL, Column, Query, column, literal, name
from fleetmark_collector.grafana.queries.conditions import DEVICE, THESE_DEVICES
from fleetmark_collector.grafana.units import metric


def last_of_devices(
    *fields: str, measurement: str = "telemetry", where: Sequence[str] = THESE_DEVICES
) -> Query:
    """The last value of each field that each device has sent."""
    columns = tuple(column(field, "last") for field in fields)
    return Query(columns, measurement, tuple(where), by=DEVICE).named(*DEVICE)


def of_all_devices(
    expression: str, alias: str, field: str, measurement: str = "telemetry"
) -> Query:
    """One number out of the last values of all devices; the values are called `value`."""
    last = Query((column(field, "last", "value"),), measurement, THESE_DEVICES, by=DEVICE)
    return Query((Column(expression, alias),), last, alias=alias)


DEVICES_ONLINE = of_all_devices('sum("value")', "online", "online", "device")
DEVICES_OFFLINE = of_all_devices('count("value") - sum("value")', "offline", "online", "device")
DEVICES_THROTTLED = of_all_devices('sum("value")', "throttled", "throttled")
HOTTEST = of_all_devices('max("value")', "temperature_c", "temperature_c")
FULLEST_OUTBOX = of_all_devices('max("value")', "outbox_used_percent", "outbox_used_percent")
FULLEST_RAM = of_all_devices('max("value")', "mem_used_percent", "mem_used_percent")


def devices_over_time(field: str, function: str, measurement: str = "telemetry") -> Query:
    """A field of each device over time, one line a device."""
    query = Query((column(field, function),), measurement, THESE_DEVICES, by=DEVICE, every=INTERVAL)
    return query.named(*DEVICE)


def device_over_time(*fields: str, function: str = "mean") -> Query:
    """Several fields of one device over time, one line a field, called by its title."""
    columns = tuple(column(field, function, metric(field).title) for field in fields)
    return Query(columns, "telemetry", THESE_DEVICES, every=INTERVAL, alias="[[col]]")


def last_of_device(*fields: str, measurement: str = "telemetry") -> Query:
    """The last values of one device."""
    return Query(
        tuple(column(field, "last") for field in fields),
        measurement,
        THESE_DEVICES,
        alias="[[col]]",
    )


EVENTS = Query(
    tuple(map(column, ("fleet", "device", "severity", "code", "message"))),
    "event",
    (*THESE_DEVICES, f"{name('severity')} != {literal('info')}"),
    newest=100,
)
"""What devices warned of, the newest first."""

JOB_CHANGES = Query(
    (
        *map(column, ("job_id", "state", "attempt", "trials_recorded", "trials_planned")),
        *map(column, ("failure_code", "campaign_id")),
    ),
    "job",
    THESE_DEVICES,
    newest=200,
)
"""What became of the jobs of a device, the newest first."""

JOB_NOTES = Query((column("job_id"), column("state")), "job", THESE_DEVICES)
"""When jobs changed their state: the notes on a device's graphs."""
