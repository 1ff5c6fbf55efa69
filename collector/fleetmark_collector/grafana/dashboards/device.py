"""The Device dashboard: one machine over time, with its jobs marked on every graph."""

from fleetmark_collector.grafana.board import Board, Notes, Row
from fleetmark_collector.grafana.charts import lines, number, states
from fleetmark_collector.grafana.dashboards.words import (
    BACKLOG,
    FULL,
    HOT,
    JOB_STATES,
    ONLINE,
    SEVERITIES,
    SILENCE,
    THROTTLED,
)
from fleetmark_collector.grafana.links import campaign_of_row
from fleetmark_collector.grafana.names import DEVICE
from fleetmark_collector.grafana.queries.devices import (
    EVENTS,
    JOB_CHANGES,
    JOB_NOTES,
    device_over_time,
    last_of_device,
)
from fleetmark_collector.grafana.tables import Shown, rows
from fleetmark_collector.grafana.units import COUNT, PERCENT, SECONDS, TEXT, metric, unit_of
from fleetmark_collector.grafana.variables import device, fleet

_NOW = Row(
    "Now",
    (
        number(
            "Connection",
            "Whether the agent is connected, by its last status.",
            [last_of_device("online", measurement="device")],
            COUNT,
            meaning=ONLINE,
            span=3,
        ),
        number(
            "Last heard",
            "How long ago the collector heard from the device.",
            [last_of_device("silent_s", measurement="device")],
            SECONDS,
            steps=SILENCE,
            decimals=0,
            span=3,
        ),
        number(
            "Temperature now",
            "The last sample of the hottest CPU or SoC sensor.",
            [last_of_device("temperature_c")],
            unit_of(metric("temperature_c")),
            steps=HOT,
            decimals=1,
            span=3,
        ),
        number(
            "Speed",
            "Whether the processor is slowed down by heat or by its supply, by the last sample.",
            [last_of_device("throttled")],
            COUNT,
            meaning=THROTTLED,
            span=3,
        ),
        number(
            "Memory used now",
            "The last sample: the share that could not be had without swapping.",
            [last_of_device("mem_used_percent")],
            PERCENT,
            steps=FULL,
            decimals=1,
            span=3,
        ),
        number(
            "Outbox used",
            "How much of its cap the outbox holds, by the last sample.",
            [last_of_device("outbox_used_percent")],
            PERCENT,
            steps=BACKLOG,
            decimals=1,
            span=3,
        ),
        number(
            "Agent",
            "The version of fleetmark on the device.",
            [last_of_device("agent_version", measurement="device")],
            TEXT,
            base="text",
            span=3,
        ),
        number(
            "Board",
            "What the machine calls itself.",
            [last_of_device("board", measurement="device")],
            TEXT,
            base="text",
            span=3,
        ),
    ),
)

_PROCESSOR = Row(
    "Processor",
    (
        lines(
            "CPU",
            "Use of the whole machine, and what a hypervisor took from it.",
            [device_over_time("cpu_percent", "cpu_steal_percent")],
            PERCENT,
            floor=0,
            ceiling=100,
        ),
        lines(
            "CPU of the engine and the agent",
            "Of the backend's process tree, while one runs, and of fleetmark's own process; "
            "100 % is one core.",
            [device_over_time("backend_cpu_percent", "agent_cpu_percent")],
            PERCENT,
            floor=0,
        ),
        lines(
            "Temperature",
            "The hottest CPU or SoC sensor, the highest sample of each point.",
            [device_over_time("temperature_c", function="max")],
            unit_of(metric("temperature_c")),
            steps=HOT,
        ),
        lines(
            "Frequency",
            "Mean over the cores. A line that falls during a job is what throttling looks like.",
            [device_over_time("cpu_freq_hz")],
            unit_of(metric("cpu_freq_hz")),
            floor=0,
            calcs=("min", "mean", "max"),
        ),
        states(
            "Throttling",
            "When the processor was slowed down, by the firmware's or the kernel's word.",
            [device_over_time("throttled", function="max")],
            THROTTLED,
            height=5,
        ),
        lines(
            "Load",
            "Load averages over one and five minutes.",
            [device_over_time("load_1m", "load_5m")],
            COUNT,
            floor=0,
            height=5,
        ),
    ),
)

_MEMORY = Row(
    "Memory, power, delivery",
    (
        lines(
            "Memory used",
            "Share of the machine's memory that could not be had without swapping.",
            [device_over_time("mem_used_percent")],
            PERCENT,
            steps=FULL,
            floor=0,
            ceiling=100,
        ),
        lines(
            "Memory of the engine and the agent",
            "Resident and proportional size of the backend's process tree, while one runs, with "
            "the part that is memory-mapped weights; and fleetmark's own process.",
            [device_over_time("rss_bytes", "rss_file_bytes", "pss_bytes", "agent_rss_bytes")],
            unit_of(metric("rss_bytes")),
            floor=0,
            calcs=("max",),
        ),
        lines(
            "Power",
            "Of the board or the processor package; the device's inventory says which sensor.",
            [device_over_time("power_w")],
            unit_of(metric("power_w")),
            floor=0,
        ),
        lines(
            "Swap",
            "Swap in use, and what was swapped in. While an engine runs, any of it makes its "
            "trials SUSPECT.",
            [device_over_time("swap_used_bytes", "swap_in_bytes", function="max")],
            unit_of(metric("swap_used_bytes")),
            floor=0,
            calcs=("max",),
        ),
        lines(
            "Outbox",
            "Records on the device that are not acknowledged yet.",
            [device_over_time("outbox_records", function="max")],
            COUNT,
            floor=0,
            calcs=("lastNotNull", "max"),
        ),
        lines(
            "Disk and network",
            "Bytes per second of all disks, and of all interfaces but loopback.",
            [
                device_over_time(
                    "disk_read_bytes_per_s",
                    "disk_write_bytes_per_s",
                    "net_rx_bytes_per_s",
                    "net_tx_bytes_per_s",
                )
            ],
            unit_of(metric("disk_read_bytes_per_s")),
            floor=0,
        ),
    ),
)

_JOBS = Row(
    "Jobs and events",
    (
        rows(
            "Jobs",
            "What became of this device's jobs, the newest first. The campaign leads to its "
            "dashboard.",
            [JOB_CHANGES],
            [
                Shown("campaign_id", "Campaign", links=campaign_of_row()),
                Shown("job_id", "Job"),
                Shown("state", "State", meaning=JOB_STATES),
                Shown("attempt", "Attempt"),
                Shown("trials_recorded", "Trials recorded"),
                Shown("trials_planned", "Trials planned"),
                Shown("failure_code", "Failure"),
            ],
            with_time=True,
            span=14,
        ),
        rows(
            "Warnings and errors",
            "What this device warned of, the newest first.",
            [EVENTS],
            [
                Shown("severity", "Severity", meaning=SEVERITIES),
                Shown("code", "Code"),
                Shown("message", "Message"),
            ],
            with_time=True,
            span=10,
        ),
    ),
)

BOARD = Board(
    uid=DEVICE,
    title="Device",
    description="One device over time: CPU, memory, temperature, frequency, power, with its jobs.",
    rows=(_NOW, _PROCESSOR, _MEMORY, _JOBS),
    variables=(fleet(many=False), device(many=False)),
    start="now-6h",
    refresh="30s",
    notes=(Notes("Jobs", JOB_NOTES, text="job_id", tags="state", color="blue"),),
)
