"""Panels of what is not one prompt alone: prompt lengths, clients, soaks, cold starts, money."""

from fleetmark_collector.grafana.board import Row
from fleetmark_collector.grafana.charts import bars, lines
from fleetmark_collector.grafana.dashboards.words import HOT
from fleetmark_collector.grafana.links import (
    campaign_of_series,
    device_of_row,
    device_of_series,
)
from fleetmark_collector.grafana.panels import Panel
from fleetmark_collector.grafana.queries.cells import (
    figure_of_cells,
    figure_with_suspects,
    figures_of_kind,
    of_kind,
    soaks_over_time,
)
from fleetmark_collector.grafana.tables import Shown, measured, rows
from fleetmark_collector.grafana.units import COUNT, PERCENT, metric, unit_of

_CELL = (
    Shown("device", "Device", links=(device_of_row(),)),
    Shown("backend", "Backend"),
    Shown("model", "Model"),
    Shown("quantization", "Quantization"),
    Shown("workload", "Workload"),
    Shown("options", "Options"),
)
_PLACE = (Shown("fleet", "Fleet"), Shown("campaign_id", "Campaign"))
_FIGURES = "Medians of each cell as the report computes them."


def _table(
    title: str, description: str, kind: str, columns: tuple[Shown, ...], sort_by: str
) -> Panel:
    """A row a cell; the first of the columns is what each of them has."""
    names = [one.name for one in columns]
    return rows(
        title,
        f"{description} {_FIGURES}",
        [figures_of_kind(kind, names[0], *names[1:])],
        [*_CELL, *columns, *_PLACE],
        sort_by=sort_by,
        height=9,
    )


def _bars(title: str, name: str, kind: str) -> Panel:
    found = metric(name)
    return bars(
        title,
        f"{found.description} {_FIGURES} An orange bar marks a cell that SUSPECT trials are "
        "part of.",
        figure_with_suspects(name, of_kind(kind)),
        unit_of(found),
        found.better,
        links=(device_of_series(), *campaign_of_series()),
    )


def _bound(name: str, end: str) -> Shown:
    """One end of the interval around a metric."""
    return Shown(f"{name}_{end}", {"low": "from", "high": "to"}[end], unit_of(metric(name)))


KINDS = (
    Row(
        "Prompt lengths",
        (
            _table(
                "Prompt lengths",
                "Each length of a context sweep, by the engine's own count of the prompt's tokens.",
                "context_sweep",
                (
                    Shown("prompt_tokens", "Prompt tokens", COUNT, decimals=0),
                    _bound("ttft_s", "low"),
                    measured("ttft_s", gauge=True),
                    _bound("ttft_s", "high"),
                    measured("prefill_tps"),
                    measured("decode_tps"),
                    measured("rss_bytes"),
                ),
                "Prompt tokens",
            ),
            _bars("TTFT by prompt length", "ttft_s", "context_sweep"),
            _bars("Prefill by prompt length", "prefill_tps", "context_sweep"),
        ),
    ),
    Row(
        "Clients at the same time",
        (
            _table(
                "Clients",
                "Each number of clients that asked at the same time; intervals resample whole "
                "rounds.",
                "concurrency",
                (
                    Shown("clients", "Clients", COUNT, decimals=0),
                    _bound("throughput_tps", "low"),
                    measured("throughput_tps", gauge=True),
                    _bound("throughput_tps", "high"),
                    measured("latency_s"),
                    measured("latency_p95_s"),
                    measured("ttft_s"),
                ),
                "Clients",
            ),
            _bars("Throughput by clients", "throughput_tps", "concurrency"),
            _bars("Latency (95th percentile) by clients", "latency_p95_s", "concurrency"),
        ),
    ),
    Row(
        "Soaks and cold starts",
        (
            _table(
                "Soaks",
                "Burst against sustained speed, and when the first request was slowed down by heat "
                "as far as the trials tell; a report also goes by the telemetry. Only soaks that "
                "are complete count.",
                "soak",
                (
                    measured("sustained_tps", gauge=True),
                    _bound("sustained_tps", "low"),
                    _bound("sustained_tps", "high"),
                    measured("burst_tps"),
                    measured("time_to_throttle_s"),
                ),
                "Device",
            ),
            _table(
                "Cold starts",
                "Every trial started its engine anew; how much of the weights was in the page "
                "cache then, decides how long that takes.",
                "coldstart",
                (
                    measured("latency_cold_s", gauge=True),
                    _bound("latency_cold_s", "low"),
                    _bound("latency_cold_s", "high"),
                    measured("load_s"),
                    measured("model_cached_percent"),
                ),
                "Device",
            ),
        ),
    ),
)

VALUE = rows(
    "Cost and value",
    f"What a request cost, and EQ with its interval. {_FIGURES} Cells that failed have none, and "
    "are not in this table.",
    [
        figure_of_cells(
            "cost_usd", "usd_per_hour", "eq_low", "eq", "eq_high", "eq_per_token"
        ).table()
    ],
    [
        *_CELL,
        Shown("usd_per_hour", "Price per hour", "currencyUSD"),
        measured("cost_usd"),
        _bound("eq", "low"),
        measured("eq", gauge=True),
        _bound("eq", "high"),
        measured("eq_per_token"),
        *_PLACE,
    ],
    sort_by=metric("eq").title,
    descending=True,
    height=9,
)

SOAKING = Row(
    "Soaks over time",
    (
        lines(
            "Speed during soaks",
            "Tokens per second of each request of a soak, complete or not; INVALID ones left out.",
            [soaks_over_time("decode_tps", "median")],
            unit_of(metric("decode_tps")),
            floor=0,
            calcs=("max", "min", "lastNotNull"),
        ),
        lines(
            "Temperature during soaks",
            "Highest temperature during each request of a soak, where the device has a sensor.",
            [soaks_over_time("temperature_c_max", "max")],
            unit_of(metric("temperature_c_max")),
            steps=HOT,
            calcs=("min", "max"),
        ),
    ),
)

REPETITIONS = rows(
    "Repetitions",
    "How often each cell was measured, by how many processes of its engine, and what adaptive "
    "repetitions were to reach: half the width of the latency's interval.",
    [figure_of_cells("repetitions", "processes", "half_width_percent", "target_percent").table()],
    [
        *_CELL,
        Shown("repetitions", "Repetitions", COUNT),
        Shown("processes", "Processes", COUNT),
        Shown("half_width_percent", "Reached (±)", PERCENT),
        Shown("target_percent", "Asked for (±)", PERCENT),
        *_PLACE,
    ],
    sort_by="Device",
    height=9,
)
