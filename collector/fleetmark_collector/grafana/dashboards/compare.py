"""The Compare dashboard: the figures of a study, cell beside cell, and never two cells in one."""

from collections.abc import Sequence

from fleetmark_collector.grafana.board import Board, Row
from fleetmark_collector.grafana.charts import bars
from fleetmark_collector.grafana.dashboards.kinds import KINDS, VALUE
from fleetmark_collector.grafana.dashboards.words import SUSPECT
from fleetmark_collector.grafana.influxql import Query
from fleetmark_collector.grafana.links import (
    campaign_of_series,
    device_of_row,
    device_of_series,
    this_campaign,
)
from fleetmark_collector.grafana.names import COMPARE
from fleetmark_collector.grafana.panels import Panel
from fleetmark_collector.grafana.queries.cells import (
    CELL_COUNTS,
    CELL_MEDIANS,
    SINGLE,
    by_energy_source,
    figure_with_suspects,
    verdict_counts,
    with_suspects,
)
from fleetmark_collector.grafana.tables import Shown, measured, rows
from fleetmark_collector.grafana.units import COUNT, metric, unit_of
from fleetmark_collector.grafana.variables import of_cells

_MEDIAN = (
    "Median over the trials of each cell that are not INVALID, warm-ups left out; an orange bar is "
    "the median of the cell's SUSPECT trials alone."
)
_FIGURE = (
    "The report's own figure of each cell; an orange bar marks a cell that SUSPECT trials are part "
    "of."
)


def _bars(title: str, what: str, queries: Sequence[Query], name: str, how: str = _MEDIAN) -> Panel:
    found = metric(name)
    return bars(
        title,
        f"{what} {how}",
        queries,
        unit_of(found),
        found.better,
        links=(device_of_series(), *campaign_of_series()),
    )


def _trials(name: str, title: str = "") -> Panel:
    """A metric of trials, under its own title, unit and description."""
    found = metric(name)
    return _bars(title or found.title, found.description, with_suspects(name), name)


_CELLS = rows(
    "Cells",
    "Every cell with its medians and with how many trials stand behind them. INVALID trials are in "
    "no figure, only in their own column; SUSPECT ones are in the figures, and to be read with "
    "care. A trial that a later attempt of its job measured again counts twice here, once in the "
    "report.",
    [CELL_COUNTS, verdict_counts("SUSPECT"), verdict_counts("INVALID"), CELL_MEDIANS],
    [
        Shown("device", "Device", links=(device_of_row(),)),
        Shown("backend", "Backend"),
        Shown("model", "Model"),
        Shown("quantization", "Quantization"),
        Shown("workload", "Workload"),
        Shown("options", "Options"),
        Shown("trials", "Trials", COUNT),
        Shown("SUSPECT", "SUSPECT", COUNT, steps=SUSPECT),
        Shown("INVALID", "INVALID (left out)", COUNT, steps=SUSPECT),
        measured("latency_s", gauge=True),
        measured("ttft_s"),
        measured("tpot_s"),
        measured("decode_tps", gauge=True),
        measured("cpu_percent_mean"),
        measured("mem_used_percent_mean"),
        Shown("fleet", "Fleet"),
        Shown("campaign_id", "Campaign"),
    ],
    sort_by="Device",
    height=12,
)

BOARD = Board(
    uid=COMPARE,
    title="Compare",
    description="The cells of a campaign side by side: response time, tokens, CPU, memory, energy, "
    "cost. A cell is one device, backend, model, quantization, set of options and workload.",
    rows=(
        Row("Cells", (_CELLS,)),
        Row(
            "Response time",
            (
                _bars(
                    "Single-prompt response time",
                    metric("latency_s").description,
                    with_suspects("latency_s", SINGLE),
                    "latency_s",
                ),
                _bars(
                    "Multi-prompt session time",
                    metric("session_latency_s").description,
                    figure_with_suspects("session_latency_s"),
                    "session_latency_s",
                    _FIGURE,
                ),
                _bars(
                    "Cold response time",
                    metric("latency_cold_s").description,
                    figure_with_suspects("latency_cold_s"),
                    "latency_cold_s",
                    _FIGURE,
                ),
                _bars(
                    "Model load",
                    metric("load_s").description,
                    figure_with_suspects("load_s"),
                    "load_s",
                    _FIGURE,
                ),
            ),
        ),
        Row(
            "Tokens",
            (
                _trials("ttft_s", "Time to first token (TTFT)"),
                _trials("tpot_s", "Time per output token (TPOT)"),
                _trials("decode_tps", "Tokens per second, generating"),
                _trials("prefill_tps", "Tokens per second, reading the prompt"),
            ),
        ),
        Row(
            "Machine",
            (
                _trials("cpu_percent_mean", "CPU of the machine"),
                _trials("backend_cpu_percent_mean", "CPU of the engine"),
                _trials("mem_used_percent_mean", "Memory of the machine"),
                _trials("rss_bytes", "Memory of the engine"),
            ),
        ),
        *KINDS,
        Row(
            "Energy and cost, where the records carry them",
            (
                _bars(
                    "Energy",
                    "Of the trial's window, apart by where it was taken from: what a meter "
                    "measured and what a model estimates are not compared.",
                    by_energy_source("energy_j"),
                    "energy_j",
                ),
                _bars("CO₂", metric("co2_g").description, by_energy_source("co2_g"), "co2_g"),
                _trials("cost_usd"),
                _trials("eq"),
                _trials("eq_per_token"),
                VALUE,
            ),
        ),
    ),
    variables=tuple(of_cells()),
    start="now-1y",
    refresh="1m",
    links=tuple(this_campaign()[:1]),
)
