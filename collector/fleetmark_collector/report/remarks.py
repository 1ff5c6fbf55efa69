"""What a report says beside its figures: problems, failures, provenance, notes."""

from collections.abc import Mapping, Sequence

from fleetmark_collector.report.cellreport import CellReport
from fleetmark_collector.report.cells import Cell
from fleetmark_collector.report.jobs import Job, key_of
from fleetmark_collector.report.judged import reasons_of, usable
from fleetmark_collector.report.labels import clean, percent
from fleetmark_collector.report.model import Provenance, Trouble
from fleetmark_collector.report.statistics import min_sessions
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.records import LoadRecord, TrialRecord, Verdict
from fleetmark_protocol.values import Scalar
from fleetmark_protocol.version import SIMULATED_VERSION


def problem_of(cell: Cell) -> str:
    """Say why a cell has no usable trial."""
    counted = [trial for trial in cell.trials if not trial.record.warmup]
    if any(usable(trial.record) for trial in counted):
        return "no soak is complete"
    if counted:
        reasons = reasons_of(counted, Verdict.INVALID)
        listed = ", ".join(f"{clean(reason)} ({count})" for reason, count in reasons.items())
        return f"all {len(counted)} trials left out: {listed}"
    for job in cell.jobs:
        if job.failure is not None and not job.replaced:
            return f"{job.state}: {clean(job.failure.code)}"
    failed = [load.record.failure for load in cell.loads if load.record.failure is not None]
    if failed:
        return f"load failed: {clean(failed[-1].code)}"
    states = {job.state for job in cell.jobs if not job.replaced}
    if states == {JobState.QUEUED}:
        return "not started yet"
    if JobState.QUEUED in states or JobState.IN_PROGRESS in states:
        return "no result yet"
    return f"no trial recorded ({', '.join(sorted(states))})"


def troubles(cells: Sequence[CellReport], jobs: Sequence[Job]) -> list[Trouble]:
    """List typed failures: of jobs, of loads, of trials by code."""
    found = [
        Trouble(
            f"{job.key.device} {job.key.job_id}",
            f"job {job.state}{', run again' if job.replaced else ''}",
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


def provenance(cells: Sequence[CellReport]) -> list[Provenance]:
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
                bits_per_weight=bits_per_weight(cell),
                engine=engine_details(cell),
            )
    return list(found.values())


def bits_per_weight(cell: Cell) -> float | None:
    """Return what the weights really take, as the device read it from the file."""
    known = (load.record.model_bits_per_weight for load in cell.loads)
    return next((value for value in known if value is not None), None)


def engine_details(cell: Cell) -> dict[str, Scalar]:
    """Return what the engine told at its loads, the latest word on each."""
    return {name: value for load in cell.loads for name, value in load.record.engine.items()}


def dequantized(cell: Cell) -> str | None:
    """Say what a row of floating point stands for where its weights once were quantized."""
    details = engine_details(cell)
    source, as_loaded = details.get("weights_from"), details.get("load_quantization")
    if source is None:
        return None
    kind = as_loaded if as_loaded not in (None, "none") else details.get("dtype")
    cost = "floating point" if kind is None else clean(str(kind))
    return (
        f"weights dequantized from {clean(str(source))}: shows the cost of {cost}, not the "
        "original's quality"
    )


def notes_on(
    cells: Sequence[CellReport], machines: Mapping[tuple[str, str], str], confidence: float
) -> list[str]:
    """Say what holds for the whole report."""
    found: list[str] = []
    made_up = sum(_is_simulated(cell.cell) for cell in cells)
    if made_up:
        found.append(
            f"SIMULATED: the figures of {made_up} of {len(cells)} cells were made up by `fleetmark "
            "simulate`; no engine ran, and they say nothing about any machine"
        )
    by_machine: dict[str, list[str]] = {}
    for fleet, device in dict.fromkeys(cell.cell.config[:2] for cell in cells):
        machine = machines.get((fleet, device))
        if machine is not None:
            by_machine.setdefault(machine, []).append(device)
    found += [
        f"{' and '.join(devices)} are the same machine: what differs between them is noise or "
        "load, not hardware"
        for devices in by_machine.values()
        if len(devices) > 1
    ]
    sources = {source for cell in cells for source in cell.energy_sources}
    if len(sources) > 1:
        found.append(
            f"energy comes from {', '.join(sorted(sources))}: different classes of source are "
            "not compared"
        )
    headlines = [cell.figures[cell.headline] for cell in cells if cell.headline in cell.figures]
    least = min_sessions(confidence)
    few = sum(figure.low is None for figure in headlines)
    if few:
        found.append(
            f"{few} of {len(headlines)} cells have too few repetitions for an interval: at "
            f"{percent(confidence)} a median needs at least {least}"
        )
    return found


def _is_simulated(cell: Cell) -> bool:
    return any(trial.record.backend_version == SIMULATED_VERSION for trial in cell.trials) or any(
        load.record.backend_version == SIMULATED_VERSION for load in cell.loads
    )
