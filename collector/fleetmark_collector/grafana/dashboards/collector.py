"""The Collector dashboard: does the centre keep up, and does it lose nothing?"""

from fleetmark_collector.grafana.board import Board, Row
from fleetmark_collector.grafana.charts import lines, number, states
from fleetmark_collector.grafana.dashboards.words import ANY, AVAILABLE, CONNECTED
from fleetmark_collector.grafana.names import COLLECTOR
from fleetmark_collector.grafana.queries.collectors import (
    collectors_over_time,
    growth,
    growth_over_time,
    last_of_collectors,
)
from fleetmark_collector.grafana.units import COUNT, PER_SECOND, SECONDS
from fleetmark_collector.grafana.variables import collector

LAG = ((5.0, "yellow"), (30.0, "red"))
"""Seconds that the oldest waiting message waits: the store does not keep up."""

SLOW_WRITE = ((1.0, "yellow"), (5.0, "red"))
"""Seconds of one write; the store gives up after its `timeout_s`, 10 by default."""

QUEUE = ((1000.0, "yellow"), (2000.0, "red"))
"""Messages; at `ingest.queue_messages` (2000 by default) further ones are dropped."""

_NOW = Row(
    "Now",
    (
        number(
            "Records per second",
            "Written to the store and acknowledged, over the last ten seconds.",
            [last_of_collectors("records_per_s")],
            PER_SECOND,
            base="text",
            decimals=1,
            span=3,
        ),
        number(
            "Lag",
            "How long the oldest message that waits has waited.",
            [last_of_collectors("lag_s")],
            SECONDS,
            steps=LAG,
            decimals=1,
            span=3,
        ),
        number(
            "Store",
            "Whether the last write went through; while it does not, the devices keep what they "
            "have.",
            [last_of_collectors("store_available")],
            COUNT,
            meaning=AVAILABLE,
            span=3,
        ),
        number(
            "Broker",
            "Whether the collector is connected to the broker; while it is not, the devices keep "
            "what they have.",
            [last_of_collectors("broker_connected")],
            COUNT,
            meaning=CONNECTED,
            span=3,
        ),
        number(
            "Dead records",
            "Single records, within the time shown, that can never be written: see the dead-letter "
            "file.",
            [growth("records_dead")],
            COUNT,
            steps=ANY,
            span=3,
        ),
        number(
            "Dead messages",
            "Messages, within the time shown, that were not even a batch: see the dead-letter "
            "file.",
            [growth("messages_dead")],
            COUNT,
            steps=ANY,
            span=3,
        ),
        number(
            "Deferred records",
            "How often, within the time shown, the store took others of a write but not these: a "
            "limit of the database is reached. Their devices send them again.",
            [growth("records_deferred")],
            COUNT,
            steps=((1.0, "orange"),),
            span=3,
        ),
        number(
            "Devices known",
            "All that this collector has heard of since its state file was made.",
            [last_of_collectors("devices_known")],
            COUNT,
            base="text",
            span=3,
        ),
    ),
)

_FLOW = Row(
    "Flow",
    (
        lines(
            "Ingest rate",
            "Records written to the store and acknowledged per second.",
            [collectors_over_time("records_per_s")],
            PER_SECOND,
            floor=0,
        ),
        lines(
            "Messages received",
            "Data messages within each point; one carries many records.",
            [growth_over_time("messages")],
            COUNT,
            floor=0,
        ),
        lines(
            "Lag over time",
            "How long the oldest waiting message had waited, the highest of each point.",
            [collectors_over_time("lag_s", function="max")],
            SECONDS,
            steps=LAG,
            floor=0,
        ),
        lines(
            "Queue",
            "Messages that wait to be written, the highest of each point.",
            [collectors_over_time("queue_messages", function="max")],
            COUNT,
            steps=QUEUE,
            floor=0,
        ),
    ),
)

_STORE = Row(
    "Store",
    (
        lines(
            "Write latency, mean",
            "How long a write to the store took, mean of each ten seconds.",
            [collectors_over_time("write_s_mean")],
            SECONDS,
            steps=SLOW_WRITE,
            floor=0,
        ),
        lines(
            "Write latency, slowest",
            "The slowest write of each ten seconds.",
            [collectors_over_time("write_s_max", function="max")],
            SECONDS,
            steps=SLOW_WRITE,
            floor=0,
        ),
        states(
            "Store available",
            "When writes went through.",
            [collectors_over_time("store_available", function="min")],
            AVAILABLE,
            height=6,
        ),
        lines(
            "Devices online",
            "How many of the known devices are connected.",
            [collectors_over_time("devices_online", "devices_known", function="max")],
            COUNT,
            floor=0,
            calcs=("lastNotNull",),
            height=6,
        ),
    ),
)

_LOSS = Row(
    "What did not get through",
    (
        lines(
            "Dead letters",
            "Records and messages that can never be written, within each point. Each is in the "
            "dead-letter file with topic and reason.",
            [growth_over_time("records_dead", "messages_dead")],
            COUNT,
            floor=0,
            calcs=("max", "lastNotNull"),
        ),
        lines(
            "Dropped messages",
            "Not taken because the queue was full, within each point. Nothing is lost: their "
            "devices send them again.",
            [growth_over_time("messages_dropped")],
            COUNT,
            floor=0,
            calcs=("max", "lastNotNull"),
        ),
    ),
)

BOARD = Board(
    uid=COLLECTOR,
    title="Collector",
    description="Whether the centre keeps up: ingest rate, lag, store, dead letters.",
    rows=(_NOW, _FLOW, _STORE, _LOSS),
    variables=(collector(),),
    start="now-3h",
    refresh="30s",
)
