"""Shows a report as one HTML file that needs no network and runs no script but its own."""

import base64
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fleetmark_collector.report.enginetexts import equal_work_table, overhead_text
from fleetmark_collector.report.export import write_text
from fleetmark_collector.report.figures import SHOWN
from fleetmark_collector.report.labels import clean, percent
from fleetmark_collector.report.model import Report
from fleetmark_collector.report.pageparts import workload_part
from fleetmark_collector.report.sheets import worth_sheet
from fleetmark_collector.report.statistics import min_sessions
from fleetmark_collector.report.tables import (
    state_text,
)
from fleetmark_protocol.metrics import METRICS
from fleetmark_protocol.version import __version__


def write_html(report: Report, path: Path) -> None:
    """Write the report as a page.

    Args:
        report: what to write.
        path: `-` for standard output.

    Raises:
        ConfigError: the file cannot be written.
    """
    write_text(path, as_html(report))


def as_html(report: Report) -> str:
    """Return the page.

    Everything a device sent is escaped, and should that ever fail, the page's policy lets only
    its own two scripts run, by their digests, and lets nothing be sent anywhere.
    """
    import jinja2
    from plotly.offline import get_plotlyjs

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fleetmark_collector.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = _unbroken
    files = Path(__file__).parent / "templates"
    page_js = (files / "report.js").read_text("utf-8")
    plotly_js = get_plotlyjs()
    parts = [
        workload_part(number, report, name, cells)
        for number, (name, cells) in enumerate(report.workloads.items())
    ]
    return environment.get_template("report.html.j2").render(
        policy=_policy(plotly_js, page_js),
        css=(files / "report.css").read_text("utf-8"),
        plotly_js=plotly_js,
        page_js=page_js,
        title=clean(report.campaign_id),
        complete=report.progress.complete,
        state=state_text(report),
        facts=list(_facts(report)),
        confidence=percent(report.confidence),
        findings=_findings(report),
        notes=report.notes,
        workloads=parts,
        worths=[worth_sheet(worth) for worth in report.worths],
        equal_work=[equal_work_table(group) for group in report.equal_work],
        overheads=[overhead_text(one) for one in report.overheads],
        troubles=report.troubles,
        method=list(_method(report)),
        definitions=[METRICS[name] for name in SHOWN if _has(report, name)],
        provenance=list(_provenance(report)),
        machines=[(device, machine[:16]) for (_, device), machine in report.machines.items()],
        figures=[
            {key: figure[key] for key in ("id", "data", "layout")} | {"workload": number}
            for number, part in enumerate(parts)
            for figure in (*part["opening_plots"], *part["plots"])
        ],
        version=__version__,
    )


def _policy(*scripts: str) -> str:
    """Return a content security policy under which only these scripts run."""
    digests = (base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _unbroken(text: str) -> Markup:
    """Keep a line from being broken inside a cell's name or an interval."""
    return Markup(" ").join(Markup('<span class="nb">{}</span>').format(w) for w in text.split())


def _has(report: Report, name: str) -> bool:
    return any(name in cell.figures for cell in report.cells)


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    if report.start_ns is not None and report.end_ns is not None:
        yield "First to last record", f"{_time(report.start_ns)} to {_time(report.end_ns)}"
    devices = dict.fromkeys(clean(cell.cell.config.device) for cell in report.cells)
    yield "Devices", ", ".join(devices)
    known = {report.machines.get(cell.cell.config[:2]) for cell in report.cells}
    if None not in known:
        yield "Machines", str(len(known))
    yield "Cells", str(len(report.cells))
    yield "Trials", str(report.progress.trials)
    if report.common:
        yield "All cells", ", ".join(report.common)
    if report.baseline is not None:
        yield "Baseline", report.baseline


def _time(time_ns: int) -> str:
    try:
        return f"{datetime.fromtimestamp(time_ns / 1e9, tz=UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError):
        return f"{time_ns} ns"  # a device's clock may say anything


def _findings(report: Report) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for finding in report.findings:
        where = clean(finding.workload)
        title = f"{where} on {clean(finding.device)}" if finding.device else f"{where}: all devices"
        found.setdefault(title, []).append(finding.text)
    return found


def _method(report: Report) -> Iterator[str]:
    yield (
        "Figures are medians over the trials that are VALID or SUSPECT. Warm-ups and INVALID "
        "trials are in no figure; a trial that was measured again counts once, the latest time. "
        "Cold latency is the exception: the first request after a load is a warm-up by nature. "
        "Where each trial starts its engine anew, each that is no warm-up counts."
    )
    yield (
        f"Intervals are {percent(report.confidence)} percentile bootstrap intervals of the median, "
        "resampled session by session (a session asks all prompts of the workload once); fewer "
        f"than {min_sessions(report.confidence)} sessions give none. Each interval stands for "
        "itself: of many comparisons a few are off by chance."
    )
    yield (
        "A speed-up is the ratio of the two medians, resampled together where both cells have "
        "the same repetitions. An interval that contains 1 means no difference was shown."
    )
    yield (
        "Cells are compared only if their weights have the same origin and they generated the "
        "same number of tokens from the same prompt tokens, both from a warm or both from a cold "
        "start."
    )


def _provenance(report: Report) -> Iterator[dict[str, Any]]:
    for one in report.provenance:
        size, bits = one.model_bytes, one.bits_per_weight
        yield {
            "label": one.label,
            "numbers": [
                clean(one.backend_version or "-"),
                "-" if size is None else f"{size / 2**20:,.1f}",
                "-" if bits is None else f"{bits:.2f}",
            ],
            "digests": [one.model_sha256 or "-", one.model_origin_sha256 or "-"],
            "engine": [f"{clean(name)}={clean(str(value))}" for name, value in one.engine.items()],
        }
