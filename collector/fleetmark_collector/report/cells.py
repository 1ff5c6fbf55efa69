"""Groups a campaign's records into cells: what was measured, what is left out and why."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from fleetmark_collector.report.jobs import (
    Config,
    Job,
    JobKey,
    PlannedJob,
    key_of,
    read_jobs,
    trials_of,
)
from fleetmark_collector.report.statistics import Pair, Values
from fleetmark_collector.sinks.base import Reader, Stored
from fleetmark_protocol.records import LoadRecord, TrialRecord, Verdict
from fleetmark_protocol.workloads import Workload

Trial = Stored[TrialRecord]

TRIAL_METRICS = (
    "latency_s",
    "ttft_s",
    "tpot_s",
    "prefill_tps",
    "decode_tps",
    "cpu_percent_mean",
    "backend_cpu_percent_mean",
    "rss_bytes",
    "pss_bytes",
    "mem_used_percent_mean",
    "energy_j",
    "co2_g",
    "cost_usd",
    "eq",
    "eq_per_token",
)
"""Metrics that every usable trial of a cell has its own value of."""

OF_ENERGY = ("energy_j", "co2_g")
"""Metrics that have no common figure where their energy comes from sources of several classes."""

REPORTED = ("session_latency_s", *TRIAL_METRICS, "load_s", "latency_cold_s")
"""All metrics of a cell."""


@dataclass(frozen=True)
class Cell:
    """All that is known of one configuration under one workload.

    Attributes:
        trials: each trial once, warm-ups and unusable ones included, in order of time.
        superseded: trials that a later attempt measured again; counted, never used.
        loads: the model loads of its jobs, shared with the other workloads' cells.
        jobs: the jobs that measured it, or were to.
        prompts: the prompts of one session, as planned or seen.
        planned: trials planned, warm-ups included; None where only the records are known.
    """

    config: Config
    workload: str
    workload_kind: str
    trials: tuple[Trial, ...]
    superseded: tuple[Trial, ...]
    loads: tuple[Stored[LoadRecord], ...]
    jobs: tuple[Job, ...]
    prompts: frozenset[int]
    planned: int | None

    @property
    def measured(self) -> list[Trial]:
        """The trials that figures are made of."""
        return [trial for trial in self.trials if usable(trial.record) and not trial.record.warmup]

    @property
    def cold(self) -> bool:
        """Whether each trial has a load of its own; no cell has trials of both kinds."""
        return any(is_cold(trial.record) for trial in self.measured)

    def values(self, metric: str) -> Values:
        """Return the values that a metric's figure is made of; empty where there are none."""
        if metric == "session_latency_s":
            return self._sessions()
        if metric == "load_s" and not self.cold:
            return {
                Pair((index, 0), 0): load.record.load_s
                for index, load in enumerate(self.loads)
                if load.record.load_s is not None and load.record.failure is None
            }
        trials = self.measured
        if metric == "latency_cold_s" and not self.cold:
            # Only the first request after the load is cold: a warm-up, where there is one.
            trials = [trial for trial in self.trials if usable(trial.record)]
        if metric in OF_ENERGY and len(energy_sources(trials)) > 1:
            return {}  # a meter and a model do not make a common median
        found = ((place, getattr(trial.record, metric)) for place, trial in self.placed(trials))
        return {place: float(value) for place, value in found if value is not None}

    def placed(self, trials: Iterable[Trial] | None = None) -> Iterator[tuple[Pair, Trial]]:
        """Yield trials (those that figures are made of, unless told) with their places."""
        # Sessions are numbered job after job: two jobs of one cell count repetitions from 0 each.
        order = {job.key: index for index, job in enumerate(self.jobs)}
        for trial in self.measured if trials is None else trials:
            record = trial.record
            repetition = -1 - record.repetition if record.warmup else record.repetition
            yield Pair((order[key_of(trial)], repetition), record.prompt_index), trial

    def _sessions(self) -> Values:
        """Sum a session's latencies, where all its prompts have one."""
        if self.workload_kind != "multi":
            return {}
        sums: dict[tuple[int, int], dict[int, float]] = {}
        for place, latency_s in self.values("latency_s").items():
            sums.setdefault(place.session, {})[place.prompt_index] = latency_s
        return {
            Pair(session, 0): sum(parts.values())
            for session, parts in sums.items()
            if parts.keys() == self.prompts
        }


def energy_sources(trials: Iterable[Trial]) -> tuple[str, ...]:
    """Return the classes of source that the trials' energies come from."""
    found = {t.record.energy_source or "unknown" for t in trials if t.record.energy_j is not None}
    return tuple(sorted(found))


