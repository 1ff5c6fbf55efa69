"""Builds a report: reads a campaign's records, makes figures, compares, says what is missing."""

from collections import Counter
from collections.abc import Mapping, Sequence

from fleetmark_collector.report.cells import (
    REPORTED,
    Cell,
    read_cells,
    reasons_of,
    verdict_of,
)
from fleetmark_collector.report.compare import compare
from fleetmark_collector.report.findings import findings
from fleetmark_collector.report.jobs import Config, Job, PlannedJob, key_of
from fleetmark_collector.report.labels import clean, full_label, short_labels, sort_key
from fleetmark_collector.report.model import (
    CellReport,
    Counts,
    Progress,
    Provenance,
    Report,
    Trouble,
)
from fleetmark_collector.report.statistics import estimate, min_sessions
from fleetmark_collector.sinks.base import Reader
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.records import LoadRecord, TrialRecord, Verdict

Machines = Mapping[tuple[str, str], str]
"""(fleet, device) -> digest of the machine it runs on, as inventories tell it."""


def build_report(
    reader: Reader,
    campaign_id: str,
    *,
    baseline: str | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    machine_ids: Machines | None = None,
    plan: Sequence[PlannedJob] = (),
    known_campaigns: Sequence[str] = (),
) -> Report:
    """Return the report of a campaign, finished or not.

    Args:
        reader: the store.
        campaign_id: the campaign.
        baseline: a part of one configuration's label, unique; None for the first one shown that
            has a usable trial (devices and backends in alphabetical order, least compressed
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
    times = [trial.record.time_ns for cell in cells for trial in cell.trials]
    times += [load.record.time_ns for cell in cells for load in cell.loads]
    return Report(
        campaign_id=campaign_id,
        confidence=confidence,
        seed=seed,
        cells=reports,
        jobs=tuple(jobs),
        common=common,
        baseline=labels[base] if base is not None else None,
        findings=tuple(findings(reports, confidence=confidence, seed=seed)),
        troubles=tuple(_troubles(reports, jobs)),
        provenance=tuple(_provenance(reports)),
        notes=tuple(_notes(reports, machines, confidence)),
        progress=Progress(
            jobs_done=sum(job.state.terminal for job in jobs),
            jobs=len(jobs),
            trials=sum(len(cell.trials) for cell in cells),
            trials_planned=sum(job.trials_planned for job in jobs),
        ),
        start_ns=min(times, default=None),
        end_ns=max(times, default=None),
        machines=dict(machines),
    )


def _in_order(cells: Sequence[Cell]) -> list[Cell]:
    """Sort by workload as they came, then by configuration: plans may be shuffled."""
    workloads = {name: i for i, name in enumerate(dict.fromkeys(cell.workload for cell in cells))}
    return sorted(
        cells, key=lambda c: (workloads[c.workload], *sort_key(c.config, _bits_per_weight(c)))
    )


def _baseline(
    wanted: str | None, cells: Sequence[Cell], labels: Mapping[Config, str]
) -> Config | None:
    if wanted is None:
        usable = (cell.config for cell in cells if cell.measured)
        return next(usable, None)
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
    figures = {
        name: found
        for name in REPORTED
        if (found := estimate(cell.values(name), confidence=confidence, seed=seed)) is not None
    }
    counted = [trial for trial in cell.trials if not trial.record.warmup]
    verdicts = Counter(verdict_of(trial.record) for trial in counted)
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
        counts=Counts(
            valid=verdicts[Verdict.VALID],
            suspect=verdicts[Verdict.SUSPECT],
            invalid=verdicts[Verdict.INVALID],
            warmup=len(cell.trials) - len(counted),
            superseded=len(cell.superseded),
            planned=cell.planned,
        ),
        left_out=reasons_of(counted, Verdict.INVALID),
        suspected=reasons_of(counted, Verdict.SUSPECT),
        figures=figures,
        prompt_tokens=tuple(sorted({r.prompt_tokens for r in records if r.prompt_tokens})),
        output_tokens=tuple(sorted({r.output_tokens for r in records if r.output_tokens})),
        energy_sources=tuple(sorted({r.energy_source for r in records if r.energy_source})),
        problem=None if records else _problem(cell),
        is_baseline=cell.config == base,
        versus=versus,
    )


def _problem(cell: Cell) -> str:
    """Say why a cell has no usable trial."""
    counted = [trial for trial in cell.trials if not trial.record.warmup]
    if counted:
        reasons = reasons_of(counted, Verdict.INVALID)
        listed = ", ".join(f"{clean(reason)} ({count})" for reason, count in reasons.items())
        return f"all {len(counted)} trials left out: {listed}"
    for job in cell.jobs:
        if job.failure is not None:
            return f"{job.state}: {clean(job.failure.code)}"
    failed = [load.record.failure for load in cell.loads if load.record.failure is not None]
    if failed:
        return f"load failed: {clean(failed[-1].code)}"
    states = {job.state for job in cell.jobs}
    if states == {JobState.QUEUED}:
        return "not started yet"
    if JobState.QUEUED in states or JobState.IN_PROGRESS in states:
        return "no result yet"
    return f"no trial recorded ({', '.join(sorted(states))})"


def _troubles(cells: Sequence[CellReport], jobs: Sequence[Job]) -> list[Trouble]:
    """List typed failures: of jobs, of loads, of trials by code."""
    found = [
        Trouble(
            f"{job.key.device} {job.key.job_id}",
            f"job {job.state}",
            clean(job.failure.code),
            clean(job.failure.message),
            1,
        )
        for job in jobs
        if job.failure is not None
    ]
    told = {(job.key, job.failure.code) for job in jobs if job.failure is not None}
    loads = {
        (load.fleet, load.device, load.epoch, load.seq): (cell.label, load.record.failure)
        for cell in cells
        for load in cell.cell.loads
        # A load that failed usually is why its job failed: say it once.
        if load.record.failure is not None and (key_of(load), load.record.failure.code) not in told
    }
    found += [
        Trouble(label, "load", clean(failure.code), clean(failure.message), 1)
        for label, failure in loads.values()
    ]
    for cell in cells:
        by_code: dict[str, list[str]] = {}
        for trial in cell.cell.trials:
            failure = trial.record.failure
            if failure is not None:
                by_code.setdefault(failure.code, []).append(failure.message)
        where = f"{cell.label} {clean(cell.cell.workload)}"
        found += [
            Trouble(where, "trial", clean(code), clean(messages[0]), len(messages))
            for code, messages in by_code.items()
        ]
    return found


def _provenance(cells: Sequence[CellReport]) -> list[Provenance]:
    """Return what stands behind each configuration, once however many workloads it has."""
    found: dict[str, Provenance] = {}
    for report in cells:
        cell = report.cell
        records: list[TrialRecord | LoadRecord] = [trial.record for trial in cell.trials]
        records += [load.record for load in cell.loads]
        if records and report.label not in found:
            sizes = [r.record.model_bytes for r in cell.loads if r.record.model_bytes]
            found[report.label] = Provenance(
                label=report.label,
                backend_version=next(
                    (r.backend_version for r in records if r.backend_version), None
                ),
                model_sha256=next((r.model_sha256 for r in records if r.model_sha256), None),
                model_origin_sha256=next(
                    (r.model_origin_sha256 for r in records if r.model_origin_sha256), None
                ),
                model_bytes=sizes[0] if sizes else None,
                bits_per_weight=_bits_per_weight(cell),
            )
    return list(found.values())


def _bits_per_weight(cell: Cell) -> float | None:
    bits = (load.record.model_bits_per_weight for load in cell.loads)
    return next((value for value in bits if value is not None), None)


def _notes(cells: Sequence[CellReport], machines: Machines, confidence: float) -> list[str]:
    """Say what holds for the whole report."""
    notes: list[str] = []
    by_machine: dict[str, list[str]] = {}
    for fleet, device in dict.fromkeys(cell.cell.config[:2] for cell in cells):
        machine = machines.get((fleet, device))
        if machine is not None:
            by_machine.setdefault(machine, []).append(device)
    notes += [
        f"{' and '.join(devices)} are the same machine: what differs between them is noise or "
        "load, not hardware"
        for devices in by_machine.values()
        if len(devices) > 1
    ]
    sources = {source for cell in cells for source in cell.energy_sources}
    if len(sources) > 1:
        notes.append(
            f"energy comes from {', '.join(sorted(sources))}: different classes of source are "
            "not compared"
        )
    headlines = [cell.figures[cell.headline] for cell in cells if cell.headline in cell.figures]
    least = min_sessions(confidence)
    few = sum(figure.low is None for figure in headlines)
    if few:
        notes.append(
            f"{few} of {len(headlines)} cells have too few repetitions for an interval: at "
            f"{confidence:.1%} a median needs at least {least}"
        )
    return notes
