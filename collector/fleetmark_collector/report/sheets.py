"""Tables of what is not one cell beside another: prompt lengths, clients, heat, money.

Terminal and page show the same sheets, each in its way.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fleetmark_collector.report.cellreport import CellReport
from fleetmark_collector.report.findings import gain_text
from fleetmark_collector.report.labels import clean
from fleetmark_collector.report.model import Report
from fleetmark_collector.report.series import Series, Step
from fleetmark_collector.report.soaks import Soak
from fleetmark_collector.report.statistics import Estimate, Outcome, Ratio
from fleetmark_collector.report.worth import Standing, Value, Worth
from fleetmark_protocol.metrics import METRICS


@dataclass(frozen=True)
class Entry:
    """One value: as it is, how wide its interval is (`±2.1%`) and what that is; `better` marks it.

    Attributes:
        half: empty where there is no interval, as is `interval`.
    """

    value: str
    half: str = ""
    interval: str = ""
    better: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table.

    Attributes:
        columns: title and unit.
        rows: name and an entry for each column.
        remarks: what is to be said below it.
        keys: how many of the first columns tell rows of the same name apart.
    """

    title: str
    note: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, tuple[Entry, ...]], ...]
    remarks: tuple[str, ...] = ()
    keys: int = 0


ABSENT = Entry("-")


def series_sheet(series: Series) -> Sheet:
    """Return a row for each step of each line."""
    crowd = series.kind == "concurrency"
    names = ["latency_s", "latency_p95_s", "ttft_s"] if crowd else _OF_A_SWEEP
    names = [name for name in names if _any(series, name)]
    columns = [("Clients", "") if crowd else ("Prompt", "tokens")]
    columns += [_column("throughput_tps"), ("Scaling", "")] if crowd else []
    columns += [("Latency p50", "s") if n == "latency_s" and crowd else _column(n) for n in names]
    rows = []
    for line in series.lines:
        for step in line.steps:
            entries = [Entry("-" if step.at is None else f"{step.at:,.0f}")]
            if crowd:
                entries += [figure_entry(step.cell, "throughput_tps"), _scaling(step)]
            entries += [figure_entry(step.cell, name) for name in names]
            entries += [_verdicts(step.cell)]
            if not crowd:
                entries.insert(-1, _speed_up(step.cell))
            rows.append((line.short, tuple(entries)))
    columns += [] if crowd else [("Speed-up", "TTFT")]
    columns.append(("V/S/I", ""))
    if crowd:
        note = (
            "clients that ask at the same time; intervals resample whole rounds. Scaling is "
            "throughput against one client"
        )
    else:
        note = "by the engine's own count of the prompt's tokens"
    return Sheet(clean(series.name), note, tuple(columns), tuple(rows), keys=1)


_OF_A_SWEEP = ["ttft_s", "prefill_tps", "decode_tps", "rss_bytes"]


def soak_sheet(soaks: Sequence[Soak]) -> Sheet:
    """Return a row for each cell that was soaked under one workload."""
    rows, remarks = [], []
    for soak in soaks:
        burst, sustained = (figure_entry(soak.cell, n) for n in ("burst_tps", "sustained_tps"))
        onset = "not seen" if soak.told and soak.complete else "-"
        if soak.time_to_throttle_s is not None:
            onset = f"{soak.time_to_throttle_s:,.0f}"
        heat = (soak.temperature_start_c, soak.temperature_max_c)
        entries = (
            burst,
            sustained,
            _ratio(soak.kept),
            Entry(onset),
            *(Entry("-" if one is None else f"{one:.1f}") for one in heat),
            Entry(str(sum(map(len, soak.cell.cell.soaks().values())))),
        )
        rows.append((soak.cell.short, entries))
        for lasted_s in soak.cut_short_s:
            of = "" if soak.asked_s is None else f" of {soak.asked_s:,.0f} s"
            remarks.append(
                f"{soak.cell.short}: a soak that ended after {lasted_s:,.0f} s{of} is in no figure"
            )
    return Sheet(
        title=clean(soaks[0].cell.cell.workload),
        note="burst: requests of the first minute; sustained: of the last third. The interval of "
        "one soak takes its requests for independent and holds nothing of what differs between "
        "two soaks",
        columns=(
            _column("burst_tps"),
            _column("sustained_tps"),
            ("Kept", "of the burst"),
            ("Throttled from", "s"),
            ("At start", "°C"),
            ("Highest", "°C"),
            ("Requests", ""),
        ),
        rows=tuple(rows),
        remarks=tuple(remarks),
    )


