"""Builds a report: reads a campaign's records, makes figures, compares, says what is missing."""

from collections import Counter
from collections.abc import Mapping, Sequence

from fleetmark_collector.report.cellreport import CellReport
from fleetmark_collector.report.cells import Cell, read_cells
from fleetmark_collector.report.compare import comparable_groups, compare
from fleetmark_collector.report.equalwork import equal_work, plainness
from fleetmark_collector.report.figures import (
    CONFIDENCE,
    SEED,
    counts_of,
    figures_of,
    reasons_in,
)
from fleetmark_collector.report.findings import findings
from fleetmark_collector.report.jobs import Config, PlannedJob
from fleetmark_collector.report.judged import energy_sources
from fleetmark_collector.report.labels import full_label, short_labels, sort_key
from fleetmark_collector.report.model import Progress, Report
from fleetmark_collector.report.overhead import overheads
from fleetmark_collector.report.remarks import (
    bits_per_weight,
    notes_on,
    problem_of,
    provenance,
    troubles,
)
from fleetmark_collector.report.repeats import repeats_of
from fleetmark_collector.report.series import all_series
from fleetmark_collector.report.soaks import soaks_of
from fleetmark_collector.report.told import series_findings, soak_findings
from fleetmark_collector.report.worth import worths
from fleetmark_collector.sinks.base import Reader
from fleetmark_protocol.errors import ConfigError

Machines = Mapping[tuple[str, str], str]
"""(fleet, device) -> digest of the machine it runs on, as inventories tell it."""


def build_report(
    reader: Reader,
    campaign_id: str,
    *,
    baseline: str | None = None,
    confidence: float = CONFIDENCE,
    seed: int = SEED,
    machine_ids: Machines | None = None,
    plan: Sequence[PlannedJob] = (),
    known_campaigns: Sequence[str] = (),
) -> Report:
    """Return the report of a campaign, finished or not.

    Args:
        reader: the store.
        campaign_id: the campaign.
        baseline: a part of one configuration's label, unique; None for the one that most others
            can be compared with, of equals the first shown (bare engines before frameworks, warm
            starts before cold, then devices and backends in alphabetical order, least compressed
            weights first).
        confidence: of all intervals, between 0.5 and 0.999.
        seed: of the resampling; the same seed and records give the same report.
        machine_ids: which machine each device is, so that two agents on one machine are seen.
        plan: the jobs as planned; without it, jobs that left no record are not known.
        known_campaigns: for the message when the campaign is not there.

    Raises:
        ConfigError: no such campaign, confidence out of range, or a baseline that is not unique.
        StoreError: the store cannot be read.
    """
    if not 0.5 <= confidence <= 0.999:
        raise ConfigError(f"confidence {confidence}: must lie between 0.5 and 0.999")
    cells, jobs = read_cells(reader, campaign_id, plan)
    if not jobs:
        known = ", ".join(known_campaigns) or "none"
        raise ConfigError(f"no campaign {campaign_id!r} in the store (known: {known})")
    machines = machine_ids or {}
    cells = _in_order(cells)
    configs = list(dict.fromkeys(cell.config for cell in cells))
    with_fleet = len({config.fleet for config in configs}) > 1
    labels = {config: full_label(config, with_fleet=with_fleet) for config in configs}
    shorts, common = short_labels(configs)
    base = _baseline(baseline, cells, labels)
    base_cells = {cell.workload: cell for cell in cells if cell.config == base and cell.measured}
    reports = tuple(
        _report_cell(
            cell,
            labels[cell.config],
            shorts[cell.config],
            base,
            base_cells.get(cell.workload),
            machines,
            confidence=confidence,
            seed=seed,
        )
        for cell in cells
    )
    series = tuple(all_series(reports, confidence=confidence, seed=seed))
    soaks = tuple(soaks_of(reports, reader, confidence=confidence, seed=seed))
    times = [trial.record.time_ns for cell in cells for trial in cell.trials]
    times += [load.record.time_ns for cell in cells for load in cell.loads]
    # What a later job was sent in the place of is told among the failures only.
    current = [job for job in jobs if not job.replaced]
    return Report(
        campaign_id=campaign_id,
        confidence=confidence,
        seed=seed,
        cells=reports,
        jobs=tuple(jobs),
        common=common,
        baseline=labels[base] if base is not None else None,
        findings=(
            *findings(reports, confidence=confidence, seed=seed),
            *series_findings(series),
            *soak_findings(soaks, confidence=confidence),
        ),
        troubles=tuple(troubles(reports, jobs)),
        provenance=tuple(provenance(reports)),
        equal_work=tuple(equal_work(cells)),
        overheads=tuple(overheads(cells, shorts, confidence=confidence, seed=seed)),
        series=series,
        soaks=soaks,
        worths=tuple(worths(reports, confidence=confidence, seed=seed)),
        notes=tuple(notes_on(reports, machines, confidence)),
        progress=Progress(
            jobs_done=sum(job.state.terminal for job in current),
            jobs=len(current),
            trials=sum(len(cell.trials) for cell in cells),
            trials_planned=sum(job.trials_planned for job in current),
        ),
        start_ns=min(times, default=None),
        end_ns=max(times, default=None),
        machines=dict(machines),
    )


