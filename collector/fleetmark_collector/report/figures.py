"""The figures of one cell: what a report shows of it, and what dashboards are told of it."""

from collections import Counter

from fleetmark_collector.report.cells import REPORTED, Cell, verdict_of
from fleetmark_collector.report.model import Counts
from fleetmark_collector.report.statistics import Estimate, estimate
from fleetmark_protocol.records import Verdict

CONFIDENCE = 0.95
"""Of all intervals, unless somebody asks for another."""

SEED = 0
"""Of the resampling: the same records give the same intervals wherever they are computed."""


def figures_of(
    cell: Cell, *, confidence: float = CONFIDENCE, seed: int = SEED
) -> dict[str, Estimate]:
    """Return the median and its interval of each metric that the cell has values of."""
    return {
        name: found
        for name in REPORTED
        if (found := estimate(cell.values(name), confidence=confidence, seed=seed)) is not None
    }


def counts_of(cell: Cell) -> Counts:
    """Return how the cell's trials came out."""
    counted = [trial for trial in cell.trials if not trial.record.warmup]
    verdicts = Counter(verdict_of(trial.record) for trial in counted)
    return Counts(
        valid=verdicts[Verdict.VALID],
        suspect=verdicts[Verdict.SUSPECT],
        invalid=verdicts[Verdict.INVALID],
        warmup=len(cell.trials) - len(counted),
        superseded=len(cell.superseded),
        planned=cell.planned,
    )
