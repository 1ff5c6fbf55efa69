"""The records of simulated loads and trials: made-up figures, put together as real ones are."""

from typing import Any

from fleetmark_agent.simulation.figures import CORES, FREQ_HZ, MODEL_BYTES
from fleetmark_agent.trials import PlannedTrial, measured_fields
from fleetmark_agent.verdict import Observed, judge
from fleetmark_protocol.messages import JobSpec
from fleetmark_protocol.records import LoadRecord, TrialRecord
from fleetmark_protocol.version import SIMULATED_VERSION


def run_fields(spec: JobSpec, attempt: int) -> dict[str, Any]:
    """Return what all records of an attempt share, the mark that it is simulated among it."""
    return {
        "campaign_id": spec.campaign_id,
        "job_id": spec.job_id,
        "attempt": attempt,
        "backend": spec.backend,
        "backend_version": SIMULATED_VERSION,
        "model": spec.model.name,
        "model_sha256": spec.model.sha256,
        "model_origin_sha256": spec.model.sha256,
        "quantization": spec.model.quantization,
        "options": spec.labels,
    }


def load_record(run: dict[str, Any], load_s: float, time_ns: int) -> LoadRecord:
    """Return the record of a load that took so long."""
    return LoadRecord.model_validate(
        {
            **run,
            "time_ns": time_ns,
            "load_s": load_s,
            "model_bytes": MODEL_BYTES,
            "engine": {"simulated": True},
        }
    )


def trial_record(
    run: dict[str, Any],
    spec: JobSpec,
    trial: PlannedTrial,
    answer: dict[str, Any],
    window: dict[str, Any],
    time_ns: int,
    load_s: float | None,
) -> TrialRecord:
    """Return the record of a trial, its metrics and verdict computed as an agent does.

    Args:
        run: see `run_fields`.
        spec: the job.
        trial: which of its trials.
        answer: what a worker would have sent.
        window: what the sensors would have seen.
        time_ns: when it began.
        load_s: of the load just before it; None where there was another trial between.
    """
    cold = spec.options.start == "cold"
    output_tokens = trial.workload.output_tokens
    seen = {**window, **measured_fields(answer)}
    if load_s is not None:
        seen["latency_cold_s"] = load_s + seen["latency_s"]
        if cold:
            seen["load_s"] = load_s
    verdict, reasons = judge(_observed(seen, output_tokens, ignore_eos=spec.options.ignore_eos))
    return TrialRecord.model_validate(
        {
            **run,
            **seen,
            "time_ns": time_ns,
            **trial.fields(cold=cold),
            "verdict": verdict,
            "verdict_reasons": reasons,
        }
    )


def _observed(seen: dict[str, Any], output_tokens: int, *, ignore_eos: bool) -> Observed:
    return Observed(
        prompt_tokens=seen["prompt_tokens"],
        prompt_tokens_evaluated=seen["prompt_tokens_evaluated"],
        output_tokens=seen["output_tokens"],
        output_tokens_requested=output_tokens,
        ignore_eos=ignore_eos,
        swap_in_bytes=seen["swap_in_bytes"],
        cpu_steal_percent_mean=seen["cpu_steal_percent_mean"],
        cpu_freq_hz_min=seen["cpu_freq_hz_min"],
        cpu_freq_hz_max_of_job=FREQ_HZ,
        quiet_before=True,
        cores=CORES,
        cpu_percent_mean=seen["cpu_percent_mean"],
        backend_cpu_percent_mean=seen["backend_cpu_percent_mean"],
        agent_cpu_percent=seen["agent_cpu_percent"],
    )
