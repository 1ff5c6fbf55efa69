"""The jobs of a report: what each ran, and how far it came, from records and plan."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fleetmark_collector.report.superseded import origin_of, turn_of
from fleetmark_collector.sinks.base import Stored
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.messages import JobSpec
from fleetmark_protocol.records import Failure, JobRecord, LoadRecord, TrialRecord
from fleetmark_protocol.values import Scalar
from fleetmark_protocol.workloads import Workload


class Config(NamedTuple):
    """What a cell runs, whatever it is asked: one device x backend x model x options."""

    fleet: str
    device: str
    backend: str
    model: str
    quantization: str | None
    options: tuple[tuple[str, Scalar], ...]


class JobKey(NamedTuple):
    """Names a job; with the device, as a record's word on its job is its device's alone."""

    fleet: str
    device: str
    job_id: str


@dataclass(frozen=True)
class PlannedJob:
    """A job as the campaign planned it; `state` and `failure` as the centre knows them."""

    fleet: str
    device: str
    spec: JobSpec
    state: JobState = JobState.QUEUED
    failure: Failure | None = None

    @property
    def key(self) -> JobKey:
        """Its name."""
        return JobKey(self.fleet, self.device, self.spec.job_id)


@dataclass(frozen=True)
class Job:
    """A job and how far it came; `config` is None where no record and no plan tells.

    `replaced` is whether a later job was sent in its place.
    """

    key: JobKey
    config: Config | None
    state: JobState
    attempt: int
    trials_planned: int
    failure: Failure | None
    replaced: bool = False


def read_jobs(
    records: Sequence[Stored[JobRecord]],
    runs: Sequence[Stored[TrialRecord] | Stored[LoadRecord]],
    plan: Sequence[PlannedJob],
) -> list[Job]:
    """Return all jobs that the plan or any record speaks of, in the order of the plan.

    Without a plan they come in the order of the numbers in their ids.

    Args:
        records: the jobs' own records.
        runs: loads, then trials.
        plan: what was planned.
    """
    planned = {job.key: job for job in plan}
    # The device's word on the quantization is better than the plan's, which may leave it open;
    # a load that failed may not have come so far as to know it.
    configs = {key: _planned_config(job) for key, job in planned.items()}
    for item in runs:
        key = key_of(item)
        before = configs.get(key)
        configs[key] = _config(item, before.quantization if before else None)
    latest: dict[JobKey, JobRecord] = {}
    for stored in sorted(records, key=lambda one: (one.record.attempt, one.seq)):
        key = key_of(stored)
        if key not in latest or not latest[key].state.terminal:
            latest[key] = stored.record
    order = {key: index for index, key in enumerate(planned)}
    keys = {**dict.fromkeys(configs), **dict.fromkeys(latest)}
    newest: dict[JobKey, int] = {}
    for key in keys:
        newest[_origin(key)] = max(newest.get(_origin(key), 0), turn_of(key.job_id))
    return [
        _job(
            key,
            configs.get(key),
            latest.get(key),
            planned.get(key),
            replaced=turn_of(key.job_id) < newest[_origin(key)],
        )
        for key in sorted(keys, key=lambda key: (order.get(key, len(order)), _number(key)))
    ]


def key_of(item: Stored[TrialRecord] | Stored[LoadRecord] | Stored[JobRecord]) -> JobKey:
    """Return the job that a record is about."""
    return JobKey(item.fleet, item.device, item.record.job_id)


def trials_of(workload: Workload) -> int:
    """Return how many trials a job makes of a workload, as far as that is known before.

    A warm-up asks one prompt only; of adaptive repetitions these are the most; of a soak it is one
    a repetition.
    """
    if workload.kind == "concurrency":
        return workload.clients * (workload.warmup + workload.repetitions)
    asked = 1 if workload.kind == "soak" else len(workload.prompts)
    return workload.warmup + workload.repetitions * asked


def finished(
    jobs: Sequence[Job], plan: Sequence[PlannedJob], trials: Sequence[Stored[TrialRecord]]
) -> set[tuple[JobKey, str]]:
    """Return which jobs have asked all of which workloads."""
    succeeded = {job.key for job in jobs if job.state is JobState.SUCCEEDED}
    whole = {
        (job.key, one.name): trials_of(one)
        for job in plan
        for one in job.spec.workloads
        if one.kind != "soak"  # nobody knows how many trials it makes
    }
    seen: dict[tuple[JobKey, str], set[str]] = {}
    for trial in trials:
        seen.setdefault((key_of(trial), trial.record.workload), set()).add(trial.record.trial_id)
    return {
        (key, workload)
        for (key, workload), ids in seen.items()
        if key in succeeded or len(ids) >= whole.get((key, workload), len(ids) + 1)
    }


def _origin(key: JobKey) -> JobKey:
    return key._replace(job_id=origin_of(key.job_id))


def _config(item: Stored[TrialRecord] | Stored[LoadRecord], quantization: str | None) -> Config:
    record = item.record
    options = dict(record.options)
    if isinstance(record, TrialRecord) and record.cold and record.workload_kind != "coldstart":
        # Cold and warm trials never share a cell, whatever the options say. A workload of cold
        # starts has cells of its own, beside warm workloads of the same job.
        options.setdefault("start", "cold")
    return Config(
        item.fleet,
        item.device,
        record.backend,
        record.model,
        record.quantization or quantization,
        tuple(sorted(options.items())),
    )


def _planned_config(job: PlannedJob) -> Config:
    spec = job.spec
    labels = tuple(sorted(spec.labels.items()))
    return Config(
        job.fleet, job.device, spec.backend, spec.model.name, spec.model.quantization, labels
    )


def _job(
    key: JobKey,
    config: Config | None,
    record: JobRecord | None,
    planned: PlannedJob | None,
    *,
    replaced: bool,
) -> Job:
    state = record.state if record else JobState.QUEUED
    failure = record.failure if record else None
    if planned is not None and planned.state.terminal:
        # The centre may have given the job up, or miss trials that the device says it sent.
        state, failure = planned.state, planned.failure or failure
    elif planned is not None and state.terminal:
        state = JobState.IN_PROGRESS  # its last trials are not all here yet
    count = record.trials_planned if record else 0
    if count == 0 and planned is not None:
        count = sum(map(trials_of, planned.spec.workloads))
    return Job(key, config, state, record.attempt if record else 0, count, failure, replaced)


def _number(key: JobKey) -> tuple[int, JobKey]:
    last = origin_of(key.job_id).rpartition(".")[2]
    # Not isdigit: that takes characters which int does not.
    return (int(last) if last.isascii() and last.isdecimal() else 2**63, key)
