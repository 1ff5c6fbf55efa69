"""The trials of a job: in which order they run, and the record that each becomes. No I/O."""

import hashlib
from dataclasses import dataclass
from typing import Any

from fleetmark_agent import timing
from fleetmark_protocol.joblimits import trials_at_most
from fleetmark_protocol.messages import JobSpec
from fleetmark_protocol.values import MAX_TOKEN_IDS, clip
from fleetmark_protocol.workloads import Workload

OUTPUT_TEXT_CHARS = 2000


@dataclass(frozen=True)
class PlannedTrial:
    """One request to come; its id is the same in every attempt of the job, but for a soak's."""

    index: int
    trial_id: str
    workload: Workload
    repetition: int
    prompt_index: int
    warmup: bool
    client: int | None = None
    """Which of the clients that ask at the same time; None where one asks at a time."""
    again: bool = False
    """Whether its repetition has asked the same before (a soak goes round its prompts)."""

    @property
    def prompt(self) -> str:
        """What is asked."""
        return self.workload.prompts[self.prompt_index]

    def fields(self, *, cold: bool) -> dict[str, Any]:
        """Return what its record says of what was asked, whatever came of it.

        Args:
            cold: whether the engine is started for it alone.
        """
        together: dict[str, Any] = {}
        if self.client is not None:
            together = {"clients": self.workload.clients, "client": self.client}
        return {
            **together,
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
    """Return a job's trials in order, the most there can be; those of soaks are not known before.

    Workloads that start the engine anew come first, while nothing of it is in memory and the
    machine is not hot yet; then the others; soaks, which heat it up, come last. Of each of these
    groups all warm-ups come first, then repetition by repetition: a repetition asks each workload
    once, so that a drift of the machine (heat, a neighbour) falls on all of them alike.

    A warm-up asks the first prompt of its workload. Where clients ask at the same time, a
    repetition and a warm-up are one round: a trial for each client, and client i asks prompt i
    modulo their number.
    """
    trials: list[PlannedTrial] = []
    starting = [workload for workload in spec.workloads if workload.kind == "coldstart"]
    others = [workload for workload in spec.workloads if workload.kind != "coldstart"]
    for group in (starting, others):
        for workload in group:
            for number in range(workload.warmup):
                trials += _asked(spec, workload, number, warmup=True, index=len(trials))
        timed = [workload for workload in group if workload.kind != "soak"]
        for number in range(max((workload.repetitions for workload in timed), default=0)):
            for workload in timed:
                if number < workload.repetitions:
                    trials += _asked(spec, workload, number, warmup=False, index=len(trials))
    return trials


def planned_count(spec: JobSpec) -> int:
    """Return how many trials a job has at most; a soak counts as one a repetition.

    Counted, not planned: somebody may ask for billions.
    """
    return trials_at_most(spec.workloads)


def soak_request(
    spec: JobSpec, workload: Workload, number: int, attempt: int, asked: int, index: int
) -> PlannedTrial:
    """Return a request of a soak.

    Heat does not survive a pause, so a soak that was cut short begins anew: the attempt is part of
    the id, and what the earlier one measured stays what it was.

    Args:
        spec: the job.
        workload: the soak.
        number: of the repetition in this job, from 0.
        attempt: the number of this attempt.
        asked: requests of this soak before it.
        index: its place in the job.
    """
    repetition = workload.first_repetition + number
    return PlannedTrial(
        index,
        f"{soak_id(spec, workload, number)}.a{attempt}.{asked}",
        workload,
        repetition,
        asked % len(workload.prompts),
        warmup=False,
        again=asked >= len(workload.prompts),
    )


def soak_id(spec: JobSpec, workload: Workload, number: int) -> str:
    """Return what a soak as a whole is known by."""
    return f"{spec.job_id}.{workload.name}.{workload.first_repetition + number}"


def _asked(
    spec: JobSpec, workload: Workload, number: int, *, warmup: bool, index: int
) -> list[PlannedTrial]:
    """Return the requests of a repetition or of a warm-up."""
    repetition = workload.first_repetition + number
    prefix = f"{spec.job_id}.{workload.name}.{'w' if warmup else ''}{repetition}"
    prompts = len(workload.prompts)
    places: list[tuple[int, int | None]] = [
        (prompt, None) for prompt in range(1 if warmup else prompts)
    ]
    if workload.kind == "concurrency":
        places = [(client % prompts, client) for client in range(workload.clients)]
    return [
        PlannedTrial(
            index + place, f"{prefix}.{place}", workload, repetition, prompt, warmup, client
        )
        for place, (prompt, client) in enumerate(places)
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
