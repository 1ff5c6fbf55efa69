"""How fast cells ran in earlier campaigns, read from the store: what estimates are made of."""

import itertools
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median, quantiles

from fleetmark_collector.campaigns.pace import Pace, shared
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.campaigns.tables import JobRow
from fleetmark_collector.coldloads import of_cold_trials, place_of
from fleetmark_collector.sinks.base import Reader
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.records import JobRecord, LoadRecord, TrialRecord

MAX_CAMPAIGNS = 10
"""Newest campaigns that are looked at: older ones ran other versions, and reading takes time."""
MIN_TRIALS_FOR_SPREAD = 5
NS = 1_000_000_000


@dataclass(frozen=True)
class History:
    """What earlier campaigns tell.

    Attributes:
        paces: (fleet, device, cell in words) -> its pace.
        prompt_tokens: (model, digest of a prompt) -> its tokens.
    """

    paces: Mapping[tuple[str, str, str], Pace] = field(default_factory=dict)
    prompt_tokens: Mapping[tuple[str, str], int] = field(default_factory=dict)


@dataclass
class _Seen:
    """Records of one cell on one device."""

    jobs: int = 0
    trials: list[TrialRecord] = field(default_factory=list)
    loads_s: list[float] = field(default_factory=list)
    cold_loads_s: list[float] = field(default_factory=list)
    starts_s: list[float] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)


def read_history(
    campaigns: CampaignStore, reader: Reader, wanted: Mapping[str, str | None]
) -> History:
    """Return what the store tells of some cells.

    Args:
        campaigns: knows which campaigns ran them.
        reader: the store.
        wanted: the cells in words -> digest of the model's file, where it is known: a model of
            the same name may have been another file.

    Raises:
        StoreError: it cannot be read.
    """
    seen: defaultdict[tuple[str, str, str], _Seen] = defaultdict(_Seen)
    read = 0
    for campaign in reversed(campaigns.campaigns()):
        jobs = [
            job
            for job in campaigns.jobs(campaign.campaign_id)
            if job.cell in wanted and job.state is not JobState.QUEUED
        ]
        if not jobs:
            continue
        _read(reader, campaign.campaign_id, jobs, wanted, seen)
        read += 1
        if read >= MAX_CAMPAIGNS:
            break
    prompts = {
        (trial.model, trial.prompt_sha256): trial.prompt_tokens
        for one in seen.values()
        for trial in one.trials
        if trial.prompt_tokens is not None
    }
    paces = {key: pace for key, one in seen.items() if (pace := _pace(one)) is not None}
    return History(paces, prompts)


def _read(
    reader: Reader,
    campaign_id: str,
    jobs: Sequence[JobRow],
    wanted: Mapping[str, str | None],
    seen: defaultdict[tuple[str, str, str], _Seen],
) -> None:
    trials: defaultdict[str, list[TrialRecord]] = defaultdict(list)
    loads: defaultdict[str, list[tuple[LoadRecord, bool]]] = defaultdict(list)
    states: defaultdict[str, list[JobRecord]] = defaultdict(list)
    ids = {job.job_id for job in jobs}
    stored, stored_loads = reader.trials(campaign_id), reader.loads(campaign_id)
    cold = of_cold_trials(stored_loads, stored)
    for trial in stored:
        if trial.record.job_id in ids and _seconds(trial.record) is not None:
            trials[trial.record.job_id].append(trial.record)
    for load in stored_loads:
        if load.record.load_s is not None and load.record.failure is None:
            loads[load.record.job_id].append((load.record, place_of(load) in cold))
    for state in reader.job_records(campaign_id):
        states[state.record.job_id].append(state.record)
    for job in jobs:
        mine = [one for one in trials[job.job_id] if _is_file(one, wanted[job.cell])]
        if not mine:
            continue
        one = seen[job.fleet, job.device, job.cell]
        one.jobs += 1
        one.trials += mine
        for record, alone in loads[job.job_id]:
            (one.cold_loads_s if alone else one.loads_s).append(record.load_s or 0.0)
        rounds = _rounds(mine)
        gaps = list(_gaps(rounds))
        one.gaps_s += gaps
        busy_s = sum(gaps) + sum(seconds for _, seconds in rounds)
        made = [record for record, _ in loads[job.job_id]]
        start_s = _start_s(states[job.job_id], made, busy_s)
        if start_s is not None:
            one.starts_s.append(start_s)


def _is_file(trial: TrialRecord, sha256: str | None) -> bool:
    known = {trial.model_sha256, trial.model_origin_sha256} - {None}
    return sha256 is None or not known or sha256 in known


def _seconds(trial: TrialRecord) -> float | None:
    """Return how long a request took; with its load where the two cannot be told apart."""
    if trial.failure is not None:
        return None
    return trial.latency_s if trial.latency_s is not None else trial.latency_cold_s


