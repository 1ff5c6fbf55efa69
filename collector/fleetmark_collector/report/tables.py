"""Shows a report in a terminal, 100 columns wide."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from fleetmark_collector.report.enginetexts import equal_work_lines, overhead_text, title_of
from fleetmark_collector.report.findings import gain_text
from fleetmark_collector.report.labels import clean, percent
from fleetmark_collector.report.model import CellReport, Finding, Report, Trouble
from fleetmark_collector.report.remarks import dequantized
from fleetmark_collector.report.statistics import Estimate, Outcome
from fleetmark_protocol.metrics import METRICS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Column = tuple[str, "Sequence[str | Text]"]
"""A title and a value for each cell."""

RESOURCES = (
    "cpu_percent_mean",
    "backend_cpu_percent_mean",
    "rss_bytes",
    "pss_bytes",
    "mem_used_percent_mean",
    "load_s",
    "latency_cold_s",
    "energy_j",
    "co2_g",
    "cost_usd",
    "eq",
    "eq_per_token",
)

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
        kind = f": {workload_text(cells[0].cell.workload_kind)}" if workload else ""
        console.print()
        console.print(Text((clean(workload) or "no workload reached") + kind, style="bold"))
        console.print()
        if any(cell.figures for cell in cells):
            _print_table(console, cells, _speed(cells))
            _print_table(console, cells, _resources(cells))
        _print_list(console, "", _all_notes(cells))
    _print_list(console, "How to read this", legend(report))
    _print_list(console, "Findings", (_finding(one) for one in report.findings))
    for group in report.equal_work:
        _print_list(console, f"Equal work: {title_of(group)}", equal_work_lines(group))
    _print_list(console, "Cost of frameworks", (overhead_text(one) for one in report.overheads))
    _print_list(console, "Notes", report.notes)
    _print_list(console, "Failures", (trouble_text(one) for one in report.troubles))


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
    yield (
        "A warm cell is one run of its engine: intervals do not hold what differs between two runs "
        "of the same program, often a few percent."
    )
    if report.baseline is not None:
        yield f"Speed-up against {report.baseline}: {signs}."


def _finding(finding: Finding) -> str:
    where = clean(finding.workload)
    return f"{where}: {finding.text}"


def _print_list(console: "Console", title: str, lines: Iterable[str]) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column()
    grid.add_column(overflow="fold")
    for line in lines:
        grid.add_row("-", Text(line))
    if grid.row_count:
        if title:
            console.print()
            console.print(Text(title, style="bold"))
        console.print(grid)


def workload_text(kind: str) -> str:
    """Return what a workload of this kind asks."""
    return "several prompts, one after another" if kind == "multi" else "one prompt"


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


def _print_table(
    console: "Console", cells: Sequence[CellReport], columns: Sequence[Column]
) -> None:
    """Print a row per cell, in as many tables as it takes to show every figure whole."""
    from rich import box
    from rich.measure import Measurement
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    widest = max(len(cell.short) for cell in cells)
    table.add_column("Cell", overflow="fold", min_width=min(widest, 30))
    for title, _ in columns:
        table.add_column(title, justify="right", no_wrap=True)
    for row, cell in enumerate(cells):
        table.add_row(_name(cell), *(values[row] for _, values in columns))
    # The names alone may be folded.
    natural = Measurement.get(console, console.options.update(width=10_000), table).maximum
    least = natural - max(0, widest - 30)
    if least > console.width and len(columns) > 1:
        middle = (len(columns) + 1) // 2
        _print_table(console, cells, columns[:middle])
        _print_table(console, cells, columns[middle:])
    else:
        console.print(table)
        console.print()


def _title(name: str) -> str:
    metric = METRICS[name]
    # A word a line, so that ten columns fit beside the cell's name.
    return "\n".join([*metric.title.split(), metric.shown_unit])


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


def cell_notes(cell: CellReport) -> Iterator[str]:
    """Yield what a cell's figures leave out, and why it is not compared."""
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
    if cell.versus and cell.versus.not_comparable:
        yield f"not comparable: {cell.versus.not_comparable}"
    source = dequantized(cell.cell)
    if source is not None:
        yield source


def _all_notes(cells: Sequence[CellReport]) -> Iterator[str]:
    # What is true of many cells is said once.
    said: dict[str, list[str]] = {}
    for cell in cells:
        for line in (*cell_notes(cell), *(cell.versus.notes if cell.versus else ())):
            said.setdefault(line, []).append(cell.short)
    for line, names in said.items():
        yield f"{', '.join(names)}: {line}"


def _counted(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{clean(reason)} ({count})" for reason, count in reasons.items())
