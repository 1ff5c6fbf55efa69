"""The records of one attempt: what was asked, measured and observed, put together and judged."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from fleetmark_agent.cost import cost_fields, round_cost_usd
from fleetmark_agent.course import Round
from fleetmark_agent.engine import Timed
from fleetmark_agent.models.stored import StoredModel
from fleetmark_agent.recorder import failure_of
from fleetmark_agent.rounds import incomplete, round_fields, round_s
from fleetmark_agent.telemetry.sampler import Window
from fleetmark_agent.trials import PlannedTrial, measured_fields
from fleetmark_agent.verdict import Observed, judge
from fleetmark_protocol.messages import JobSpec, Options
from fleetmark_protocol.records import LoadRecord, TrialRecord, Verdict

MEMORY_FIELDS = ("rss_bytes", "rss_file_bytes", "pss_bytes")
MAX_ENGINE_TEXT = 512
"""What a plain value of a record may hold."""


@dataclass(frozen=True)
class Start:
    """How a round began.

    Attributes:
        time_ns: when its window opened, since the Unix epoch.
        load_s: of the load just before it; None where there was another request between, or where
            the engine loads within the request.
        soak_s: how long its soak had gone on then; None where it is none.
        cooled: whether the machine had cooled down before; None where it was not to, or is not
            known.
        model_cached_percent: of the model's files, before the engine was started for it; None
            where it was started for others, or where it cannot be told.
    """

    time_ns: int
    load_s: float | None = None
    soak_s: float | None = None
    cooled: bool | None = None
    model_cached_percent: float | None = None


class Results:
    """Makes records; knows what all of an attempt share."""

    def __init__(
        self, spec: JobSpec, options: Options, attempt: int, model: StoredModel, *, quiet: bool
    ) -> None:
        """Prepare.

        Args:
            spec: the job.
            options: the job's, resolved.
            attempt: its number, from 1.
            model: what is loaded.
            quiet: whether the machine was quiet before the start.
        """
        self._spec = spec
        self._options = options
        self._model = model
        self._quiet = quiet
        self._freq_hz_max: float | None = None
        self._run: dict[str, Any] = {
            "campaign_id": spec.campaign_id,
            "job_id": spec.job_id,
            "attempt": attempt,
            "backend": spec.backend,
            "model": spec.model.name,
            "model_sha256": model.sha256,
            "model_origin_sha256": model.origin_sha256,
            "quantization": model.quantization,
            "options": spec.labels,
        }

    def load(self, done: Timed) -> LoadRecord:
        """Return the record of a load, failed or not; trials after it have its engine's version."""
        if done.error is not None:
            return self._load({"failure": failure_of(done.error)})
        self._run["backend_version"] = done.answer["version"]
        memory: dict[str, Any] = {}
        if done.answer.get("service_port") is None:
            # An engine outside of our tree is followed once it is known, which is now.
            summary = done.window.summary()
            memory = {name: summary[name] for name in MEMORY_FIELDS if name in summary}
        told = {name: _short(value) for name, value in done.answer["details"].items()}
        return self._load({"load_s": done.answer["load_s"], "engine": told, **memory})

    def trials(self, asked: Round, dones: Sequence[Timed], start: Start) -> list[TrialRecord]:
        """Return the records of a round, one for each of its trials.

        Args:
            asked: what was asked.
            dones: what came of it, trial by trial.
            start: how it began.
        """
        shared: dict[str, Any] = {}
        cost_usd: float | None = None
        if asked.trials[0].client is not None:
            answers = [done.answer for done in dones]
            shared = dict(round_fields(answers, **self._whole(asked)))
            cost_usd = round_cost_usd(self._spec.usd_per_hour, round_s(answers), len(dones))
        records = []
        for trial, done in zip(asked.trials, dones, strict=True):
            fields = {**shared, **self._fields(trial, done, start, cold=asked.cold)}
            fields |= cost_fields(
                self._spec.usd_per_hour,
                fields.get("latency_s"),
                fields.get("output_tokens"),
                cost_usd,
            )
            seen = {**done.window.summary(), **fields}
            if seen.get("energy_j") is not None:
                # Those who asked at the same time have one window, and share what went in.
                seen["energy_j"] /= len(dones)
            others = [one.answer for one in dones if one is not done]
            alone = any(incomplete(one, **self._whole(asked)) for one in others)
            observed = self._observed(seen, done.window, trial, start, incomplete=alone)
            verdict, reasons = judge(observed)
            records.append(
                TrialRecord.model_validate(
                    {
                        **self._run,
                        **seen,
                        "time_ns": start.time_ns,
                        **trial.fields(cold=asked.cold),
                        "verdict": verdict,
                        "verdict_reasons": reasons,
                    }
                )
            )
        return records

    def _whole(self, asked: Round) -> dict[str, Any]:
        """Return what a client of a round must have done, for `rounds.incomplete`."""
        tokens = asked.workload.output_tokens
        return {"asked": tokens, "ignore_eos": self._options.ignore_eos}

    def _load(self, fields: dict[str, Any]) -> LoadRecord:
        return LoadRecord.model_validate(
            {
                **self._run,
                "time_ns": time.time_ns(),
                "model_bytes": self._model.bytes,
                "model_bits_per_weight": self._model.bits_per_weight,
                **fields,
            }
        )

    def _fields(
        self, trial: PlannedTrial, done: Timed, start: Start, *, cold: bool
    ) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "cpu_percent_before": done.window.before.values.get("cpu_percent"),
            "soak_s": start.soak_s,
            "model_cached_percent": start.model_cached_percent,
        }
        if done.error is not None:
            return {**fields, "failure": failure_of(done.error)}
        # Greedy output is the same in every repetition: the first one's ids tell where another
        # engine diverges, the digests of the others that they do not.
        with_ids = self._options.temperature == 0 and trial.repetition == 0 and not trial.again
        fields |= measured_fields(done.answer, with_ids=with_ids)
        if cold:
            fields["load_s"] = start.load_s
        if start.load_s is not None and not done.prepared and fields.get("latency_s") is not None:
            fields["latency_cold_s"] = start.load_s + fields["latency_s"]
        return fields

    def _observed(
        self,
        seen: dict[str, Any],
        window: Window,
        trial: PlannedTrial,
        start: Start,
        *,
        incomplete: bool,
    ) -> Observed:
        highest_hz = max(self._freq_hz_max or 0.0, window.cpu_freq_hz_max or 0.0)
        self._freq_hz_max = highest_hz or None
        throttled_before, throttled_after = window.throttled_change or (None, None)
        return Observed(
            failed="failure" in seen,
            round_incomplete=incomplete,
            prompt_tokens=seen.get("prompt_tokens"),
            prompt_tokens_evaluated=seen.get("prompt_tokens_evaluated"),
            output_tokens=seen.get("output_tokens"),
            output_tokens_requested=trial.workload.output_tokens,
            ignore_eos=self._options.ignore_eos,
            clock_step_s=window.clock_step_s,
            swap_in_bytes=seen.get("swap_in_bytes"),
            cpu_steal_percent_mean=seen.get("cpu_steal_percent_mean"),
            cpu_freq_hz_min=seen.get("cpu_freq_hz_min"),
            cpu_freq_hz_max_of_job=self._freq_hz_max,
            throttled_before=throttled_before,
            throttled_after=throttled_after,
            throttled_throughout=window.throttled_throughout,
            soak=start.soak_s is not None,
            quiet_before=self._quiet,
            cooled_before=start.cooled,
            cores=psutil.cpu_count(),
            cpu_percent_mean=seen.get("cpu_percent_mean"),
            backend_cpu_percent_mean=seen.get("backend_cpu_percent_mean"),
            agent_cpu_percent=seen.get("agent_cpu_percent"),
        )


def counted_latency_s(record: TrialRecord) -> float | None:
    """Return what an adaptive number of repetitions goes by; None of what may not be compared.

    An engine that was to be warm and loaded within the request has no latency to set beside the
    others'.
    """
    if record.verdict is Verdict.INVALID:
        return None
    return record.latency_cold_s if record.cold else record.latency_s


def _short(value: str | int | float | bool) -> str | int | float | bool:
    return value[:MAX_ENGINE_TEXT] if isinstance(value, str) else value
