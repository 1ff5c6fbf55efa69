"""The trials of a job: in which order they run, and the record that each becomes. No I/O."""

import hashlib
from dataclasses import dataclass
from typing import Any

from fleetmark_agent import timing
from fleetmark_protocol.messages import JobSpec
from fleetmark_protocol.values import MAX_TOKEN_IDS, clip
from fleetmark_protocol.workloads import Workload

OUTPUT_TEXT_CHARS = 2000


@dataclass(frozen=True)
class PlannedTrial:
    """One request to come; its id is the same in every attempt of the job."""

    index: int
    trial_id: str
    workload: Workload
    repetition: int
    prompt_index: int
    warmup: bool

    @property
    def prompt(self) -> str:
        """What is asked."""
        return self.workload.prompts[self.prompt_index]

    def fields(self, *, cold: bool) -> dict[str, Any]:
        """Return what its record says of what was asked, whatever came of it.

        Args:
            cold: whether the engine is started for it alone.
        """
        return {
            "trial_id": self.trial_id,
            "trial_index": self.index,
            "workload": self.workload.name,
            "workload_kind": self.workload.kind,
            "repetition": self.repetition,
            "prompt_index": self.prompt_index,
            "warmup": self.warmup,
            "cold": cold,
            "prompt_sha256": sha256_text(self.prompt),
            "output_tokens_requested": self.workload.output_tokens,
        }


def plan(spec: JobSpec) -> list[PlannedTrial]:
    """Return a job's trials in order: all warm-ups, then repetition by repetition.

    A repetition asks each workload once, so that a drift of the machine (heat, a neighbour) falls
    on all of them alike. A warm-up asks the first prompt of its workload.
    """
    places: list[tuple[str, Workload, int, int, bool]] = []
    for workload in spec.workloads:
        places += [
            (f"{workload.name}.w{number}.0", workload, number, 0, True)
            for number in range(workload.warmup)
        ]
    for repetition in range(max(workload.repetitions for workload in spec.workloads)):
        for workload in spec.workloads:
            if repetition < workload.repetitions:
                places += [
                    (f"{workload.name}.{repetition}.{prompt}", workload, repetition, prompt, False)
                    for prompt in range(len(workload.prompts))
                ]
    return [
        PlannedTrial(index, f"{spec.job_id}.{suffix}", workload, repetition, prompt, warmup)
        for index, (suffix, workload, repetition, prompt, warmup) in enumerate(places)
    ]


def sha256_text(text: str) -> str:
    """Return the SHA-256 of a text's UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_ids(ids: list[int]) -> str | None:
    """Return the SHA-256 of token ids written in decimal with commas; None for none."""
    return sha256_text(",".join(map(str, ids))) if ids else None


def measured_fields(answer: dict[str, Any], *, with_ids: bool = False) -> dict[str, Any]:
    """Turn a worker's answer into the fields of a trial record that come from the engine.

    Args:
        answer: what `worker` sends.
        with_ids: keep token ids themselves beside their digests.

    Raises:
        ValueError: the times are not in order.
        KeyError: the answer is not what `worker` sends.
    """
    completion = answer["completion"] or {}
    output_tokens = completion.get("output_tokens", sum(answer["token_counts"]))
    evaluated = completion.get("prompt_tokens_evaluated")
    measured = timing.measure(
        start_ns=answer["start_ns"],
        token_times_ns=answer["token_times_ns"],
        token_counts=answer["token_counts"],
        end_ns=answer["end_ns"],
        prompt_tokens_evaluated=evaluated,
        output_tokens=output_tokens,
    )
    fields: dict[str, Any] = dict(measured.as_fields())
    if completion.get("load_included"):
        # The load cannot be told from the prefill by our clock: what was measured is a cold start.
        fields["latency_cold_s"] = fields.pop("latency_s")
        for name in ("ttft_s", "prefill_tps"):
            fields.pop(name, None)
    if with_ids:
        for name, ids in (
            ("prompt_ids", completion.get("prompt_ids", ())),
            ("output_ids", answer["token_ids"]),
        ):
            if ids:
                fields[name] = tuple(ids[:MAX_TOKEN_IDS])
    return {
        **fields,
        "prompt_tokens": completion.get("prompt_tokens"),
        "prompt_tokens_evaluated": evaluated,
        "prompt_ids_sha256": sha256_ids(list(completion.get("prompt_ids", ()))),
        "output_tokens": output_tokens,
        "output_sha256": sha256_text(answer["text"]),
        "output_ids_sha256": sha256_ids(answer["token_ids"]),
        "output_text": clip(answer["text"], OUTPUT_TEXT_CHARS),
        "stop_reason": completion.get("stop_reason"),
        "engine_load_s": completion.get("engine_load_s"),
        "engine_prefill_s": completion.get("engine_prefill_s"),
        "engine_decode_s": completion.get("engine_decode_s"),
    }
