"""Says in words what the figures of a report show, and no more than they show."""

from collections.abc import Iterator, Sequence

from fleetmark_collector.report.cellreport import CellReport
from fleetmark_collector.report.compare import (
    Comparison,
    comparable_groups,
    compare_metric,
)
from fleetmark_collector.report.labels import percent
from fleetmark_collector.report.model import Finding
from fleetmark_collector.report.series import KINDS
from fleetmark_collector.report.statistics import Estimate, Outcome, Ratio, min_sessions, outcome
from fleetmark_protocol.metric import Metric
from fleetmark_protocol.metrics import METRICS

_WORDS = {"throughput_tps": "Most throughput", "sustained_tps": "Fastest in the long run"}
_VERBS = {"Fastest": "takes", "Smallest": "needs"}


def findings(cells: Sequence[CellReport], *, confidence: float, seed: int) -> Iterator[Finding]:
    """Yield what stands out per workload: on each device, then over all of them.

    Args:
        cells: of the whole report.
        confidence: of the intervals that decide.
        seed: of the resampling.
    """
    for workload in dict.fromkeys(cell.cell.workload for cell in cells):
        here = [c for c in cells if c.cell.workload == workload and c.figures]
        devices = list(dict.fromkeys(c.cell.config[:2] for c in here))
        scopes: list[tuple[str | None, list[CellReport]]] = [
            (device[1], [c for c in here if c.cell.config[:2] == device]) for device in devices
        ]
        if len(devices) > 1:
            scopes.append((None, here))
        for device, members in scopes:
            for alike in comparable_groups([c.cell for c in members]):
                group = [c for c in members if c.cell in alike]
                spread = len({c.cell.config[:2] for c in group})
                if len(group) < 2 or (device is None and spread < 2):
                    continue
                wanted = [(group[0].headline, _WORDS.get(group[0].headline, "Fastest"))]
                kind = group[0].cell.workload_kind
                # What differs between engines and not between lengths or clients is said once.
                alone = device is not None and kind not in (*KINDS, "soak")
                wanted += [(_memory(group), "Smallest")] if alone else []
                wanted += [("eq", "Best value for money")] if kind != "soak" else []
                for metric, word in wanted:
                    text = _best(group, metric, word, confidence=confidence, seed=seed)
                    if text is not None:
                        yield Finding(workload, device, text)


def with_interval(metric: Metric, figure: Estimate) -> str:
    """Return '12.3 ms [12.1-12.6]'; the interval is left out where there is none."""
    text = f"{metric.show(figure.median)} {metric.shown_unit}"
    if figure.low is None:
        return text
    return f"{text} [{metric.show(figure.low)}-{metric.show(figure.high)}]"


def gain_text(gain: Ratio) -> str:
    """Return '1.31x [1.28-1.34]'; the interval is left out where there is none."""
    if gain.low is None or gain.high is None:
        return f"{gain.ratio:.2f}x"
    # A small difference that is shown must not read as none.
    shown = outcome(gain) in (Outcome.BETTER, Outcome.WORSE)
    tiny = shown and any(round(value, 2) == 1 for value in (gain.ratio, gain.low, gain.high))
    digits = 4 if tiny else 2
    return f"{gain.ratio:.{digits}f}x [{gain.low:.{digits}f}-{gain.high:.{digits}f}]"


def _memory(group: Sequence[CellReport]) -> str:
    """Return the fairer of the memory metrics that all cells have."""
    return "pss_bytes" if all("pss_bytes" in cell.figures for cell in group) else "rss_bytes"


def _best(
    group: Sequence[CellReport], name: str, word: str, *, confidence: float, seed: int
) -> str | None:
    metric = METRICS[name]
    ranked = sorted(
        (cell for cell in group if name in cell.figures),
        key=lambda c: c.figures[name].median,
        reverse=metric.better == "higher",
    )
    if len(ranked) < 2:
        return None
    best, *others = ranked
    compared: list[tuple[CellReport, Comparison]] = []
    for other in others:
        found = compare_metric(best.cell, other.cell, name, confidence=confidence, seed=seed)
        if found is not None:
            compared.append((other, found))
    value = f"{metric.title} {with_interval(metric, best.figures[name])}"
    if not compared:
        return None
    if any(one.outcome is Outcome.TOO_FEW for _, one in compared):
        least = min_sessions(confidence)
        return (
            f"{word} so far: {best.short} ({value}), but too few repetitions to be sure: an "
            f"interval at {percent(confidence)} needs at least {least}."
        )
    level = [pair for pair in compared if pair[1].outcome is not Outcome.BETTER]
    behind = [pair for pair in compared if pair[1].outcome is Outcome.BETTER]
    if level:
        names = ", ".join(
            f"{other.short} ({gain_text(comparison.gain)})" for other, comparison in level
        )
        text = f"{word}: no difference shown between {best.short} ({value}) and {names}."
        return text if not behind else f"{text} Behind: {_behind(behind, word)}."
    prefix = "" if word in _VERBS else "Behind: "
    return f"{word}: {best.short} ({value}). {prefix}{_behind(behind, word)}."


def _behind(behind: Sequence[tuple[CellReport, Comparison]], word: str) -> str:
    verb = f" {_VERBS[word]}" if word in _VERBS else " by"
    parts = [
        f"{other.short}{verb} {gain_text(comparison.gain)}" for other, comparison in behind[:3]
    ]
    if len(behind) > 3:
        parts.append(f"{len(behind) - 3} more further behind")
    return ", ".join(parts)
