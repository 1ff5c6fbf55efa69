"""The plots of a report as plain Plotly figures; the page itself sees to its theme's colours."""

import html
from collections.abc import Iterator, Sequence
from typing import Any

from fleetmark_collector.report.cells import Cell, verdict_of
from fleetmark_collector.report.labels import clean
from fleetmark_collector.report.model import CellReport
from fleetmark_collector.report.statistics import Pair
from fleetmark_protocol.metrics import METRICS
from fleetmark_protocol.records import Verdict

Figure = dict[str, Any]
"""`id`, `title`, `note`, `wide`, and Plotly's `data` and `layout`."""

STRIPS = ("ttft_s", "tpot_s", "prefill_tps", "decode_tps", "backend_cpu_percent_mean", "energy_j")
MEMORY = ("rss_bytes", "pss_bytes")

# Mid tones: readable on white as on near-black, and told apart by most colour-blind readers.
PALETTE = (
    "#3b7dd8", "#d9822b", "#2f9e76", "#b45cc0", "#c94f5d", "#7a8a2e", "#3aa3b5", "#8a6d5b",
)  # fmt: skip

ROW_PX = 38


def plots(number: int, cells: Sequence[CellReport]) -> list[Figure]:
    """Return the plots of one workload.

    Args:
        number: of the workload, for the ids.
        cells: all of the workload; those without figures keep their place.
    """
    if not any(cell.figures for cell in cells):
        return []
    headline = cells[0].headline
    names = [n for n in (headline, *STRIPS) if any(n in cell.figures for cell in cells)]
    figures = [_strip(cells, names[0]) if names else None, _speed_up(cells, headline)]
    figures += [_strip(cells, name) for name in names[1:]]
    figures += [_memory(cells), _over_time(cells, headline)]
    found = [figure for figure in figures if figure is not None]
    for position, figure in enumerate(found):
        figure["id"] = f"plot-{number}-{position}"
    return found


def text(label: str) -> str:
    """Return a label as Plotly may have it: it would take tags in texts for its own."""
    return html.escape(clean(label))


def _strip(cells: Sequence[CellReport], name: str) -> Figure:
    """Every trial as a point, the median with its interval on top."""
    metric = METRICS[name]
    data: list[dict[str, Any]] = []
    for row, cell in enumerate(cells):
        values = cell.cell.values(name)
        figure = cell.figures.get(name)
        if figure is None:
            continue
        suspect = _suspect(cell.cell)
        places = list(values)
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [values[place] * metric.display_scale for place in places],
                "y": [row + _jitter(index) for index in range(len(places))],
                "marker": {
                    "color": _color(row),
                    "size": 6,
                    "opacity": 0.45,
                    "symbol": ["circle-open" if p in suspect else "circle" for p in places],
                },
                "text": [_where(place, cell, place in suspect) for place in places],
                "hovertemplate": f"%{{x:.4g}} {metric.shown_unit}<br>%{{text}}<extra></extra>",
                "showlegend": False,
            }
        )
        scale = metric.display_scale
        bars = figure.low is not None and figure.high is not None
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [figure.median * scale],
                "y": [row],
                "marker": {"color": _color(row), "size": 11, "symbol": "diamond"},
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [((figure.high or 0) - figure.median) * scale] if bars else [0],
                    "arrayminus": [(figure.median - (figure.low or 0)) * scale] if bars else [0],
                    "color": _color(row),
                    "thickness": 2.5,
                    "width": 7,
                    "visible": bars,
                },
                "hovertemplate": f"{text(cell.short)}<br>median %{{x:.4g}} {metric.shown_unit}"
                "<extra></extra>",
                "showlegend": False,
            }
        )
    better = {"lower": "less is better", "higher": "more is better", "neither": ""}[metric.better]
    return {
        "title": f"{metric.title} ({metric.shown_unit})",
        "note": better,
        "wide": False,
        "data": data,
        "layout": _rows_layout(cells, rangemode="tozero"),
    }


def _speed_up(cells: Sequence[CellReport], name: str) -> Figure | None:
    """Ratios against the baseline; 1 is the baseline itself."""
    shown = [
        (row, cell, cell.versus.comparisons[name])
        for row, cell in enumerate(cells)
        if cell.versus is not None and name in cell.versus.comparisons
    ]
    if not shown:
        return None
    ratios = [comparison.gain for _, _, comparison in shown]
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": [gain.ratio for gain in ratios],
            "y": [row for row, _, _ in shown],
            "marker": {
                "color": [_color(row) for row, _, _ in shown],
                "size": 11,
                "symbol": "diamond",
            },
            "error_x": {
                "type": "data",
                "symmetric": False,
                "array": [0 if g.high is None else g.high - g.ratio for g in ratios],
                "arrayminus": [0 if g.low is None else g.ratio - g.low for g in ratios],
                "thickness": 2.5,
                "width": 7,
                "color": "#8a8f98",
            },
            "text": [f"{text(cell.short)}<br>{one.outcome.value}" for _, cell, one in shown],
            "hovertemplate": "%{x:.3f}x<br>%{text}<extra></extra>",
            "showlegend": False,
        }
    ]
    layout = _rows_layout(cells, rangemode="tozero")
    layout["shapes"] = [
        {
            "type": "line",
            "x0": 1,
            "x1": 1,
            "yref": "paper",
            "y0": 0,
            "y1": 1,
            "line": {"dash": "dot", "width": 1.5, "color": "#8a8f98"},
        }
    ]
    return {
        "title": f"Speed-up in {METRICS[name].title.lower()} (x)",
        "note": "right of the dotted line is faster than the baseline; an interval that crosses "
        "it shows no difference",
        "wide": False,
        "data": data,
        "layout": layout,
    }


