"""Shows a report in a terminal, 100 columns wide."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from fleetmark_collector.report.cellreport import CellReport
from fleetmark_collector.report.enginetexts import equal_work_lines, overhead_text, title_of
from fleetmark_collector.report.findings import gain_text
from fleetmark_collector.report.labels import clean, percent
from fleetmark_collector.report.model import Finding, Report, Trouble
from fleetmark_collector.report.remarks import dequantized
from fleetmark_collector.report.repeats import repeat_notes
from fleetmark_collector.report.sheets import sheets_of, worth_sheet
from fleetmark_collector.report.statistics import Estimate, Outcome
from fleetmark_collector.report.terminal import (
    Column,
    print_list,
    print_sheet,
    print_table,
    title_lines,
)
from fleetmark_protocol.metrics import METRICS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

RESOURCES = (
    "cpu_percent_mean",
    "backend_cpu_percent_mean",
    "rss_bytes",
    "pss_bytes",
    "mem_used_percent_mean",
    "load_s",
    "latency_cold_s",
    "model_cached_percent",
    "energy_j",
    "co2_g",
)

NARROW_TO = 20
"""Repetitions up to which a resampled interval of a median is known to be too narrow."""

SIGNS = {
    Outcome.BETTER: ("▲", "green"),
    Outcome.WORSE: ("▼", "red"),
    Outcome.NO_DIFFERENCE: ("≈", "dim"),
    Outcome.TOO_FEW: ("?", "dim"),
}


def render_terminal(report: Report, console: "Console") -> None:
    """Print the report: two tables a workload, then what they leave out."""
    from rich.text import Text

    # Text objects throughout, never markup: labels come from devices.
    console.print(Text(f"Campaign {clean(report.campaign_id)}", style="bold"))
    console.print(Text(state_text(report)))
    if report.common:
        console.print(Text(f"all cells: {', '.join(report.common)}"))
    for workload, cells in report.workloads.items():
        series = next((one for one in report.series if workload in one.workloads), None)
        if series is not None and series.workloads[0] != workload:
            continue  # shown with the first
        sheets = list(sheets_of(report, workload))
        name = clean(series.name if series else workload) or "no workload reached"
        kind = f": {workload_text(cells)}" if workload else ""
        console.print()
        console.print(Text(name + kind, style="bold"))
        console.print()
        for sheet in sheets:
            print_sheet(console, sheet)
        if any(cell.figures for cell in cells) and series is None:
            names = [_name(cell) for cell in cells]
            print_table(console, names, _speed(cells))
            print_table(console, names, _resources(cells))
        all_of = [c for c in report.cells if series and c.cell.workload in series.workloads]
        print_list(console, "", _all_notes(all_of or cells, report.confidence))
    if report.worths:
        console.print()
        console.print(Text("Cost and value", style="bold"))
    for worth in report.worths:
        console.print()
        console.print(Text(clean(worth.workload), style="bold"))
        print_sheet(console, worth_sheet(worth))
    print_list(console, "How to read this", legend(report))
    print_list(console, "Findings", (_finding(one) for one in report.findings))
    for group in report.equal_work:
        print_list(console, f"Equal work: {title_of(group)}", equal_work_lines(group))
    print_list(console, "Cost of frameworks", (overhead_text(one) for one in report.overheads))
    print_list(console, "Notes", report.notes)
    print_list(console, "Failures", (trouble_text(one) for one in report.troubles))


def trouble_text(trouble: Trouble) -> str:
    """Return a failure in one line."""
    times = f" ({trouble.count} times)" if trouble.count > 1 else ""
    return f"{trouble.where}: {trouble.what}: {trouble.code}: {trouble.message}{times}"


def legend(report: Report) -> Iterator[str]:
    """Yield how to read the tables."""
    signs = ", ".join(
        f"{SIGNS[one][0]} {word}"
        for one, word in (
            (Outcome.BETTER, "faster"),
            (Outcome.WORSE, "slower"),
            (Outcome.NO_DIFFERENCE, "no difference shown"),
            (Outcome.TOO_FEW, "too few repetitions to tell"),
        )
    )
    yield (
        f"Medians; ± is half of the {percent(report.confidence)} interval. V/S/I: trials valid, "
        "suspect (counted, with the reason below), invalid (left out)."
    )
    figures = [cell.figures.get(cell.headline) for cell in report.cells]
    if any(one and one.low is not None and one.sessions <= NARROW_TO for one in figures):
        yield (
            f"Intervals of 6 to {NARROW_TO} repetitions are a little too narrow: at 95% they hold "
            "the true median in about 93 of 100 cases."
        )
    alone = [c for c in report.cells if c.repeats.processes == 1 and not c.cell.cold]
    if alone:
        which = "A warm cell" if len(alone) == len(report.cells) else "A warm cell of one job"
        yield (
            f"{which} is one run of its engine: intervals do not hold what differs between two "
            "runs of the same program, often a few percent."
        )
    if len(alone) < len(report.cells) and any(c.repeats.processes > 1 for c in report.cells):
        yield (
            "Where a cell was measured in several jobs or attempts, intervals resample these "
            "processes, then the repetitions of each."
        )
    if report.baseline is not None:
        yield f"Speed-up against {report.baseline}: {signs}."


def _finding(finding: Finding) -> str:
    where = clean(finding.workload)
    return f"{where}: {finding.text}"


def workload_text(cells: Sequence[CellReport]) -> str:
    """Return what the workload of these cells asks."""
    kind = cells[0].cell.workload_kind
    if kind == "coldstart":
        asked = next((cell.cell.asked for cell in cells if cell.cell.asked), None)
        cache = "" if asked is None else _CACHES[asked.page_cache]
        return f"one prompt, every time of an engine started anew{cache}"
    return _ASKS.get(kind, "one prompt")


_CACHES = {
    "keep": ", weights left in the page cache",
    "drop": ", weights dropped from the page cache first",
}
_ASKS = {
    "multi": "several prompts, one after another",
    "context_sweep": "one prompt of each length",
    "concurrency": "clients that ask at the same time",
    "soak": "one prompt again and again without a pause",
}


def state_text(report: Report) -> str:
    """Return how much of the campaign is there."""
    progress = report.progress
    state = "complete" if progress.complete else "so far"
    return (
        f"{state}: {progress.trials} of {progress.trials_planned} trials, "
        f"{progress.jobs_done} of {progress.jobs} jobs done"
    )


def _speed(cells: Sequence[CellReport]) -> list[Column]:
    verdicts = [f"{c.counts.valid}/{c.counts.suspect}/{c.counts.invalid}" for c in cells]
    return [
        *((_title(name), [_figure(cell, name) for cell in cells]) for name in headlines(cells)),
        ("Speed-up", [_gain(cell, cell.headline) for cell in cells]),
        *((_title(name), [_figure(cell, name) for cell in cells]) for name in ("ttft_s", "tpot_s")),
        ("V/S/I", verdicts),
    ]


def headlines(cells: Sequence[CellReport]) -> list[str]:
    """Return what users of these cells wait for: warm and cold starts have each their own."""
    return list(dict.fromkeys(cell.headline for cell in cells))


def _resources(cells: Sequence[CellReport]) -> list[Column]:
    return [
        (
            _title(name),
            [METRICS[name].show(f.median if (f := c.figures.get(name)) else None) for c in cells],
        )
        for name in ("prefill_tps", "decode_tps", *RESOURCES)
        if any(name in cell.figures for cell in cells) and name not in headlines(cells)
    ]


def _title(name: str) -> str:
    return title_lines(METRICS[name].title, METRICS[name].shown_unit)


def _name(cell: CellReport) -> "Text":
    from rich.text import Text

    return Text(cell.short, style="dim" if cell.problem else "")


def _figure(cell: CellReport, name: str) -> str:
    figure: Estimate | None = cell.figures.get(name)
    if figure is None:
        return "-"
    half = figure.relative_half_width
    shown = METRICS[name].show(figure.median)
    return shown if half is None else f"{shown} ±{half:.1%}"


def _gain(cell: CellReport, name: str) -> "Text":
    from rich.text import Text

    if cell.is_baseline and not cell.problem:
        return Text("baseline", style="dim")
    comparison = cell.versus.comparisons.get(name) if cell.versus else None
    if comparison is None:
        return Text("not comparable" if cell.versus and cell.versus.not_comparable else "-")
    sign, style = SIGNS[comparison.outcome]
    return Text(f"{gain_text(comparison.gain)} {sign}", style=style)


def cell_notes(cell: CellReport, confidence: float) -> Iterator[str]:
    """Yield what a cell's figures leave out, how often it was measured, why it is not compared."""
    counts = cell.counts
    if cell.problem:
        yield cell.problem
        return
    if cell.left_out:
        yield f"left out {counts.invalid}: {_counted(cell.left_out)}"
    if cell.suspected:
        yield f"suspect {counts.suspect}: {_counted(cell.suspected)}"
    if counts.superseded:
        yield f"{counts.superseded} measured again after an interruption, the latest counts"
    yield from repeat_notes(cell.cell, cell.repeats, confidence)
    if cell.versus and cell.versus.not_comparable:
        yield f"not comparable: {cell.versus.not_comparable}"
    source = dequantized(cell.cell)
    if source is not None:
        yield source


def _all_notes(cells: Sequence[CellReport], confidence: float) -> Iterator[str]:
    # What is true of many cells, or of all workloads of a series, is said once.
    said: dict[str, dict[str, list[str]]] = {}
    for cell in cells:
        lines = (*cell_notes(cell, confidence), *(cell.versus.notes if cell.versus else ()))
        for line in lines:
            said.setdefault(line, {}).setdefault(cell.short, []).append(cell.cell.workload)
    everywhere = list(dict.fromkeys(cell.cell.workload for cell in cells))
    for line, names in said.items():
        shown = [
            name if found == everywhere else f"{name} in {', '.join(map(clean, found))}"
            for name, found in names.items()
        ]
        yield f"{', '.join(shown)}: {line}"


def _counted(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{clean(reason)} ({count})" for reason, count in reasons.items())