def _in_order(cells: Sequence[Cell]) -> list[Cell]:
    """Sort by workload as they came, then by configuration: plans may be shuffled."""
    workloads = {name: i for i, name in enumerate(dict.fromkeys(cell.workload for cell in cells))}
    return sorted(
        cells, key=lambda c: (workloads[c.workload], *sort_key(c.config, bits_per_weight(c)))
    )


def _baseline(
    wanted: str | None, cells: Sequence[Cell], labels: Mapping[Config, str]
) -> Config | None:
    if wanted is None:
        return _most_comparable(cells)
    exact = [config for config, label in labels.items() if label == wanted]
    part = [config for config, label in labels.items() if wanted.lower() in label.lower()]
    found = exact or part
    if len(found) != 1:
        names = "\n  ".join(labels[config] for config in found or labels)
        problem = "fits more than one cell" if found else "fits no cell"
        raise ConfigError(
            f"baseline {wanted!r} {problem}; give a part that only one of these has:\n  {names}"
        )
    return found[0]


def _most_comparable(cells: Sequence[Cell]) -> Config | None:
    """Return the configuration that most others can be compared with; of equals the plainest."""
    partners: Counter[Config] = Counter()
    for workload in dict.fromkeys(cell.workload for cell in cells):
        usable = [cell for cell in cells if cell.workload == workload and cell.measured]
        for group in comparable_groups(usable):
            partners.update({cell.config: len(group) for cell in group})
    order = dict.fromkeys(cell.config for cell in cells if cell.measured)
    plain = sorted(order, key=plainness)
    return max(plain, key=lambda config: partners[config], default=None)


def _report_cell(
    cell: Cell,
    label: str,
    short: str,
    base: Config | None,
    base_cell: Cell | None,
    machines: Machines,
    *,
    confidence: float,
    seed: int,
) -> CellReport:
    left_out, suspected = reasons_in(cell)
    records = [trial.record for trial in cell.measured]
    versus = None
    if base_cell is not None and cell is not base_cell:
        mine, theirs = (machines.get(one.config[:2]) for one in (cell, base_cell))
        same = mine is not None and mine == theirs
        versus = compare(cell, base_cell, confidence=confidence, seed=seed, same_machine=same)
    return CellReport(
        cell=cell,
        label=label,
        short=short,
        counts=counts_of(cell),
        left_out=left_out,
        suspected=suspected,
        figures=figures_of(cell, confidence=confidence, seed=seed),
        prompt_tokens=tuple(sorted({r.prompt_tokens for r in records if r.prompt_tokens})),
        output_tokens=tuple(sorted({r.output_tokens for r in records if r.output_tokens})),
        energy_sources=energy_sources(cell.measured),
        problem=None if records else problem_of(cell),
        is_baseline=cell.config == base,
        versus=versus,
        repeats=repeats_of(cell, confidence=confidence, seed=seed),
    )
