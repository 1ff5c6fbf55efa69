"""The figures of one cell: what a report shows of it, and what dashboards are told of it."""

from collections import Counter
from dataclasses import dataclass

from fleetmark_collector.report.cells import Cell
from fleetmark_collector.report.judged import reasons_of, verdict_of
from fleetmark_collector.report.reported import REPORTED
from fleetmark_collector.report.statistics import Estimate, estimate
from fleetmark_protocol.records import Verdict

CONFIDENCE = 0.95
"""Of all intervals, unless somebody asks for another."""

SEED = 0
"""Of the resampling: the same records give the same intervals wherever they are computed."""

SHOWN = ("latency_p95_s", *REPORTED)
"""All metrics of a cell that have a figure."""


@dataclass(frozen=True)
class Counts:
    """How a cell's trials came out; `invalid` includes those that failed, and the odd ones."""

    valid: int
    suspect: int
    invalid: int
    warmup: int
    superseded: int
    planned: int | None


def latency_of(cell: Cell) -> str:
    """Return the metric that is a repetition's latency."""
    if cell.cold:
        return "latency_cold_s"
    return "session_latency_s" if cell.workload_kind == "multi" else "latency_s"


def figures_of(
    cell: Cell, *, confidence: float = CONFIDENCE, seed: int = SEED
) -> dict[str, Estimate]:
    """Return the median and its interval of each metric that the cell has values of."""
    found = {
        name: estimate(cell.values(name), confidence=confidence, seed=seed) for name in REPORTED
    }
    if cell.workload_kind == "concurrency":
        found["latency_p95_s"] = estimate(
            cell.values("latency_s"), confidence=confidence, seed=seed, quantile=0.95
        )
    return {name: figure for name, figure in found.items() if figure is not None}


def counts_of(cell: Cell) -> Counts:
    """Return how the cell's trials came out."""
    counted = [trial for trial in cell.trials if not trial.record.warmup]
    odd = cell.odd
    verdicts = Counter(verdict_of(trial.record) for trial in counted)
    verdicts.subtract(verdict_of(trial.record) for trial in odd)
    return Counts(
        valid=verdicts[Verdict.VALID],
        suspect=verdicts[Verdict.SUSPECT],
        invalid=verdicts[Verdict.INVALID] + len(odd),
        warmup=len(cell.trials) - len(counted),
        superseded=len(cell.superseded),
        planned=cell.planned,
    )


def reasons_in(cell: Cell) -> tuple[dict[str, int], dict[str, int]]:
    """Return why trials of a cell were left out, and why others are suspect, counted."""
    odd = cell.odd
    ids = {id(trial) for trial in odd}
    counted = [one for one in cell.trials if not one.record.warmup and id(one) not in ids]
    left_out = reasons_of(counted, Verdict.INVALID)
    if odd:
        left_out["load_included"] = len(odd)
    return left_out, reasons_of(counted, Verdict.SUSPECT)
