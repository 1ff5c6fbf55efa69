"""The Fleet dashboard: who is there, and who is not well."""

from fleetmark_collector.grafana.board import Board, Row
from fleetmark_collector.grafana.charts import lines, number, states
from fleetmark_collector.grafana.dashboards.words import (
    ANY,
    BACKLOG,
    FULL,
    HOT,
    ONLINE,
    SEVERITIES,
    SILENCE,
    THROTTLED,
)
from fleetmark_collector.grafana.links import device_of_row, device_of_series
from fleetmark_collector.grafana.names import FLEET
from fleetmark_collector.grafana.queries.devices import (
    DEVICES_OFFLINE,
    DEVICES_ONLINE,
    DEVICES_THROTTLED,
    EVENTS,
    FULLEST_OUTBOX,
    FULLEST_RAM,
    HOTTEST,
    devices_over_time,
    last_of_devices,
)
from fleetmark_collector.grafana.tables import Shown, count_of_each, measured, rows
from fleetmark_collector.grafana.units import COUNT, PERCENT, SECONDS, metric, unit_of
from fleetmark_collector.grafana.variables import device, fleet

_TO_DEVICE = (device_of_row(),)
_SERIES_TO_DEVICE = (device_of_series(),)

_NOW = Row(
    "Now",
    (
        number(
            "Devices online",
            "Devices whose last status says that their agent is connected.",
            [DEVICES_ONLINE],
            COUNT,
        ),
        number(
            "Devices offline",
            "Devices that said goodbye, or whose broker noticed that they are gone. The alert "
            "“Device silent” tells of those that stay away.",
            [DEVICES_OFFLINE],
            COUNT,
            steps=ANY,
        ),
        number(
            "Devices throttled",
            "Devices whose last sample says that their processor is slowed down by heat or by its "
            "supply. What they measure now is not worth comparing.",
            [DEVICES_THROTTLED],
            COUNT,
            steps=ANY,
        ),
        number(
            "Hottest device",
            "The highest of the devices' last temperatures. A Raspberry Pi slows down from 80 °C.",
            [HOTTEST],
            unit_of(metric("temperature_c")),
            steps=HOT,
            decimals=1,
        ),
        number(
            "Fullest memory",
            "The highest share of memory in use among the devices' last samples.",
            [FULLEST_RAM],
            PERCENT,
            steps=FULL,
            decimals=1,
        ),
        number(
            "Fullest outbox",
            "The highest share of an outbox's cap in use: what waits on the device to be "
            "delivered. From 90 % on, old telemetry is thinned.",
            [FULLEST_OUTBOX],
            PERCENT,
            steps=BACKLOG,
            decimals=1,
        ),
        rows(
            "Devices",
            "The last that is known of each device; a column stays empty where a device has no "
            "such sensor. The name leads to the device.",
            [
                last_of_devices(
                    "online",
                    "silent_s",
                    "agent_version",
                    "board",
                    "cores_logical",
                    "mem_total_bytes",
                    measurement="device",
                ),
                last_of_devices(
                    "cpu_percent",
                    "mem_used_percent",
                    "temperature_c",
                    "throttled",
                    "outbox_records",
                    "outbox_used_percent",
                ),
            ],
            [
                Shown("device", "Device", links=_TO_DEVICE),
                Shown("fleet", "Fleet"),
                Shown("online", "Online", meaning=ONLINE),
                Shown("silent_s", "Last heard", SECONDS, 0, steps=SILENCE),
                measured("cpu_percent"),
                measured("mem_used_percent", steps=FULL),
                measured("temperature_c", steps=HOT),
                Shown("throttled", metric("throttled").title, meaning=THROTTLED),
                measured("outbox_records"),
                measured("outbox_used_percent", steps=BACKLOG),
                Shown("agent_version", "Agent"),
                Shown("board", "Board"),
                Shown("cores_logical", "Cores"),
                measured("mem_total_bytes"),
            ],
            sort_by="Device",
            height=12,
        ),
    ),
)

_OVER_TIME = Row(
    "Over time",
    (
        states(
            "Online",
            "When each device was connected, as the collector saw it.",
            [devices_over_time("online", "last", "device")],
            ONLINE,
            links=_SERIES_TO_DEVICE,
        ),
        states(
            "Throttling",
            "When the firmware or the kernel of a device said that the processor was slowed down. "
            "Devices that do not say are missing here.",
            [devices_over_time("throttled", "max")],
            THROTTLED,
            links=_SERIES_TO_DEVICE,
        ),
        lines(
            "Temperature",
            "The hottest CPU or SoC sensor of each device, the highest sample of each point.",
            [devices_over_time("temperature_c", "max")],
            unit_of(metric("temperature_c")),
            steps=HOT,
            links=_SERIES_TO_DEVICE,
        ),
        lines(
            "Memory used",
            "Share of each device's memory that could not be had without swapping.",
            [devices_over_time("mem_used_percent", "mean")],
            PERCENT,
            steps=FULL,
            floor=0,
            ceiling=100,
            links=_SERIES_TO_DEVICE,
        ),
        lines(
            "Outbox backlog",
            "Records on each device that are not acknowledged yet. A line that rises says that the "
            "device, the broker or the collector does not keep up; nothing is lost below the cap.",
            [devices_over_time("outbox_records", "max")],
            COUNT,
            floor=0,
            calcs=("lastNotNull", "max"),
            links=_SERIES_TO_DEVICE,
        ),
        lines(
            "Silence",
            "How long ago the collector last heard from each device.",
            [devices_over_time("silent_s", "max", "device")],
            SECONDS,
            steps=SILENCE,
            floor=0,
            calcs=("lastNotNull", "max"),
            links=_SERIES_TO_DEVICE,
        ),
    ),
)

_MORE = Row(
    "Versions and events",
    (
        rows(
            "Agent versions",
            "How many devices run each version of the agent.",
            [last_of_devices("agent_version", measurement="device")],
            [Shown("agent_version", "Agent"), Shown("device (count)", "Devices")],
            transformations=(count_of_each("agent_version", "device"),),
            span=8,
        ),
        rows(
            "Warnings and errors",
            "What devices warned of, the newest first: thinned telemetry, interrupted jobs, a "
            "damaged outbox.",
            [EVENTS],
            [
                Shown("fleet", "Fleet"),
                Shown("device", "Device", links=_TO_DEVICE),
                Shown("severity", "Severity", meaning=SEVERITIES),
                Shown("code", "Code"),
                Shown("message", "Message"),
            ],
            with_time=True,
            span=16,
        ),
    ),
)

BOARD = Board(
    uid=FLEET,
    title="Fleet",
    description="Who is online, who is hot, throttled, short of memory or behind with delivering.",
    rows=(_NOW, _OVER_TIME, _MORE),
    variables=(fleet(), device()),
    start="now-1h",
    refresh="30s",
)