def _memory(cells: Sequence[CellReport]) -> Figure | None:
    data: list[dict[str, Any]] = []
    named: list[str] = []
    for position, name in enumerate(MEMORY):
        metric = METRICS[name]
        rows = [(row, c.figures[name]) for row, c in enumerate(cells) if name in c.figures]
        if rows:
            named.append(metric.title)
            data.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "name": metric.title,
                    "x": [figure.median * metric.display_scale for _, figure in rows],
                    "y": [row for row, _ in rows],
                    "marker": {
                        "color": [_color(row) for row, _ in rows],
                        "opacity": 1 - 0.45 * position,
                    },
                    "hovertemplate": f"{metric.title} %{{x:.1f}} {metric.shown_unit}"
                    "<extra></extra>",
                    "showlegend": False,
                }
            )
    if not data:
        return None
    layout = _rows_layout(cells, rangemode="tozero")
    layout |= {"barmode": "group", "bargap": 0.35}
    return {
        "title": f"Memory peak ({METRICS[MEMORY[0]].shown_unit})",
        "note": f"{', pale: '.join(named)}; medians of the trials' peaks",
        "wide": False,
        "data": data,
        "layout": layout,
    }


def _over_time(cells: Sequence[CellReport], name: str) -> Figure | None:
    """The trials in their order: drift, heat and outliers show here."""
    metric = METRICS[name]
    data: list[dict[str, Any]] = []
    for row, cell in enumerate(cells):
        values = sorted(cell.cell.values(name).items())
        if values:
            data.append(
                _line(
                    [place.session[1] + 1 for place, _ in values],
                    [value * metric.display_scale for _, value in values],
                    row,
                    cell,
                )
            )
        data += _apart(cell, row, name)
    if not data:
        return None
    return {
        "title": f"{metric.title} over the repetitions ({metric.shown_unit})",
        "note": "a cross is a trial that was left out, a hollow square before 1 is a warm-up",
        "wide": True,
        "data": data,
        "layout": {
            "height": 340,
            "margin": {"l": 60, "r": 16, "t": 8, "b": 44},
            "xaxis": {"title": {"text": "repetition"}, "rangemode": "normal"},
            "yaxis": {"rangemode": "tozero"},
            "legend": {"orientation": "h", "y": -0.25},
            "hovermode": "closest",
        },
    }


def _line(x: list[int], y: list[float], row: int, cell: CellReport) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": text(cell.short),
        "legendgroup": str(row),
        "x": x,
        "y": y,
        "line": {"color": _color(row), "width": 1.5},
        "marker": {"size": 6},
        "hovertemplate": "repetition %{x}: %{y:.4g}<extra>%{fullData.name}</extra>",
    }


def _apart(cell: CellReport, row: int, name: str) -> Iterator[dict[str, Any]]:
    """Yield what is in no figure: warm-ups and trials left out, where they have a value."""
    if name == "session_latency_s":
        return
    scale = METRICS[name].display_scale
    groups = (
        ("square-open", "warm-up", [t.record for t in cell.cell.trials if t.record.warmup]),
        (
            "x",
            "left out",
            [
                t.record
                for t in cell.cell.trials
                if not t.record.warmup and verdict_of(t.record) is Verdict.INVALID
            ],
        ),
    )
    for symbol, word, records in groups:
        found = [(r, getattr(r, name)) for r in records if getattr(r, name) is not None]
        if found:
            yield {
                "type": "scatter",
                "mode": "markers",
                "legendgroup": str(row),
                "showlegend": False,
                "x": [-r.repetition if r.warmup else r.repetition + 1 for r, _ in found],
                "y": [value * scale for _, value in found],
                "marker": {"color": _color(row), "size": 9, "symbol": symbol},
                "text": [text(", ".join((word, *r.verdict_reasons))) for r, _ in found],
                "hovertemplate": "%{y:.4g}<br>%{text}<extra></extra>",
            }


def _rows_layout(cells: Sequence[CellReport], rangemode: str) -> dict[str, Any]:
    """One row a cell, the first on top."""
    return {
        "height": 56 + ROW_PX * len(cells),
        "margin": {"l": 8, "r": 16, "t": 8, "b": 32},
        "xaxis": {"rangemode": rangemode},
        "yaxis": {
            "tickmode": "array",
            "tickvals": list(range(len(cells))),
            "ticktext": [text(cell.short) for cell in cells],
            "range": [len(cells) - 0.5, -0.5],
            "automargin": True,
            "zeroline": False,
            "showgrid": False,
        },
        "hovermode": "closest",
    }


def _suspect(cell: Cell) -> set[Pair]:
    """Return the places of SUSPECT trials."""
    return {place for place, trial in cell.placed() if trial.record.verdict is Verdict.SUSPECT}


def _where(place: Pair, cell: CellReport, suspect: bool) -> str:
    parts = [text(cell.short), f"repetition {place.session[1] + 1}"]
    if len(cell.cell.prompts) > 1:
        parts.append(f"prompt {place.prompt_index + 1}")
    return ", ".join([*parts, "suspect"] if suspect else parts)


def _color(row: int) -> str:
    return PALETTE[row % len(PALETTE)]


def _jitter(index: int) -> float:
    # The golden ratio spreads any number of points evenly, the same way every time.
    return ((index * 0.618034) % 1 - 0.5) * 0.5
