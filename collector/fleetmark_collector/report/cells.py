"""Groups a campaign's records into cells: what was measured, what is left out and why."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from fleetmark_collector.coldloads import Place, of_cold_trials, place_of
from fleetmark_collector.report.jobs import (
    Config,
    Job,
    JobKey,
    PlannedJob,
    finished,
    key_of,
    read_jobs,
    trials_of,
)
from fleetmark_collector.report.judged import Trial, all_cold, energy_sources, load_included, usable
from fleetmark_collector.report.reported import OF_ENERGY
from fleetmark_collector.report.soaking import SOAK_METRICS, Soaks, lasted_s, soak_values
from fleetmark_collector.report.statistics import Pair, Values
from fleetmark_collector.report.superseded import origin_of, run_of, sorted_out
from fleetmark_collector.sinks.base import Reader, Stored
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.records import LoadRecord
from fleetmark_protocol.workloads import Workload


@dataclass(frozen=True)
class Cell:
    """All that is known of one configuration under one workload.

    Attributes:
        trials: each trial once, warm-ups and unusable ones included, in order of time.
        superseded: trials that a later attempt measured again; counted, never used.
        loads: the model loads of its jobs, shared with the other workloads' cells.
        jobs: the jobs that measured it, or were to.
        prompts: the prompts of one session, as planned or seen.
        planned: trials planned, warm-ups included; None where only the records are known, and of
            a soak, whose number of trials nobody knows before.
        asked: the workload as it was planned; of several blocks the first.
        blocks: jobs that its repetitions were split over, as planned.
        cold_loads: those of the loads that were made for one request alone.
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
    asked: Workload | None = None
    blocks: int = 1
    cold_loads: frozenset[Place] = frozenset()

    @property
    def measured(self) -> list[Trial]:
        """The trials that figures are made of; of a soak, those of one that is complete."""
        found = self._usable()
        if not all_cold(found):
            found = [trial for trial in found if not load_included(trial.record)]
        if self.workload_kind != "soak":
            return found
        whole = {id(trial) for trials in self.soaks().values() for trial in trials}
        return [trial for trial in found if id(trial) in whole]

    @property
    def cold(self) -> bool:
        """Whether each trial has a load of its own; no cell has trials of both kinds."""
        return all_cold(self._usable())

    @property
    def odd(self) -> list[Trial]:
        """Usable trials that no figure is made of: of a warm cell, with a load in the request."""
        return [] if self.cold else [one for one in self._usable() if load_included(one.record)]

    def values(self, metric: str) -> Values:
        """Return the values that a metric's figure is made of; empty where there are none."""
        if metric == "session_latency_s":
            return self._sessions()
        if metric == "throughput_tps":
            return self._rounds()
        if metric in SOAK_METRICS:
            duration_s = self.asked.duration_s if self.asked else None
            return soak_values(metric, self.soaks(), duration_s)
        if metric == "load_s" and not self.cold:
            return {
                Pair((index, 0), 0): load.record.load_s
                for index, load in enumerate(self.loads)
                if load.record.load_s is not None
                and load.record.failure is None
                and place_of(load) not in self.cold_loads
            }
        trials = self.measured
        if metric == "latency_cold_s" and not self.cold:
            # Only the first request after the load is cold: a warm-up, where there is one.
            warmups = [one for one in self.trials if usable(one.record) and one.record.warmup]
            trials = [*warmups, *trials]
        if metric in OF_ENERGY and len(energy_sources(trials)) > 1:
            return {}  # a meter and a model do not make a common median
        found = ((place, getattr(trial.record, metric)) for place, trial in self.placed(trials))
        return {place: float(value) for place, value in found if value is not None}

    def placed(self, trials: Iterable[Trial] | None = None) -> Iterator[tuple[Pair, Trial]]:
        """Yield trials (those that figures are made of, unless told) with their places."""
        order, runs = self._order(), self._runs()
        for number, trial in enumerate(self.measured if trials is None else trials):
            record = trial.record
            repetition = -1 - record.repetition if record.warmup else record.repetition
            column = record.prompt_index if record.client is None else record.client
            if record.soak_s is not None:
                column = number  # a soak asks the same again and again
            origin = origin_of(record.job_id)
            process = runs.get((origin, *run_of(trial)), order[origin])
            yield Pair((process, repetition), column), trial

    def soaks(self, *, complete: bool = True) -> Soaks:
        """Return the soaks, or only those that are not complete: cut short, or under way."""
        order = self._order()
        found: dict[tuple[int, int], list[Trial]] = {}
        for trial in self.trials:
            record = trial.record
            if self.workload_kind == "soak" and not record.warmup:
                key = (order[origin_of(record.job_id)], record.repetition)
                found.setdefault(key, []).append(trial)
        return {key: some for key, some in found.items() if self._is_whole(some) is complete}

    def _is_whole(self, trials: Sequence[Trial]) -> bool:
        duration_s = self.asked.duration_s if self.asked else None
        if duration_s is not None and lasted_s(trials) >= duration_s:
            return True
        last = trials[-1]
        return any(job.key == key_of(last) and job.state is JobState.SUCCEEDED for job in self.jobs)

    def _order(self) -> dict[str, int]:
        """Return numbers for the jobs; a successor has that of the job whose place it takes."""
        # Repetitions may be counted from 0 in each of two jobs of a cell.
        origins = dict.fromkeys(origin_of(job.key.job_id) for job in self.jobs)
        return {origin: index for index, origin in enumerate(origins)}

    def _runs(self) -> dict[tuple[str, int, int], int]:
        """Return numbers for the processes of the engine, one an attempt, where they are shared.

        The first of a job has the job's own number, so that blocks of two cells lie side by side.
        """
        numbers: dict[tuple[str, int, int], int] = {}
        if self.cold or self.workload_kind == "soak":
            return numbers  # each trial has a process of its own, and a soak is a whole
        order = self._order()
        for trial in (*self.measured, *self.trials):
            origin = origin_of(trial.record.job_id)
            taken = order[origin] in numbers.values()
            number = len(order) + len(numbers) if taken else order[origin]
            numbers.setdefault((origin, *run_of(trial)), number)
        return numbers

    def _usable(self) -> list[Trial]:
        return [one for one in self.trials if usable(one.record) and not one.record.warmup]

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

    def _rounds(self) -> Values:
        """Return one throughput a round, of those rounds that all clients have an answer of."""
        rounds: dict[tuple[int, int], list[Trial]] = {}
        for place, trial in self.placed():
            if trial.record.throughput_tps is not None:
                rounds.setdefault(place.session, []).append(trial)
        return {
            Pair(session, 0): float(trials[0].record.throughput_tps or 0.0)
            for session, trials in rounds.items()
            if len(trials) == trials[0].record.clients
        }


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
    job_records = reader.job_records(campaign_id)
    jobs = read_jobs(job_records, [*loads, *all_trials], plan)
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
                if workload in shapes:
                    part.shapes.append(shapes[workload])
                    part.planned += 0 if job.replaced else trials_of(shapes[workload])
    since: dict[JobKey, int] = {}
    for record in job_records:
        if record.record.since_attempt is not None:
            key = key_of(record)
            since[key] = max(since.get(key, 0), record.record.since_attempt)
    done = finished(jobs, plan, all_trials)
    counted, superseded = sorted_out(
        all_trials,
        since_attempt=lambda trial: since.get(key_of(trial), 0),
        finished=lambda trial: (key_of(trial), trial.record.workload) in done,
    )
    for trial in counted:
        parts[config_of[key_of(trial)], trial.record.workload].trials.append(trial)
    for trial in superseded:
        parts[config_of[key_of(trial)], trial.record.workload].superseded.append(trial)
    loads_of: dict[Config, list[Stored[LoadRecord]]] = {}
    for load in loads:
        loads_of.setdefault(config_of[key_of(load)], []).append(load)
    cold_loads = of_cold_trials(loads, all_trials)
    return [
        _cell(config, workload, part, loads_of.get(config, ()), cold_loads)
        for (config, workload), part in parts.items()
    ], jobs


