"""The figures of a study: one series a cell, and never two cells in one."""

from fleetmark_collector.grafana.influxql import INTERVAL, Query, column, literal, name
from fleetmark_collector.grafana.queries.conditions import (
    CELL,
    CELL_LABEL,
    COUNTED,
    NOT_WARMUP,
    THESE_CELLS,
)


def median_of_cells(field: str, *more: str, verdict: str = "", label: str = "") -> Query:
    """The median of a field over the counted trials of each cell.

    Args:
        field: of a trial.
        more: further conditions.
        verdict: only trials of this verdict; else all that are not INVALID.
        label: added to the name of each cell.
    """
    which = (f"{name('verdict')} = {literal(verdict)}", NOT_WARMUP) if verdict else COUNTED
    query = Query((column(field, "median"),), "trial", (*THESE_CELLS, *which, *more), by=CELL)
    return query.named(*CELL_LABEL, suffix=label)


def with_suspects(field: str, *more: str, label: str = "") -> tuple[Query, Query]:
    """The medians of all cells, and marked beside them those of SUSPECT trials alone."""
    return (
        median_of_cells(field, *more, label=label),
        median_of_cells(field, *more, verdict="SUSPECT", label=f"{label} · SUSPECT alone"),
    )


ENERGY_SOURCES = ("meter", "pmic", "rapl", "nvml", "model")
"""Each is a line of its own: what a meter measured and what a model estimates have no common
median."""


def by_energy_source(field: str) -> tuple[Query, ...]:
    """The medians apart by where the energy was taken from, SUSPECT trials marked."""
    return tuple(
        query
        for source in ENERGY_SOURCES
        for query in with_suspects(
            field, f"{name('energy_source')} = {literal(source)}", label=f" · {source}"
        )
    )


SINGLE = f"{name('workload_kind')} = {literal('single')}"


def figure_of_cells(field: str, *others: str, more: str = "", label: str = "") -> Query:
    """A figure that the report's own code computed for each cell that has it.

    Args:
        field: the metric.
        others: shown with it.
        more: a further condition, or several.
        label: added to the name of each cell.
    """
    picked = tuple(column(one, "last") for one in (field, *others))
    where = (*THESE_CELLS, f"{name(field)} >= 0", *([more] if more else []))
    return Query(picked, "cell", where, by=CELL).named(*CELL_LABEL, suffix=label)


def figures_of_kind(kind: str, field: str, *others: str) -> Query:
    """The figures of the cells of one kind of workload, one row a cell."""
    return figure_of_cells(field, *others, more=of_kind(kind)).table()


def of_kind(kind: str) -> str:
    """Only one kind of workload."""
    return f"{name('workload_kind')} = {literal(kind)}"


def soaks_over_time(field: str, function: str) -> Query:
    """A field of the requests of each soak, as time went by."""
    where = (*THESE_CELLS, *COUNTED, of_kind("soak"))
    query = Query((column(field, function),), "trial", where, by=CELL, every=INTERVAL)
    return query.named(*CELL_LABEL)


def figure_with_suspects(field: str, *more: str) -> tuple[Query, Query]:
    """The figures of all cells, and marked again those that SUSPECT trials are part of."""
    doubted = f"{name('trials_suspect')} > 0"
    return (
        figure_of_cells(field, more=" AND ".join(more)),
        figure_of_cells(field, more=" AND ".join((*more, doubted)), label=" · with SUSPECT trials"),
    )


def interval_of_cells(field: str) -> Query:
    """A figure with the interval around it, and how many trials are behind it."""
    return figure_of_cells(
        field, f"{field}_low", f"{field}_high", "trials", "trials_suspect"
    ).table()


CELL_COUNTS = Query(
    (column("verdict", "count", "trials"),), "trial", (*THESE_CELLS, *COUNTED), by=CELL
).table()


def verdict_counts(verdict: str) -> Query:
    """How many trials of each cell had a verdict."""
    where = (*THESE_CELLS, f"{name('verdict')} = {literal(verdict)}", NOT_WARMUP)
    return Query((column("verdict", "count", verdict),), "trial", where, by=CELL).table()


CELL_MEDIANS = Query(
    tuple(
        column(field, "median")
        for field in ("latency_s", "ttft_s", "tpot_s", "decode_tps", "cpu_percent_mean")
    )
    + (column("mem_used_percent_mean", "median"),),
    "trial",
    (*THESE_CELLS, *COUNTED),
    by=CELL,
).table()
