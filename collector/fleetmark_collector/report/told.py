"""Says in words what prompt lengths, clients and heat do to an engine, no more than is shown."""

from collections.abc import Iterator, Sequence

from fleetmark_collector.report.findings import gain_text, with_interval
from fleetmark_collector.report.model import Finding
from fleetmark_collector.report.repeats import doubt
from fleetmark_collector.report.series import Line, Series
from fleetmark_collector.report.soaks import Soak
from fleetmark_collector.report.statistics import Outcome, outcome
from fleetmark_protocol.metrics import METRICS


def series_findings(series: Sequence[Series]) -> Iterator[Finding]:
    """Yield what each line of each series shows."""
    for one in series:
        for line in one.lines:
            text = _crowd(line) if one.kind == "concurrency" else _sweep(line)
            if text is not None:
                yield Finding(one.name, line.device, f"{line.short}: {text}.")


def soak_findings(soaks: Sequence[Soak], *, confidence: float) -> Iterator[Finding]:
    """Yield what each complete soak shows."""
    for soak in soaks:
        text = _soak(soak)
        if text is not None:
            where = soak.cell.cell
            if soak.complete > 1:
                unsure = doubt(soak.complete, "requests", confidence)
                text += f"; {soak.complete} soaks{unsure}" if unsure else ""
            yield Finding(where.workload, where.config.device, f"{soak.cell.short}: {text}.")


def _sweep(line: Line) -> str | None:
    if line.growth is None:
        return None
    first, last = line.steps[0], line.steps[-1]
    parts = [
        f"TTFT {with_interval(METRICS['ttft_s'], step.cell.figures['ttft_s'])} at "
        + ("?" if step.at is None else f"{step.at:,.0f}")
        + " prompt tokens"
        for step in (first, last)
    ]
    prompt = f": {last.at / first.at:.1f}x the prompt takes" if first.at and last.at else ","
    return f"{parts[0]}, {parts[1]}{prompt} {gain_text(line.growth)} the time"


def _crowd(line: Line) -> str | None:
    steps = [step for step in line.steps if "throughput_tps" in step.cell.figures]
    if len(steps) < 2 or len(steps) < len(line.steps):
        return None
    if line.saturated is None:
        return "too few rounds to tell where throughput saturates"
    best = line.steps[line.saturated]
    value = with_interval(METRICS["throughput_tps"], best.cell.figures["throughput_tps"])
    at = f"{_clients(best.at)} ({value}"
    at += f", {gain_text(best.scaling)} of one client)" if best.scaling is not None else ")"
    if line.beyond is None:
        return f"throughput grows up to the most clients that were tried, {at}"
    beyond = line.steps[line.saturated + 1]
    shown = outcome(line.beyond)
    word = "less" if shown is Outcome.WORSE else "no more"
    return (
        f"throughput saturates at {at}; {_clients(beyond.at)} get {word} ({gain_text(line.beyond)})"
    )


def _clients(count: float | None) -> str:
    return "1 client" if count == 1 else f"{count or 0:.0f} clients"


def _soak(soak: Soak) -> str | None:
    figures = soak.cell.figures
    if soak.kept is None:
        return None
    burst, sustained = (
        with_interval(METRICS[name], figures[name]) for name in ("burst_tps", "sustained_tps")
    )
    kept = gain_text(soak.kept)
    text = f"burst {burst}, sustained {sustained}"
    shown = outcome(soak.kept)
    if shown is Outcome.TOO_FEW:
        return f"{text} ({kept}), too few requests to tell whether speed was lost; {_heat(soak)}"
    if shown is Outcome.NO_DIFFERENCE:
        return f"{text}: no loss of speed shown ({kept}); {_heat(soak)}"
    if shown is Outcome.BETTER:
        return f"{text}: faster in the end than at first ({kept}); {_heat(soak)}"
    low, high = soak.kept.low or 0.0, soak.kept.high or 0.0
    lost = f"{1 - soak.kept.ratio:.1%} [{1 - high:.1%}-{1 - low:.1%}] of the speed is lost"
    return f"{text}: {lost} ({kept}); {_heat(soak)}"


def _heat(soak: Soak) -> str:
    if soak.time_to_throttle_s is not None:
        text = f"slowed down by heat from {soak.time_to_throttle_s:.0f} s on"
    elif soak.told:
        text = "no throttling seen"
    else:
        text = "the device does not tell of throttling"
    if soak.temperature_max_c is None:
        return text
    start = "" if soak.temperature_start_c is None else f"{soak.temperature_start_c:.1f} to "
    return f"{text}, {start}{soak.temperature_max_c:.1f} °C"