@dataclass
class _Parts:
    """A cell being put together."""

    jobs: list[Job] = field(default_factory=list)
    shapes: list[Workload] = field(default_factory=list)
    planned: int = 0
    trials: list[Trial] = field(default_factory=list)
    superseded: list[Trial] = field(default_factory=list)


def _cell(
    config: Config,
    workload: str,
    parts: _Parts,
    loads: Sequence[Stored[LoadRecord]],
    cold_loads: frozenset[Place],
) -> Cell:
    shapes, trials = parts.shapes, parts.trials
    prompts = {index for shape in shapes for index in range(len(shape.prompts))}
    prompts |= {t.record.prompt_index for t in trials if not t.record.warmup}
    kinds = [shape.kind for shape in shapes] or [t.record.workload_kind for t in trials]
    kind = kinds[0] if kinds else "single"
    return Cell(
        config=config,
        workload=workload,
        workload_kind=kind,
        trials=tuple(trials),
        superseded=tuple(parts.superseded),
        loads=tuple(loads),
        jobs=tuple(parts.jobs),
        prompts=frozenset(prompts),
        planned=parts.planned if shapes and kind != "soak" else None,
        asked=shapes[0] if shapes else None,
        # A job and its successor have the same numbers.
        blocks=max(1, len({shape.first_repetition for shape in shapes})),
        cold_loads=cold_loads.intersection(map(place_of, loads)),
    )