def _rounds(trials: Iterable[TrialRecord]) -> list[tuple[TrialRecord, float]]:
    """Return the first trial of each round in order, with the time until all of them had ended.

    A round is what was asked at the same time; mostly that is one request.
    """
    rounds: list[tuple[TrialRecord, float]] = []
    for trial in sorted(trials, key=lambda one: one.time_ns):
        ends_s = (_seconds(trial) or 0.0) + trial.time_ns / NS
        first = rounds[-1][0] if rounds else None
        if first is not None and first.client is not None and _key(first) == _key(trial):
            rounds[-1] = first, max(rounds[-1][1], ends_s - first.time_ns / NS)
        else:
            rounds.append((trial, _seconds(trial) or 0.0))
    return rounds


def _key(trial: TrialRecord) -> tuple[object, ...]:
    return trial.workload, trial.repetition, trial.warmup, trial.attempt


def _gaps(rounds: Iterable[tuple[TrialRecord, float]]) -> Iterable[float]:
    """Yield the time between the end of a round and the start of the next, of one engine."""
    for (before, seconds), (after, _) in itertools.pairwise(rounds):
        # Before a cold trial an engine is started, and before another attempt anything happens.
        if not after.cold and before.attempt == after.attempt:
            yield max(0.0, (after.time_ns - before.time_ns) / NS - seconds)


def _start_s(
    states: Sequence[JobRecord], loads: Sequence[LoadRecord], busy_s: float
) -> float | None:
    """Return what is left of a job's time for each start of its engine; None where it is unclear.

    Only a job that ran through in one attempt tells.
    """
    begun = [one.time_ns for one in states if one.state is JobState.IN_PROGRESS]
    ended = [one.time_ns for one in states if one.state is JobState.SUCCEEDED]
    if len(begun) != 1 or not ended or not loads:
        return None
    busy_s += sum(load.load_s or 0.0 for load in loads)
    return max(0.0, (ended[0] - begun[0]) / NS - busy_s) / len(loads)


def _pace(seen: _Seen) -> Pace | None:
    if not seen.trials:
        return None
    alone = _telling(seen.trials)
    prefills: list[float] = []
    decodes: list[float] = []
    for trial in alone:
        clients = trial.clients or 1
        seconds, tokens = _seconds(trial) or 0.0, max(trial.output_tokens or 1, 1)
        prompt = trial.prompt_tokens_evaluated or trial.prompt_tokens
        if trial.ttft_s is None or not prompt:
            decodes.append(seconds / tokens / shared(clients))
        else:
            prefills.append(trial.ttft_s / prompt / clients)
            decodes.append(max(0.0, seconds - trial.ttft_s) / tokens / shared(clients))
    pace = Pace(
        start_s=_median(seen.starts_s),
        load_s=_median(seen.loads_s or seen.cold_loads_s),
        cold_load_s=median(seen.cold_loads_s) if seen.cold_loads_s else None,
        gap_s=_median(seen.gaps_s),
        prefill_s=_median(prefills),
        decode_s=_median(decodes),
        jobs=seen.jobs,
        trials=len(seen.trials),
        seen_s=_alike(alone),
    )
    low, high = _spread(pace, [one for one in alone if (one.clients or 1) == 1])
    return replace(pace, low=low, high=high, crowds=_crowds(pace, seen.trials))


def _telling(trials: Sequence[TrialRecord]) -> Sequence[TrialRecord]:
    """Return the trials that tell how fast a request is by itself, on a machine that is not hot.

    Where there are none, those that come closest.
    """
    soaks = [one for one in trials if one.workload_kind == "soak"]
    crowds = [one for one in trials if (one.clients or 1) > 1]
    others = [one for one in trials if one.workload_kind != "soak" and (one.clients or 1) == 1]
    return others or soaks or crowds


def _alike(trials: Sequence[TrialRecord]) -> dict[tuple[float, float], float]:
    """Return how long requests of each size took."""
    found: defaultdict[tuple[float, float], list[float]] = defaultdict(list)
    for one in trials:
        if (one.clients or 1) == 1 and one.prompt_tokens and one.output_tokens:
            found[one.prompt_tokens, one.output_tokens].append(_seconds(one) or 0.0)
    return {size: median(some) for size, some in found.items()}


def _crowds(pace: Pace, trials: Sequence[TrialRecord]) -> dict[int, float]:
    """Return how many times as long a request took, by how many clients asked at the same time."""
    ratios: defaultdict[int, list[float]] = defaultdict(list)
    for one in trials:
        alone_s = pace.trial_s(one.prompt_tokens or 0, one.output_tokens or 1)
        if (one.clients or 1) > 1 and alone_s > 0:
            ratios[one.clients or 1].append((_seconds(one) or 0.0) / alone_s)
    return {clients: median(some) for clients, some in ratios.items()}


def _spread(pace: Pace, trials: Collection[TrialRecord]) -> tuple[float, float]:
    """Return what nine of ten trials took at least and at most, against what was foretold."""
    ratios = [
        (_seconds(one) or 0.0) / foretold
        for one in trials
        if (foretold := pace.trial_s(one.prompt_tokens or 0, one.output_tokens or 1)) > 0
    ]
    if len(ratios) < MIN_TRIALS_FOR_SPREAD:
        return (1.0, 1.0)
    tenths = quantiles(ratios, n=10)
    return (min(1.0, tenths[0]), max(1.0, tenths[-1]))


def _median(values: Sequence[float]) -> float:
    return median(values) if values else 0.0
