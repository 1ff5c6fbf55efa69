"""Workloads that belong together: one question at several prompt lengths, or by several clients."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from fleetmark_collector.report.cellreport import CellReport
from fleetmark_collector.report.cells import Cell
from fleetmark_collector.report.statistics import Outcome, Ratio, outcome, ratio

KINDS = ("context_sweep", "concurrency")

_NUMBER = re.compile(r"-\d+$", re.ASCII)


@dataclass(frozen=True)
class Step:
    """One cell of a line.

    Attributes:
        at: prompt tokens as the engine counted them, or clients; None where nothing tells.
        scaling: throughput against that of one client; None where there is none to compare with.
    """

    at: float | None
    cell: CellReport
    scaling: Ratio | None


@dataclass(frozen=True)
class Line:
    """One configuration over a series, in the order of prompt lengths or clients.

    Attributes:
        saturated: position of the step from which on more clients show no more throughput; the
            last one where throughput grows to the end. None where that cannot be told.
        beyond: throughput of the next step over that of the saturated one; None at the end.
        growth: TTFT of the longest prompt over that of the shortest; None where one is missing.
    """

    short: str
    device: str
    steps: tuple[Step, ...]
    saturated: int | None
    beyond: Ratio | None
    growth: Ratio | None


@dataclass(frozen=True)
class Series:
    """One workload of the campaign file that became several.

    Attributes:
        workloads: their names.
    """

    name: str
    kind: str
    workloads: tuple[str, ...]
    lines: tuple[Line, ...]


def all_series(cells: Sequence[CellReport], *, confidence: float, seed: int) -> Iterator[Series]:
    """Yield the series of a report, in the order of their first workloads."""
    groups: dict[tuple[str, str], list[CellReport]] = {}
    for cell in cells:
        if cell.cell.workload_kind in KINDS:
            name = _NUMBER.sub("", cell.cell.workload)
            groups.setdefault((name, cell.cell.workload_kind), []).append(cell)
    for (name, kind), members in groups.items():
        lines: dict[str, list[CellReport]] = {}
        for cell in members:
            lines.setdefault(cell.label, []).append(cell)
        yield Series(
            name=name,
            kind=kind,
            workloads=tuple(dict.fromkeys(cell.cell.workload for cell in members)),
            lines=tuple(
                _line(sorted(line, key=_order), confidence=confidence, seed=seed)
                for line in lines.values()
            ),
        )


def place_of(cell: Cell) -> float | None:
    """Return where on its series a cell lies: prompt tokens, or clients."""
    records = [trial.record for trial in cell.trials if not trial.record.warmup]
    if cell.workload_kind == "concurrency":
        told = {record.clients for record in records if record.clients is not None}
        asked = cell.asked.clients if cell.asked else None
        return float(told.pop()) if len(told) == 1 else asked
    counts = [record.prompt_tokens for record in records if record.prompt_tokens is not None]
    return float(median(counts)) if counts else None


def _order(cell: CellReport) -> tuple[float, str]:
    at = place_of(cell.cell)
    if at is None:
        # Nobody counted: then the name says how many were asked for.
        found = _NUMBER.search(cell.cell.workload)
        at = -float(found.group()) if found else 0.0
    return (at, cell.cell.workload)


def _line(cells: Sequence[CellReport], *, confidence: float, seed: int) -> Line:
    throughputs = [cell.cell.values("throughput_tps") for cell in cells]
    one = next((i for i, cell in enumerate(cells) if place_of(cell.cell) == 1), None)

    def against(over: int, under: int) -> Ratio | None:
        if cells[over].output_tokens != cells[under].output_tokens:
            return None
        return ratio(throughputs[over], throughputs[under], confidence=confidence, seed=seed)

    saturated, beyond = None, None
    if len(cells) > 1 and cells[0].cell.workload_kind == "concurrency" and all(throughputs):
        for index in range(len(cells)):
            more = [against(later, index) for later in range(index + 1, len(cells))]
            shown = {Outcome.TOO_FEW if gain is None else outcome(gain) for gain in more}
            if Outcome.BETTER not in shown:
                if Outcome.TOO_FEW not in shown:
                    saturated, beyond = index, more[0] if more else None
                break
    return Line(
        short=cells[0].short,
        device=cells[0].cell.config.device,
        steps=tuple(
            Step(
                at=place_of(cell.cell),
                cell=cell,
                scaling=against(i, one) if one is not None and i != one else None,
            )
            for i, cell in enumerate(cells)
        ),
        saturated=saturated,
        beyond=beyond,
        growth=None
        if len(cells) < 2
        else ratio(
            *(cell.cell.values("ttft_s") for cell in (cells[-1], cells[0])),
            confidence=confidence,
            seed=seed,
        ),
    )
