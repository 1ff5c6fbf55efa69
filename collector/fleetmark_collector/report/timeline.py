"""The plot of a workload's trials in their order."""

from collections.abc import Iterator, Sequence
from typing import Any

from fleetmark_collector.report.cellreport import CellReport
from fleetmark_collector.report.judged import verdict_of
from fleetmark_collector.report.plotparts import Figure, color_of, text
from fleetmark_protocol.metrics import METRICS
from fleetmark_protocol.records import TrialRecord, Verdict


def over_time(cells: Sequence[CellReport], name: str) -> Figure | None:
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
        "line": {"color": color_of(row), "width": 1.5},
        "marker": {"size": 6},
        "hovertemplate": "repetition %{x}: %{y:.4g}<extra>%{fullData.name}</extra>",
    }


def _apart(cell: CellReport, row: int, name: str) -> Iterator[dict[str, Any]]:
    """Yield what is in no figure: warm-ups and trials left out, where they have a value."""
    if name not in TrialRecord.model_fields:
        return  # no trial has one of its own
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
                "marker": {"color": color_of(row), "size": 9, "symbol": symbol},
                "text": [text(", ".join((word, *r.verdict_reasons))) for r, _ in found],
                "hovertemplate": "%{y:.4g}<br>%{text}<extra></extra>",
            }
