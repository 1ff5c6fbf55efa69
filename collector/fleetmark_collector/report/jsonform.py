"""A report as plain data, for programs."""

from collections.abc import Mapping
from typing import Any

from fleetmark_collector.report.cellreport import CellReport
from fleetmark_collector.report.compare import Versus
from fleetmark_collector.report.equalwork import EqualWork
from fleetmark_collector.report.model import Report
from fleetmark_collector.report.overhead import Overhead
from fleetmark_collector.report.series import Series
from fleetmark_collector.report.soaks import Soak
from fleetmark_collector.report.statistics import Estimate, Ratio
from fleetmark_collector.report.worth import Worth
from fleetmark_protocol.metrics import METRICS

JSON_SCHEMA_VERSION = 1
"""Goes up when a field of the JSON changes its meaning or goes away."""


def as_json(report: Report) -> dict[str, Any]:
    """Return the report as plain data."""
    progress = report.progress
    return {
        "schema_version": JSON_SCHEMA_VERSION,
        "campaign_id": report.campaign_id,
        "start_ns": report.start_ns,
        "end_ns": report.end_ns,
        "confidence": report.confidence,
        "seed": report.seed,
        "baseline": report.baseline,
        "progress": {
            "complete": progress.complete,
            "jobs": progress.jobs,
            "jobs_done": progress.jobs_done,
            "trials": progress.trials,
            "trials_planned": progress.trials_planned,
        },
        "units": {name: METRICS[name].unit for cell in report.cells for name in cell.figures},
        "cells": [_cell(cell) for cell in report.cells],
        "findings": [vars(one) for one in report.findings],
        "failures": [vars(one) for one in report.troubles],
        "provenance": [vars(one) for one in report.provenance],
        "equal_work": [_equal_work(group) for group in report.equal_work],
        "overheads": [_overhead(one) for one in report.overheads],
        "series": [_series(one) for one in report.series],
        "soaks": [_soak(one) for one in report.soaks],
        "worth": [_worth(one) for one in report.worths],
        "notes": list(report.notes),
        "machines": [
            {"fleet": fleet, "device": device, "machine_id": machine}
            for (fleet, device), machine in report.machines.items()
        ],
    }


def _cell(report: CellReport) -> dict[str, Any]:
    config, asked = report.cell.config, report.cell.asked
    return {
        "label": report.label,
        "fleet": config.fleet,
        "device": config.device,
        "backend": config.backend,
        "model": config.model,
        "quantization": config.quantization,
        "options": dict(config.options),
        "workload": report.cell.workload,
        "workload_kind": report.cell.workload_kind,
        "baseline": report.is_baseline,
        "problem": report.problem,
        "trials": vars(report.counts),
        "left_out": dict(report.left_out),
        "suspected": dict(report.suspected),
        "prompt_tokens": list(report.prompt_tokens),
        "output_tokens": list(report.output_tokens),
        "energy_sources": list(report.energy_sources),
        "clients": asked.clients if asked else None,
        "duration_s": asked.duration_s if asked else None,
        "page_cache": asked.page_cache if asked and asked.kind == "coldstart" else None,
        "repetitions": vars(report.repeats),
        "figures": {name: _figure(figure) for name, figure in report.figures.items()},
        "versus_baseline": _versus(report.versus),
    }


def _equal_work(group: EqualWork) -> dict[str, Any]:
    return {
        "fleet": group.fleet,
        "device": group.device,
        "model": group.model,
        "quantization": group.quantization,
        "engines": [
            {
                "name": one.name,
                "backend": one.config.backend,
                "quantization": one.config.quantization,
                "options": dict(one.config.options),
                "repeats_itself": one.repeats,
            }
            for one in group.engines
        ],
        "pairs": [
            {
                "engines": [pair.first, pair.second],
                "verdict": pair.work.worst.kind.value,
                "detail": pair.work.worst.detail,
                "diverges_at": pair.work.worst.at,
                "prompts": pair.work.prompts,
                "prompts_identical": pair.work.identical,
                "weights": pair.form,
            }
            for pair in group.pairs
        ],
    }


def _overhead(one: Overhead) -> dict[str, Any]:
    return {
        "workload": one.workload,
        "device": one.device,
        "framework": one.framework,
        "bare": one.bare,
        "why_not": one.not_comparable,
        "ratios": {name: _ratio(one) for name, one in one.ratios.items()},
    }


def _series(series: Series) -> dict[str, Any]:
    return {
        "name": series.name,
        "kind": series.kind,
        "workloads": list(series.workloads),
        "lines": [
            {
                "label": line.steps[0].cell.label,
                "saturated_at": None if line.saturated is None else line.steps[line.saturated].at,
                "gain_beyond": _ratio(line.beyond),
                "ttft_growth": _ratio(line.growth),
                "steps": [
                    {
                        "workload": step.cell.cell.workload,
                        "at": step.at,
                        "scaling": _ratio(step.scaling),
                    }
                    for step in line.steps
                ],
            }
            for line in series.lines
        ],
    }


def _soak(soak: Soak) -> dict[str, Any]:
    return {
        "workload": soak.cell.cell.workload,
        "label": soak.cell.label,
        "complete": soak.complete,
        "cut_short_s": list(soak.cut_short_s),
        "asked_s": soak.asked_s,
        "kept": _ratio(soak.kept),
        "time_to_throttle_s": soak.time_to_throttle_s,
        "throttling_told": soak.told,
        "temperature_start_c": soak.temperature_start_c,
        "temperature_max_c": soak.temperature_max_c,
    }


def _worth(worth: Worth) -> dict[str, Any]:
    return {
        "workload": worth.workload,
        "cells": [
            {
                "label": value.cell.label,
                "usd_per_hour": value.usd_per_hour,
                "standing": None if value.standing is None else value.standing.value,
                "best_over_this": _ratio(value.gain),
                "problem": value.cell.problem,
            }
            for value in worth.values
        ],
    }


def _ratio(found: Ratio | None) -> dict[str, Any] | None:
    return None if found is None else vars(found)


def _figure(figure: Estimate) -> dict[str, Any]:
    return {
        "median": figure.median,
        "low": figure.low,
        "high": figure.high,
        "relative_half_width": figure.relative_half_width,
        "min": figure.minimum,
        "max": figure.maximum,
        "values": figure.count,
        "sessions": figure.sessions,
        "processes": figure.processes,
    }


def _versus(versus: Versus | None) -> Mapping[str, Any] | None:
    if versus is None:
        return None
    return {
        "comparable": versus.not_comparable is None,
        "why_not": versus.not_comparable,
        "same_outputs": versus.same_outputs,
        "notes": list(versus.notes),
        "metrics": {
            name: {
                "gain": one.gain.ratio,
                "low": one.gain.low,
                "high": one.gain.high,
                "paired": one.gain.paired,
                "outcome": one.outcome.value,
            }
            for name, one in versus.comparisons.items()
        },
    }
