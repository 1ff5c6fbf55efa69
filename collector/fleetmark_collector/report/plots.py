"""The plots of a report as plain Plotly figures; the page itself sees to its theme's colours."""

from collections.abc import Sequence
from typing import Any

from fleetmark_collector.report.cellreport import CellReport
from fleetmark_collector.report.cells import Cell
from fleetmark_collector.report.plotparts import Figure, color_of, text
from fleetmark_collector.report.statistics import Pair
from fleetmark_collector.report.timeline import over_time
from fleetmark_protocol.metrics import METRICS
from fleetmark_protocol.records import Verdict

STRIPS = ("ttft_s", "tpot_s", "prefill_tps", "decode_tps", "backend_cpu_percent_mean", "energy_j")
MEMORY = ("rss_bytes", "pss_bytes")

ROW_PX = 38


def plots(number: int, cells: Sequence[CellReport]) -> list[Figure]:
    """Return the plots of one workload.

    Args:
        number: of the workload, for the ids.
        cells: all of the workload; those without figures keep their place.
    """
    if not any(cell.figures for cell in cells):
        return []
    # Warm and cold starts have each their own.
    waited_for = list(dict.fromkeys(cell.headline for cell in cells))
    figures: list[Figure | None] = []
    for headline in waited_for:
        figures += [_strip(cells, headline), _speed_up(cells, headline)]
    figures += [_strip(cells, name) for name in STRIPS]
    figures.append(_memory(cells))
    if cells[0].cell.workload_kind != "soak":  # its plot has its own axis of time
        figures += [over_time(cells, headline) for headline in waited_for]
    found = [figure for figure in figures if figure is not None]
    for position, figure in enumerate(found):
        figure["id"] = f"plot-{number}-{position}"
    return found


def _strip(cells: Sequence[CellReport], name: str) -> Figure | None:
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
                "y": [row + 0.17 + _jitter(index) for index in range(len(places))],
                "marker": {
                    "color": color_of(row),
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
                "y": [row - 0.2],
                "marker": {"color": color_of(row), "size": 10, "symbol": "diamond"},
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [((figure.high or 0) - figure.median) * scale] if bars else [0],
                    "arrayminus": [(figure.median - (figure.low or 0)) * scale] if bars else [0],
                    "color": color_of(row),
                    "thickness": 2.5,
                    "width": 7,
                    "visible": bars,
                },
                "hovertemplate": f"{text(cell.short)}<br>median %{{x:.4g}} {metric.shown_unit}"
                "<extra></extra>",
                "showlegend": False,
            }
        )
    if not data:
        return None
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
        if cell.headline == name and cell.versus is not None and name in cell.versus.comparisons
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
                "color": [color_of(row) for row, _, _ in shown],
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
                        "color": [color_of(row) for row, _ in rows],
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


def _jitter(index: int) -> float:
    # The golden ratio spreads any number of points evenly, the same way every time.
    return ((index * 0.618034) % 1 - 0.5) * 0.36
