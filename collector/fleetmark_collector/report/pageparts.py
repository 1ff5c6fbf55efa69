"""What the page shows of one workload: its plots, its figures, what was left out."""

from collections.abc import Sequence
from typing import Any

from fleetmark_collector.report.cellreport import CellReport
from fleetmark_collector.report.figures import SHOWN
from fleetmark_collector.report.findings import gain_text
from fleetmark_collector.report.labels import clean
from fleetmark_collector.report.model import Report
from fleetmark_collector.report.plots import plots
from fleetmark_collector.report.series import KINDS
from fleetmark_collector.report.seriesplots import series_plots, soak_plots
from fleetmark_collector.report.sheets import sheets_of
from fleetmark_collector.report.statistics import Estimate, Outcome
from fleetmark_collector.report.tables import cell_notes, headlines, workload_text
from fleetmark_protocol.metrics import METRICS

_STYLES = {Outcome.BETTER: "better", Outcome.WORSE: "worse"}


def workload_part(
    number: int, report: Report, name: str, cells: Sequence[CellReport]
) -> dict[str, Any]:
    """Return what the page shows of a workload.

    The first workload of a series opens with what is shown of the series as a whole; the plots of
    its workloads by themselves would show the same once more.

    Args:
        number: of the workload, for the ids of its plots.
        report: what it is part of.
        name: of the workload.
        cells: all of the workload.
    """
    sheets = list(sheets_of(report, name))
    series = next((one for one in report.series if one.workloads[0] == name), None)
    soaks = [soak for soak in report.soaks if soak.cell.cell.workload == name]
    in_series = any(cell.cell.workload_kind in KINDS for cell in cells)
    figures = soak_plots(number, soaks) + ([] if in_series else plots(number, cells))
    names = [metric for metric in SHOWN if any(metric in cell.figures for cell in cells)]
    columns = [{"title": METRICS[n].title, "unit": METRICS[n].shown_unit} for n in names]
    compared = any(cell.versus and cell.versus.comparisons for cell in cells)
    if compared:
        title = " or ".join(METRICS[name].title.lower() for name in headlines(cells))
        columns.insert(0, {"title": "Speed-up", "unit": title})
    tokens = sorted({count for cell in cells for count in cell.output_tokens})
    asked = sorted({count for cell in cells for count in cell.prompt_tokens})
    return {
        "title": clean(name) or "No workload reached",
        "subtitle": f"{workload_text(cells)}; prompt tokens: {_listed(asked)}; "
        f"generated tokens: {_listed(tokens)}"
        if name
        else "failed before the first trial",
        "opening": sheets[0].title if series else "",
        "opening_subtitle": workload_text(cells),
        "opening_plots": series_plots(number, series) if series else [],
        "sheets": sheets,
        "plots": figures,
        "columns": columns,
        "rows": [
            {
                "name": cell.short,
                "badge": "baseline" if cell.is_baseline else "",
                "figures": ([_gain(cell)] if compared else [])
                + [_figure(n, cell.figures.get(n)) for n in names],
                "counts": [
                    "-" if count is None else count
                    for count in (
                        cell.counts.valid,
                        cell.counts.suspect,
                        cell.counts.invalid,
                        cell.counts.warmup,
                        cell.counts.superseded,
                        cell.counts.planned,
                    )
                ],
                "remarks": [
                    *cell_notes(cell, report.confidence),
                    *(cell.versus.notes if cell.versus else ()),
                ],
            }
            for cell in cells
        ],
    }


def _listed(counts: Sequence[int]) -> str:
    return ", ".join(map(str, counts)) or "-"


def _figure(name: str, figure: Estimate | None) -> dict[str, str]:
    if figure is None:
        return {"value": "-", "interval": "", "style": ""}
    metric = METRICS[name]
    interval = ""
    if figure.low is not None:
        interval = f"{metric.show(figure.low)} to {metric.show(figure.high)}"
    return {"value": metric.show(figure.median), "interval": interval, "style": ""}


def _gain(cell: CellReport) -> dict[str, str]:
    comparison = cell.versus.comparisons.get(cell.headline) if cell.versus else None
    if comparison is None:
        return {"value": "-", "interval": "", "style": ""}
    value, _, interval = gain_text(comparison.gain).partition(" ")
    shown = str(comparison.outcome).replace("better", "faster").replace("worse", "slower")
    return {
        "value": value,
        "interval": ", ".join(
            part for part in (interval.strip("[]").replace("-", " to "), shown) if part
        ),
        "style": _STYLES.get(comparison.outcome, ""),
    }