def worth_sheet(worth: Worth) -> Sheet:
    """Return a row for each cell; those that failed say how."""
    return Sheet(
        title=clean(worth.workload) or "no workload reached",
        note="price of the machine while it answers, nothing for the time between; the best is "
        "told among cells that did equal work",
        columns=(
            ("Price", "USD/hour"),
            ("1000 requests", "USD"),
            _column("eq"),
            _column("eq_per_token"),
            ("Value", ""),
        ),
        rows=tuple((value.cell.short, tuple(_worth_entries(value))) for value in worth.values),
        remarks=tuple(
            f"{value.cell.short}: {value.cell.problem}"
            for value in worth.values
            if value.cell.problem is not None
        ),
    )


def sheets_of(report: Report, workload: str) -> Iterator[Sheet]:
    """Yield what is shown with a workload, at the first workload of a series for all of it."""
    for series in report.series:
        if series.workloads[0] == workload:
            yield series_sheet(series)
    soaks = [soak for soak in report.soaks if soak.cell.cell.workload == workload]
    if soaks:
        yield soak_sheet(soaks)


def figure_entry(cell: CellReport, name: str) -> Entry:
    """Return a figure of a cell."""
    return _entry(name, cell.figures.get(name))


def _entry(name: str, figure: Estimate | None, scale: float = 1.0) -> Entry:
    if figure is None:
        return ABSENT
    metric = METRICS[name]
    value = metric.show(figure.median * scale)
    half = figure.relative_half_width
    if half is None or figure.low is None or figure.high is None:
        return Entry(value)
    interval = f"{metric.show(figure.low * scale)} to {metric.show(figure.high * scale)}"
    return Entry(value, f"±{half:.1%}", interval)


def _worth_entries(value: Value) -> Iterator[Entry]:
    cell, price = value.cell, value.usd_per_hour
    yield Entry("-" if price is None else f"{price:,.4g}")
    yield _entry("cost_usd", cell.figures.get("cost_usd"), 1000)
    yield figure_entry(cell, "eq")
    yield figure_entry(cell, "eq_per_token")
    yield _standing(value)


def _standing(value: Value) -> Entry:
    if value.cell.problem is not None:
        return Entry("failed")
    if value.standing is None:
        return Entry("free" if value.usd_per_hour == 0 else "-")
    if value.standing is Standing.BEHIND and value.gain is not None:
        # How many times as much the best is worth.
        text, _, interval = gain_text(value.gain).partition(" ")
        return Entry(f"best is {text}", interval, _to(interval))
    return Entry(str(value.standing), better=value.standing is Standing.BEST)


def _scaling(step: Step) -> Entry:
    return Entry("1") if step.at == 1 else _ratio(step.scaling)


def _ratio(found: Ratio | None) -> Entry:
    if found is None:
        return ABSENT
    value, _, interval = gain_text(found).partition(" ")
    return Entry(value, interval, _to(interval))


def _to(interval: str) -> str:
    return interval.strip("[]").replace("-", " to ")


def _speed_up(cell: CellReport) -> Entry:
    if cell.is_baseline and not cell.problem:
        return Entry("baseline")
    found = cell.versus.comparisons.get(cell.headline) if cell.versus else None
    if found is None:
        return Entry("not comparable" if cell.versus and cell.versus.not_comparable else "-")
    value, _, interval = gain_text(found.gain).partition(" ")
    return Entry(value, interval, _to(interval), found.outcome is Outcome.BETTER)


def _verdicts(cell: CellReport) -> Entry:
    counts = cell.counts
    return Entry(f"{counts.valid}/{counts.suspect}/{counts.invalid}")


def _column(name: str) -> tuple[str, str]:
    return METRICS[name].title, METRICS[name].shown_unit


def _any(series: Series, name: str) -> bool:
    return any(name in step.cell.figures for line in series.lines for step in line.steps)
