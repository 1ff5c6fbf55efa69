"""How a collector does, by its own word."""

from collections.abc import Sequence
from dataclasses import replace

from fleetmark_collector.grafana.influxql import INTERVAL, Column, Query, column, name
from fleetmark_collector.grafana.queries.conditions import THIS_COLLECTOR


def last_of_collectors(field: str) -> Query:
    """What each collector says of itself now."""
    query = Query((column(field, "last"),), "collector", THIS_COLLECTOR, by=("collector",))
    return query.named("collector")


def collectors_over_time(*fields: str, function: str = "mean") -> Query:
    """What each collector says of itself, over time."""
    columns = tuple(column(field, function) for field in fields)
    query = Query(columns, "collector", THIS_COLLECTOR, by=("collector",), every=INTERVAL)
    return replace(query, alias="[[tag_collector]] · [[col]]")


def growth(
    *fields: str, alias: str = "", where: Sequence[str] = THIS_COLLECTOR, every: str = INTERVAL
) -> Query:
    """How much counters grew together; a collector that starts again counts from 0."""
    steps = Query(
        tuple(_step(field) for field in fields),
        "collector",
        tuple(where),
        by=("collector",),
        every=every,
    )
    total = " + ".join(f"sum({name(field)})" for field in fields)
    return Query((Column(total, alias or fields[0]),), steps, by=("collector",)).named("collector")


def growth_over_time(*fields: str) -> Query:
    """How much counters grew within each window."""
    columns = tuple(_step(field) for field in fields)
    query = Query(columns, "collector", THIS_COLLECTOR, by=("collector",), every=INTERVAL)
    return replace(query, alias="[[tag_collector]] · [[col]]")


def _step(counter: str) -> Column:
    """From one window to the next; where the counter began again, nothing."""
    return Column(f"non_negative_difference(last({name(counter)}))", counter)
