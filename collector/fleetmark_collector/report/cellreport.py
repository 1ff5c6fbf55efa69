"""A cell with its figures, as every part of a report knows it."""

from collections.abc import Mapping
from dataclasses import dataclass

from fleetmark_collector.report.cells import Cell
from fleetmark_collector.report.compare import Versus
from fleetmark_collector.report.figures import Counts, latency_of
from fleetmark_collector.report.repeats import Repeats
from fleetmark_collector.report.statistics import Estimate


@dataclass(frozen=True)
class CellReport:
    """A cell with its figures.

    Attributes:
        label: all that makes its configuration; equal for the same cell of another workload.
        short: the parts that differ between the cells of this report.
        left_out: reasons of INVALID trials, counted, and `load_included` for those of a warm cell
            that had a load in the request.
        suspected: reasons of SUSPECT trials, counted; these are in the figures.
        figures: by metric, those there are.
        prompt_tokens: of the usable trials; several numbers where prompts differ.
        problem: why there is no usable trial; None where there are some.
        versus: None for the baseline itself, and where the workload has no baseline.
        repeats: how often it was measured, by how many processes.
    """

    cell: Cell
    label: str
    short: str
    counts: Counts
    left_out: Mapping[str, int]
    suspected: Mapping[str, int]
    figures: Mapping[str, Estimate]
    prompt_tokens: tuple[int, ...]
    output_tokens: tuple[int, ...]
    energy_sources: tuple[str, ...]
    problem: str | None
    is_baseline: bool
    versus: Versus | None
    repeats: Repeats

    @property
    def headline(self) -> str:
        """The metric that this workload is about."""
        kind = self.cell.workload_kind
        if kind == "context_sweep" and "ttft_s" in self.figures:
            return "ttft_s"
        return {"concurrency": "throughput_tps", "soak": "sustained_tps"}.get(
            kind, latency_of(self.cell)
        )
