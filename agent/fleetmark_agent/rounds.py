"""Trials that are asked at the same time: which belong to one round, and what it did. No I/O."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from fleetmark_agent.trials import PlannedTrial

_NS = 1e9

Answer = dict[str, Any]
"""What a worker sends of one request; empty where it failed."""


def rounds(trials: Iterable[PlannedTrial]) -> list[list[PlannedTrial]]:
    """Return trials in their order, those that are asked at the same time in one list."""
    return [list(together) for _, together in groupby(trials, key=_round_of)]


def round_s(answers: Sequence[Answer]) -> float | None:
    """Return the seconds from the first start to the last end; None where one has failed."""
    if not answers or not all(answers):
        return None
    start_ns = min(answer["start_ns"] for answer in answers)
    return float((max(answer["end_ns"] for answer in answers) - start_ns) / _NS)


def incomplete(answer: Answer, asked: int, *, ignore_eos: bool) -> bool:
    """Return whether a client did less than its round was to do.

    While it did nothing the others had the engine for themselves. A model that may end by itself
    (no `ignore_eos`) is not incomplete where it did.

    Args:
        answer: of the client; empty where it failed.
        asked: how many tokens it was to generate.
        ignore_eos: whether the engine was told to generate all of them in any case.
    """
    return not answer or (ignore_eos and output_tokens(answer) < asked)


def round_fields(answers: Sequence[Answer], asked: int, *, ignore_eos: bool) -> dict[str, float]:
    """Return what all records of a round have in common; nothing where a client was incomplete.

    It was a round of fewer clients than its records say, then, so there is no rate of it.

    Formula: throughput_tps = sum of output_tokens / (end of the last - start of the first)

    Args:
        answers: of all its clients.
        asked: see `incomplete`.
        ignore_eos: see `incomplete`.
    """
    took_s = round_s(answers)
    if not took_s or any(incomplete(one, asked, ignore_eos=ignore_eos) for one in answers):
        return {}
    return {"throughput_tps": sum(map(output_tokens, answers)) / took_s}


def output_tokens(answer: Answer) -> int:
    """Return how many tokens were generated: the engine's count, else that of its steps."""
    completion = answer["completion"] or {}
    return int(completion.get("output_tokens", sum(answer["token_counts"])))


def _round_of(trial: PlannedTrial) -> tuple[Any, ...]:
    if trial.client is None:
        return (trial.trial_id,)
    return (trial.workload.name, trial.warmup, trial.repetition)
