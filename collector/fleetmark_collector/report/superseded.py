"""Which trials count where some were measured again: by a later attempt, or by a job in its place.

A job that failed may have a successor (its id with `r1`, `r2`... at its end), and a job that was
cut short goes on or begins anew in a later attempt. A trial that was measured twice counts once.
"""

import re
from collections.abc import Callable, Sequence

from fleetmark_collector.report.judged import Trial

_SUCCESSOR = re.compile(r"(?<=\d)\.?r(\d{1,6})$", re.ASCII)


def origin_of(job_id: str) -> str:
    """Return the id of the job that a job stands for: its own, unless it is a successor."""
    return _SUCCESSOR.sub("", job_id)


def turn_of(job_id: str) -> int:
    """Return how many jobs stood in this one's place before it."""
    found = _SUCCESSOR.search(job_id)
    return int(found[1]) if found else 0


def sorted_out(
    trials: Sequence[Trial],
    *,
    since_attempt: Callable[[Trial], int],
    finished: Callable[[Trial], bool],
) -> tuple[list[Trial], list[Trial]]:
    """Return each trial once, as it was measured last, in order of time, and those replaced.

    Of a soak the latest attempt counts whole: a soak that was cut short is no part of another. Once
    a successor has asked all of a workload, nothing that was measured of it before counts, whether
    it was measured again or not.

    Args:
        trials: of any jobs.
        since_attempt: tells the attempt from which the trials of a trial's job count.
        finished: tells whether a trial's job has asked all of the trial's workload.
    """
    best: dict[tuple[object, ...], Trial] = {}
    replaced: list[Trial] = []
    newest: dict[tuple[object, ...], tuple[int, int]] = {}
    whole_since: dict[tuple[object, ...], int] = {}
    for trial in trials:
        if finished(trial):
            turn, place = turn_of(trial.record.job_id), _workload(trial)
            whole_since[place] = max(turn, whole_since.get(place, 0))
    for trial in sorted(trials, key=_age):
        left = turn_of(trial.record.job_id) < whole_since.get(_workload(trial), 0)
        if left or trial.record.attempt < since_attempt(trial):
            replaced.append(trial)
            continue
        key = _identity(trial)
        if key in best:
            replaced.append(best.pop(key))
        best[key] = trial
        newest[_soak(trial)] = run_of(trial)
    counted: list[Trial] = []
    for trial in best.values():
        whole = trial.record.workload_kind != "soak" or newest[_soak(trial)] == run_of(trial)
        (counted if whole else replaced).append(trial)
    return sorted(counted, key=_when), replaced


def _identity(trial: Trial) -> tuple[object, ...]:
    """Return what a trial has in common with the same of another attempt, or of a successor."""
    record = trial.record
    suffix = record.trial_id.removeprefix(record.job_id)
    return (trial.fleet, trial.device, origin_of(record.job_id), suffix)


def _workload(trial: Trial) -> tuple[object, ...]:
    record = trial.record
    return (trial.fleet, trial.device, origin_of(record.job_id), record.workload)


def _soak(trial: Trial) -> tuple[object, ...]:
    return (*_workload(trial), trial.record.warmup, trial.record.repetition)


def run_of(trial: Trial) -> tuple[int, int]:
    """Return which run of the engine of its job's place a trial is of: turn and attempt."""
    return (turn_of(trial.record.job_id), trial.record.attempt)


def _age(trial: Trial) -> tuple[int, int, int, int]:
    return (*run_of(trial), trial.record.time_ns, trial.seq)


def _when(trial: Trial) -> tuple[int, str]:
    return (trial.record.time_ns, trial.record.trial_id)
