"""What each panel's title promises, said in Python over the records: no InfluxQL, no query of ours.

`MEANING` has, for every panel, one promise for each of its queries. A promise is a function of the
world and of what is chosen above the dashboard, and returns what the database should answer:

- for one value per series: tags -> column -> value;
- for values over time: tags -> column -> begin of the window in ms -> value;
- for a list of points: rows in order, the newest first unless the promise says otherwise.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

from fleetmark_collector.report.figures import counts_of, figures_of
from fleetmark_collector.sinks.influxdb.tags import options_text
from grafanarecords import ENERGY_SOURCES
from grafanaworld import Seen, World

Choice = Mapping[str, str]
Answer = Any
Promise = Callable[[World, Choice], Answer]

DEVICE = ("fleet", "device")
CELL = (*DEVICE, "campaign_id", "backend", "model", "quantization", "workload", "options")
COLLECTOR = ("collector",)
WINDOW_MS = 10_000

VARIABLE = {"campaign": "campaign_id"}
"""Variable -> tag, where the names differ."""


def key(tags: Mapping[str, str], by: Sequence[str]) -> frozenset[tuple[str, str]]:
    return frozenset((tag, tags.get(tag, "")) for tag in by)


def points(world: World, measurement: str, choice: Choice, where=None) -> list[Seen]:
    """The points of what is chosen, in order of time."""
    tags = {VARIABLE.get(name, name): value for name, value in choice.items()}
    return [
        one
        for one in world.points[measurement]
        if all(one.tags.get(tag, value) == value for tag, value in tags.items())
        and (where is None or where(one.fields))
    ]


def values(world, measurement, fields, choice, by, where=None) -> dict[Any, dict[str, list[Any]]]:
    """tags -> field -> the values there are, in order of time."""
    found: dict[Any, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for one in points(world, measurement, choice, where):
        for name in fields:
            if one.fields.get(name) is not None:
                found[key(one.tags, by)][name].append(one.fields[name])
    return found


def last(measurement: str, *fields: str, by: Sequence[str] = DEVICE, titles=None) -> Promise:
    """The last value of each field."""

    def promise(world: World, choice: Choice) -> Answer:
        found = values(world, measurement, fields, choice, by)
        return {
            tags: {(titles or {}).get(name, name): some[-1] for name, some in columns.items()}
            for tags, columns in found.items()
        }

    return promise


def of_last(measurement: str, field: str, made, name: str) -> Promise:
    """One number out of the last values of all devices."""

    def promise(world: World, choice: Choice) -> Answer:
        each = last(measurement, field)(world, choice)
        return {frozenset(): {name: made([columns[field] for columns in each.values()])}}

    return promise


def over_time(
    measurement: str,
    *fields: str,
    made,
    by: Sequence[str] = (),
    titles: Sequence[str] = (),
    where=None,
) -> Promise:
    """Fields within windows of ten seconds; windows without a value are left out."""
    names = dict(zip(fields, titles or fields, strict=True))

    def promise(world: World, choice: Choice) -> Answer:
        found: Any = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
        for one in points(world, measurement, choice, where):
            window = one.time_ns // 10**6 // WINDOW_MS * WINDOW_MS
            for name in fields:
                if one.fields.get(name) is not None:
                    found[key(one.tags, by)][names[name]][window].append(one.fields[name])
        return {
            tags: {
                name: {at: made(some) for at, some in windows.items()}
                for name, windows in columns.items()
            }
            for tags, columns in found.items()
        }

    return promise


def newest(
    measurements: str | Sequence[str], *columns: str, where=None, limit: int, up=False
) -> Promise:
    """Points one by one, the newest first."""
    sources = (measurements,) if isinstance(measurements, str) else measurements

    def promise(world: World, choice: Choice) -> Answer:
        rows = [
            {
                "time": one.time_ns // 10**6,
                **{name: one.tags.get(name, one.fields.get(name)) for name in columns},
            }
            for source in sources
            for one in sorted(
                points(world, source, choice, where), key=lambda one: one.time_ns, reverse=not up
            )[:limit]
            if any(one.fields.get(name) is not None for name in columns)
        ]
        return [
            {name: value for name, value in row.items() if value not in (None, "")} for row in rows
        ]

    return promise


# --- cells ------------------------------------------------------------------------------------


def counted(fields: Mapping[str, Any]) -> bool:
    """Trials that figures are made of."""
    return fields["verdict"] in ("VALID", "SUSPECT") and not fields["warmup"]


def doubted(fields: Mapping[str, Any]) -> bool:
    return fields["verdict"] == "SUSPECT" and not fields["warmup"]


def medians(*fields: str, which=counted, more=lambda fields: True) -> Promise:
    """The medians of trials, cell by cell."""

    def promise(world: World, choice: Choice) -> Answer:
        found = values(world, "trial", fields, choice, CELL, lambda one: which(one) and more(one))
        return {
            tags: {name: median(some) for name, some in columns.items()}
            for tags, columns in found.items()
        }

    return promise


def both(field: str, more=lambda fields: True) -> list[Promise]:
    """All that count, and those under suspicion alone."""
    return [medians(field, more=more), medians(field, which=doubted, more=more)]


def single(fields: Mapping[str, Any]) -> bool:
    return fields["workload_kind"] == "single"


def each_energy_source(field: str) -> list[Promise]:
    return [
        promise
        for source in ENERGY_SOURCES
        for promise in both(field, lambda fields, source=source: fields["energy_source"] == source)
    ]


def count_of(verdict: str | None) -> Promise:
    """How many trials of each cell had a verdict; None: how many count."""

    def wanted(fields: Mapping[str, Any]) -> bool:
        if verdict is None:
            return counted(fields)
        return fields["verdict"] == verdict and not fields["warmup"]

    def promise(world: World, choice: Choice) -> Answer:
        found = values(world, "trial", ("verdict",), choice, CELL, wanted)
        name = verdict or "trials"
        return {tags: {name: len(columns["verdict"])} for tags, columns in found.items()}

    return promise


def figure(field: str, *, only_suspect: bool = False, interval: bool = False) -> Promise:
    """A figure of each cell as the report computes it from the same records."""

    def promise(world: World, choice: Choice) -> Answer:
        found = {}
        for cell in world.cells:
            made, counts = figures_of(cell).get(field), counts_of(cell)
            if made is None or (only_suspect and not counts.suspect):
                continue
            columns = {field: made.median}
            if interval:
                columns["trials"] = counts.valid + counts.suspect + counts.invalid
                columns["trials_suspect"] = counts.suspect
                if made.low is not None:
                    columns |= {f"{field}_low": made.low, f"{field}_high": made.high}
            found[cell_key(world, cell)] = columns
        return found

    return promise


def cell_key(world: World, cell: Any) -> Any:
    tags = {
        **cell.config._asdict(),
        "quantization": cell.config.quantization or "",
        "campaign_id": world.campaign_id,
        "workload": cell.workload,
        "options": options_text(dict(cell.config.options)),
    }
    return key(tags, CELL)


def figures(field: str) -> list[Promise]:
    return [figure(field), figure(field, only_suspect=True)]


# --- counters ---------------------------------------------------------------------------------


def grown(*fields: str, name: str) -> Promise:
    """How much counters grew; where one fell, its collector had begun again."""

    def promise(world: World, choice: Choice) -> Answer:
        each = growth_over_time(*fields)(world, choice)
        return {
            tags: {name: sum(sum(windows.values()) for windows in columns.values())}
            for tags, columns in each.items()
        }

    return promise


def growth_over_time(*fields: str) -> Promise:
    """How much counters grew from one window to the next that has a value."""

    def promise(world: World, choice: Choice) -> Answer:
        found: Any = {}
        ends = over_time("collector", *fields, made=lambda some: some[-1], by=COLLECTOR)
        for tags, columns in ends(world, choice).items():
            found[tags] = {}
            for name, windows in columns.items():
                at = sorted(windows)
                found[tags][name] = {
                    end: windows[end] - windows[begin]
                    for begin, end in pairwise(at)
                    if windows[end] >= windows[begin]
                }
        return found

    return promise


def mean(some: Sequence[float]) -> float:
    return sum(some) / len(some)


def newest_of(some: Sequence[Any]) -> Any:
    return some[-1]


STATES = ("succeeded", "in_progress", "queued", "failed", "timed_out", "canceled", "rejected")
JOBS = tuple(f"jobs_{state}" for state in STATES)


def trials_with(verdict: str) -> Promise:
    def promise(world: World, choice: Choice) -> Answer:
        found = [
            one
            for one in points(world, "trial", choice)
            if one.fields["verdict"] == verdict and not one.fields["warmup"]
        ]
        return {frozenset(): {verdict: len(found)}} if found else {}

    return promise


MEANING: dict[tuple[str, str], list[Promise]] = {
    # --- Fleet
    ("Fleet", "Devices online"): [of_last("device", "online", sum, "online")],
    ("Fleet", "Devices offline"): [
        of_last("device", "online", lambda some: some.count(0), "offline")
    ],
    ("Fleet", "Devices throttled"): [of_last("telemetry", "throttled", sum, "throttled")],
    ("Fleet", "Hottest device"): [of_last("telemetry", "temperature_c", max, "temperature_c")],
    ("Fleet", "Fullest memory"): [
        of_last("telemetry", "mem_used_percent", max, "mem_used_percent")
    ],
    ("Fleet", "Fullest outbox"): [
        of_last("telemetry", "outbox_used_percent", max, "outbox_used_percent")
    ],
    ("Fleet", "Devices"): [
        last(
            "device",
            *("online", "silent_s", "agent_version", "board", "cores_logical", "mem_total_bytes"),
        ),
        last(
            "telemetry",
            *("cpu_percent", "mem_used_percent", "temperature_c", "throttled"),
            *("outbox_records", "outbox_used_percent"),
        ),
    ],
    ("Fleet", "Online"): [over_time("device", "online", made=newest_of, by=DEVICE)],
    ("Fleet", "Throttling"): [over_time("telemetry", "throttled", made=max, by=DEVICE)],
    ("Fleet", "Temperature"): [over_time("telemetry", "temperature_c", made=max, by=DEVICE)],
    ("Fleet", "Memory used"): [over_time("telemetry", "mem_used_percent", made=mean, by=DEVICE)],
    ("Fleet", "Outbox backlog"): [over_time("telemetry", "outbox_records", made=max, by=DEVICE)],
    ("Fleet", "Silence"): [over_time("device", "silent_s", made=max, by=DEVICE)],
    ("Fleet", "Agent versions"): [last("device", "agent_version")],
    ("Fleet", "Warnings and errors"): [
        newest(
            "event",
            *("fleet", "device", "severity", "code", "message"),
            where=lambda fields: fields["severity"] in ("warning", "error"),
            limit=100,
        )
    ],
    # --- Device
    ("Device", "Connection"): [last("device", "online", by=())],
    ("Device", "Last heard"): [last("device", "silent_s", by=())],
    ("Device", "Temperature now"): [last("telemetry", "temperature_c", by=())],
    ("Device", "Speed"): [last("telemetry", "throttled", by=())],
    ("Device", "Memory used now"): [last("telemetry", "mem_used_percent", by=())],
    ("Device", "Outbox used"): [last("telemetry", "outbox_used_percent", by=())],
    ("Device", "Agent"): [last("device", "agent_version", by=())],
    ("Device", "Board"): [last("device", "board", by=())],
    ("Device", "CPU"): [
        over_time(
            *("telemetry", "cpu_percent", "cpu_steal_percent"),
            made=mean,
            titles=("CPU", "CPU steal"),
        )
    ],
    ("Device", "CPU of the engine and the agent"): [
        over_time(
            *("telemetry", "backend_cpu_percent", "agent_cpu_percent"),
            made=mean,
            titles=("Backend CPU", "Agent CPU"),
        )
    ],
    ("Device", "Temperature"): [
        over_time("telemetry", "temperature_c", made=max, titles=("Temperature",))
    ],
    ("Device", "Frequency"): [
        over_time("telemetry", "cpu_freq_hz", made=mean, titles=("Frequency",))
    ],
    ("Device", "Throttling"): [
        over_time("telemetry", "throttled", made=max, titles=("Throttled",))
    ],
    ("Device", "Load"): [
        over_time(
            *("telemetry", "load_1m", "load_5m"), made=mean, titles=("Load 1 min", "Load 5 min")
        )
    ],
    ("Device", "Memory used"): [
        over_time("telemetry", "mem_used_percent", made=mean, titles=("RAM used",))
    ],
    ("Device", "Memory of the engine and the agent"): [
        over_time(
            *("telemetry", "rss_bytes", "rss_file_bytes", "pss_bytes", "agent_rss_bytes"),
            made=mean,
            titles=("RSS", "RSS file-backed", "PSS", "Agent RSS"),
        )
    ],
    ("Device", "Power"): [over_time("telemetry", "power_w", made=mean, titles=("Power",))],
    ("Device", "Swap"): [
        over_time(
            *("telemetry", "swap_used_bytes", "swap_in_bytes"),
            made=max,
            titles=("Swap used", "Swapped in"),
        )
    ],
    ("Device", "Outbox"): [over_time("telemetry", "outbox_records", made=max, titles=("Outbox",))],
    ("Device", "Disk and network"): [
        over_time(
            *("telemetry", "disk_read_bytes_per_s", "disk_write_bytes_per_s"),
            *("net_rx_bytes_per_s", "net_tx_bytes_per_s"),
            made=mean,
            titles=("Disk read", "Disk write", "Net in", "Net out"),
        )
    ],
    ("Device", "Jobs"): [
        newest(
            *("job", "job_id", "state", "attempt", "trials_recorded", "trials_planned"),
            *("failure_code", "campaign_id"),
            limit=200,
        )
    ],
    ("Device", "Warnings and errors"): [
        newest(
            "event",
            *("fleet", "device", "severity", "code", "message"),
            where=lambda fields: fields["severity"] in ("warning", "error"),
            limit=100,
        )
    ],
    # --- Compare
    ("Compare", "Cells"): [
        count_of(None),
        count_of("SUSPECT"),
        count_of("INVALID"),
        medians(
            *("latency_s", "ttft_s", "tpot_s", "decode_tps"),
            *("cpu_percent_mean", "mem_used_percent_mean"),
        ),
    ],
    ("Compare", "Single-prompt response time"): both("latency_s", single),
    ("Compare", "Multi-prompt session time"): figures("session_latency_s"),
    ("Compare", "Cold response time"): figures("latency_cold_s"),
    ("Compare", "Model load"): figures("load_s"),
    ("Compare", "Time to first token (TTFT)"): both("ttft_s"),
    ("Compare", "Time per output token (TPOT)"): both("tpot_s"),
    ("Compare", "Tokens per second, generating"): both("decode_tps"),
    ("Compare", "Tokens per second, reading the prompt"): both("prefill_tps"),
    ("Compare", "CPU of the machine"): both("cpu_percent_mean"),
    ("Compare", "CPU of the engine"): both("backend_cpu_percent_mean"),
    ("Compare", "Memory of the machine"): both("mem_used_percent_mean"),
    ("Compare", "Memory of the engine"): both("rss_bytes"),
    ("Compare", "Energy"): each_energy_source("energy_j"),
    ("Compare", "CO₂"): each_energy_source("co2_g"),
    ("Compare", "Cost"): both("cost_usd"),
    ("Compare", "EQ"): both("eq"),
    ("Compare", "EQ per token"): both("eq_per_token"),
    # --- Campaign
    ("Campaign", "Name"): [last("campaign", "name", by=())],
    ("Campaign", "Progress"): [last("campaign", "progress_percent", by=())],
    ("Campaign", "Failed jobs"): [last("campaign", "failed_percent", by=())],
    ("Campaign", "Trials"): [last("campaign", "trials", "trials_planned", by=())],
    ("Campaign", "Verdicts"): [trials_with(verdict) for verdict in ("VALID", "SUSPECT", "INVALID")],
    ("Campaign", "Jobs by state"): [last("campaign", *JOBS, by=())],
    ("Campaign", "Jobs by state over time"): [over_time("campaign", *JOBS, made=newest_of)],
    ("Campaign", "Progress over time"): [
        over_time("campaign", "progress_percent", "failed_percent", made=newest_of)
    ],
    ("Campaign", "Jobs"): [
        newest(
            *("job", "job_id", "state", "fleet", "device", "attempt", "trials_recorded"),
            *("trials_planned", "failure_code"),
            limit=1000,
        )
    ],
    ("Campaign", "Failures"): [
        newest(
            ("job", "load", "trial"),
            *("failure_code", "failure_message", "job_id", "fleet", "device"),
            where=lambda fields: fields["failure_code"] is not None,
            limit=200,
        )
    ],
    ("Campaign", "Doubtful trials"): [
        newest(
            *("trial", "verdict", "verdict_reasons", "fleet", "device", "backend", "model"),
            *("quantization", "workload", "trial_id"),
            where=lambda fields: fields["verdict"] != "VALID",
            limit=200,
        )
    ],
    ("Campaign", "Latency, with intervals"): [figure("latency_s", interval=True)],
    ("Campaign", "Session latency, with intervals"): [figure("session_latency_s", interval=True)],
    ("Campaign", "TTFT, with intervals"): [figure("ttft_s", interval=True)],
    ("Campaign", "Decode, with intervals"): [figure("decode_tps", interval=True)],
    # --- Collector
    ("Collector", "Records per second"): [last("collector", "records_per_s", by=COLLECTOR)],
    ("Collector", "Lag"): [last("collector", "lag_s", by=COLLECTOR)],
    ("Collector", "Store"): [last("collector", "store_available", by=COLLECTOR)],
    ("Collector", "Broker"): [last("collector", "broker_connected", by=COLLECTOR)],
    ("Collector", "Deferred records"): [grown("records_deferred", name="records_deferred")],
    ("Collector", "Dead records"): [grown("records_dead", name="records_dead")],
    ("Collector", "Dead messages"): [grown("messages_dead", name="messages_dead")],
    ("Collector", "Devices known"): [last("collector", "devices_known", by=COLLECTOR)],
    ("Collector", "Ingest rate"): [
        over_time("collector", "records_per_s", made=mean, by=COLLECTOR)
    ],
    ("Collector", "Messages received"): [growth_over_time("messages")],
    ("Collector", "Lag over time"): [over_time("collector", "lag_s", made=max, by=COLLECTOR)],
    ("Collector", "Queue"): [over_time("collector", "queue_messages", made=max, by=COLLECTOR)],
    ("Collector", "Write latency, mean"): [
        over_time("collector", "write_s_mean", made=mean, by=COLLECTOR)
    ],
    ("Collector", "Write latency, slowest"): [
        over_time("collector", "write_s_max", made=max, by=COLLECTOR)
    ],
    ("Collector", "Store available"): [
        over_time("collector", "store_available", made=min, by=COLLECTOR)
    ],
    ("Collector", "Devices online"): [
        over_time("collector", "devices_online", "devices_known", made=max, by=COLLECTOR)
    ],
    ("Collector", "Dead letters"): [growth_over_time("records_dead", "messages_dead")],
    ("Collector", "Dropped messages"): [growth_over_time("messages_dropped")],
}