def is_cold(trial: TrialRecord) -> bool:
    """Whether the engine was started for this trial alone, by the agent or by its own nature."""
    included = trial.latency_s is None and trial.latency_cold_s is not None
    return trial.cold or included


def usable(trial: TrialRecord) -> bool:
    """Whether a trial may enter a figure: it has an answer and its verdict is not INVALID."""
    return trial.failure is None and trial.verdict is not Verdict.INVALID


def verdict_of(trial: TrialRecord) -> Verdict:
    """Return the verdict that counts: a trial without an answer is INVALID, whatever it says."""
    return Verdict.INVALID if trial.failure is not None else trial.verdict


def reasons_of(trials: Iterable[Trial], verdict: Verdict) -> dict[str, int]:
    """Count the reasons of all trials of one verdict, the most frequent first."""
    found: Counter[str] = Counter()
    for trial in trials:
        record = trial.record
        if verdict_of(record) is verdict:
            codes = set(record.verdict_reasons)
            if record.failure is not None:
                codes.add(record.failure.code)
            found.update(codes or {"no reason given"})
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def latest_attempts(trials: Iterable[Trial]) -> tuple[list[Trial], list[Trial]]:
    """Return each trial once, as its latest attempt measured it, and those it replaces."""
    best: dict[tuple[str, str, str], Trial] = {}
    replaced: list[Trial] = []
    for trial in sorted(trials, key=_age):
        key = (trial.fleet, trial.device, trial.record.trial_id)
        if key in best:
            replaced.append(best.pop(key))
        best[key] = trial
    return sorted(best.values(), key=_when), replaced


def read_cells(
    reader: Reader, campaign_id: str, plan: Sequence[PlannedJob] = ()
) -> tuple[list[Cell], list[Job]]:
    """Return the cells of a campaign and all its jobs, both in the order of the plan.

    Args:
        reader: the store.
        campaign_id: the campaign.
        plan: what was planned, in order; without it only what left a record can be shown, in the
            order of the job ids' numbers.
    """
    all_trials = reader.trials(campaign_id)
    loads = reader.loads(campaign_id)
    jobs = read_jobs(reader.job_records(campaign_id), [*loads, *all_trials], plan)
    config_of = {job.key: job.config for job in jobs if job.config is not None}
    specs = {job.key: job.spec for job in plan}
    seen: dict[JobKey, dict[str, None]] = {}
    for trial in all_trials:
        seen.setdefault(key_of(trial), {})[trial.record.workload] = None
    parts: dict[tuple[Config, str], _Parts] = {}
    for job in jobs:
        if job.config is not None:
            spec = specs.get(job.key)
            shapes = {one.name: one for one in spec.workloads} if spec else {}
            # A job that failed before its first trial is a cell too, even without a plan.
            for workload in {**shapes, **seen.get(job.key, {})} or {"": None}:
                part = parts.setdefault((job.config, workload), _Parts())
                part.jobs.append(job)
                part.shapes += [shapes[workload]] if workload in shapes else []
    counted, superseded = latest_attempts(all_trials)
    for trial in counted:
        parts[config_of[key_of(trial)], trial.record.workload].trials.append(trial)
    for trial in superseded:
        parts[config_of[key_of(trial)], trial.record.workload].superseded.append(trial)
    loads_of: dict[Config, list[Stored[LoadRecord]]] = {}
    for load in loads:
        loads_of.setdefault(config_of[key_of(load)], []).append(load)
    return [
        _cell(config, workload, part, loads_of.get(config, ()))
        for (config, workload), part in parts.items()
    ], jobs


@dataclass
class _Parts:
    """A cell being put together."""

    jobs: list[Job] = field(default_factory=list)
    shapes: list[Workload] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    superseded: list[Trial] = field(default_factory=list)


def _cell(
    config: Config, workload: str, parts: _Parts, loads: Sequence[Stored[LoadRecord]]
) -> Cell:
    shapes, trials = parts.shapes, parts.trials
    prompts = {index for shape in shapes for index in range(len(shape.prompts))}
    prompts |= {t.record.prompt_index for t in trials if not t.record.warmup}
    kinds = [shape.kind for shape in shapes] or [t.record.workload_kind for t in trials]
    return Cell(
        config=config,
        workload=workload,
        workload_kind=kinds[0] if kinds else "single",
        trials=tuple(trials),
        superseded=tuple(parts.superseded),
        loads=tuple(loads),
        jobs=tuple(parts.jobs),
        prompts=frozenset(prompts),
        planned=sum(map(trials_of, shapes)) if shapes else None,
    )


def _age(trial: Trial) -> tuple[int, int, int]:
    return (trial.record.attempt, trial.record.time_ns, trial.seq)


def _when(trial: Trial) -> tuple[int, str]:
    return (trial.record.time_ns, trial.record.trial_id)
