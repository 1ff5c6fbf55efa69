"""What the alert rules ask: the same quantities, of everybody, whatever a dashboard shows."""

from dataclasses import replace

from fleetmark_collector.grafana.influxql import Query, column
from fleetmark_collector.grafana.queries.collectors import growth
from fleetmark_collector.grafana.queries.devices import last_of_devices

SILENT = last_of_devices("silent_s", measurement="device", where=())
THROTTLING = replace(last_of_devices(where=()), columns=(column("throttled", "max"),))
OUTBOX = last_of_devices("outbox_used_percent", where=())
DEAD_LETTERS = growth("records_dead", "messages_dead", alias="dead", where=(), every="10s")
FAILING = Query((column("failed_percent", "last"),), "campaign", by=("campaign_id",)).named(
    "campaign_id"
)
"""A campaign that has ended is observed once more, at its end, so it fires no longer after that."""
