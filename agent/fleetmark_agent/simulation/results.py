"""The records of simulated loads and trials: made-up figures, put together as real ones are."""

from collections.abc import Sequence
from typing import Any

from fleetmark_agent.cost import cost_fields, round_cost_usd
from fleetmark_agent.course import Round
from fleetmark_agent.results import Start
from fleetmark_agent.rounds import round_fields, round_s
from fleetmark_agent.simulation.figures import CORES, FREQ_HZ, MODEL_BYTES
from fleetmark_agent.trials import measured_fields, sha256_text
from fleetmark_agent.verdict import Observed, judge
from fleetmark_protocol.messages import JobSpec
from fleetmark_protocol.records import LoadRecord, TrialRecord
from fleetmark_protocol.version import SIMULATED_VERSION


def run_fields(spec: JobSpec, attempt: int) -> dict[str, Any]:
    """Return what all records of an attempt share, the mark that it is simulated among it."""
    weights = spec.model.sha256
    if weights is None and not spec.model.ref.startswith("remote:"):
        # A real device knows the digest of what it fetched; here one reference is one model.
        weights = sha256_text(spec.model.ref)
    return {
        "campaign_id": spec.campaign_id,
        "job_id": spec.job_id,
        "attempt": attempt,
        "backend": spec.backend,
        "backend_version": SIMULATED_VERSION,
        "model": spec.model.name,
        "model_sha256": weights,
        "model_origin_sha256": weights,
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


def trial_records(
    run: dict[str, Any],
    spec: JobSpec,
    asked: Round,
    answers: Sequence[dict[str, Any]],
    windows: Sequence[dict[str, Any]],
    start: Start,
) -> list[TrialRecord]:
    """Return the records of a round, their metrics and verdicts computed as an agent does.

    Args:
        run: see `run_fields`.
        spec: the job.
        asked: what was asked.
        answers: what a worker would have sent for each request.
        windows: what the sensors would have seen of each.
        start: how the round began.
    """
    shared: dict[str, Any] = {"soak_s": start.soak_s}
    cost_usd: float | None = None
    if asked.trials[0].client is not None:
        tokens = asked.workload.output_tokens
        shared |= round_fields(answers, tokens, ignore_eos=spec.options.ignore_eos)
        cost_usd = round_cost_usd(spec.usd_per_hour, round_s(answers), len(answers))
    if asked.cold:
        shared |= {"load_s": start.load_s, "model_cached_percent": start.model_cached_percent}
    records = []
    for trial, answer, window in zip(asked.trials, answers, windows, strict=True):
        seen = {**window, **shared, **measured_fields(answer)}
        if start.load_s is not None:
            seen["latency_cold_s"] = start.load_s + seen["latency_s"]
        seen |= cost_fields(spec.usd_per_hour, seen["latency_s"], seen["output_tokens"], cost_usd)
        verdict, reasons = judge(_observed(seen, spec, asked, start))
        records.append(
            TrialRecord.model_validate(
                {
                    **run,
                    **seen,
                    "time_ns": start.time_ns,
                    **trial.fields(cold=asked.cold),
                    "verdict": verdict,
                    "verdict_reasons": reasons,
                }
            )
        )
    return records


def _observed(seen: dict[str, Any], spec: JobSpec, asked: Round, start: Start) -> Observed:
    return Observed(
        prompt_tokens=seen["prompt_tokens"],
        prompt_tokens_evaluated=seen["prompt_tokens_evaluated"],
        output_tokens=seen["output_tokens"],
        output_tokens_requested=asked.workload.output_tokens,
        ignore_eos=spec.options.ignore_eos,
        swap_in_bytes=seen["swap_in_bytes"],
        cpu_steal_percent_mean=seen["cpu_steal_percent_mean"],
        cpu_freq_hz_min=seen["cpu_freq_hz_min"],
        cpu_freq_hz_max_of_job=FREQ_HZ,
        quiet_before=True,
        cooled_before=start.cooled,
        soak=start.soak_s is not None,
        cores=CORES,
        cpu_percent_mean=seen["cpu_percent_mean"],
        backend_cpu_percent_mean=seen["backend_cpu_percent_mean"],
        agent_cpu_percent=seen["agent_cpu_percent"],
    )
