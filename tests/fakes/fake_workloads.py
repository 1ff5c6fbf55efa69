"""Makes up records of sweeps, rounds, soaks and cold starts, for tests of what reads them."""

import random
from typing import Any

from fakes.fake_campaign import CAMPAIGN, START_NS, FakeJob
from fleetmark_collector.report.jobs import PlannedJob
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.messages import JobSpec, ModelSpec
from fleetmark_protocol.records import TelemetryRecord
from fleetmark_protocol.workloads import Workload

S = 10**9
BOOT = "00000000-0000-4000-8000-000000000002"


def planned(job: FakeJob, *workloads: Workload, **more: Any) -> PlannedJob:
    """The job as a campaign planned it."""
    spec = JobSpec(
        job_id=job.job_id,
        campaign_id=CAMPAIGN,
        backend=job.backend,
        model=ModelSpec(name=job.model, ref="path:tiny.gguf", quantization=job.quantization),
        labels=job.options,
        workloads=workloads,
    )
    return PlannedJob(job.fleet, job.device, spec, **more)


def sweep(job: FakeJob, *lengths: int, repetitions: int = 8, name: str = "sweep") -> FakeJob:
    """One question at several lengths; the engine counts one token more than was asked for."""
    for length in lengths:
        for repetition in range(repetitions):
            noise = random.Random(f"{job.seed} {length} {repetition}").uniform(0.98, 1.02)
            ttft_s = job.tpot_s * length / 8 * noise
            job.trial(
                f"{name}-{length}",
                repetition,
                workload_kind="context_sweep",
                prompt_tokens=length + 1,
                prompt_tokens_evaluated=length + 1,
                ttft_s=ttft_s,
                prefill_tps=(length + 1) / ttft_s,
            )
    return job


def crowd(
    job: FakeJob,
    clients: int,
    tps: float,
    *,
    rounds: int = 8,
    first: int = 0,
    name: str = "crowd",
    **fields: Any,
) -> FakeJob:
    """Rounds in which so many clients ask at once; the later a client, the longer it waits."""
    for repetition in range(first, first + rounds):
        noise = random.Random(f"{job.seed} {clients} {repetition}").uniform(0.98, 1.02)
        for client in range(clients):
            job.trial(
                f"{name}-{clients}",
                repetition,
                workload_kind="concurrency",
                trial_id=f"{job.job_id}.{name}-{clients}.{repetition}.{client}",
                clients=clients,
                client=client,
                throughput_tps=tps * noise,
                latency_s=32 * clients / (tps * noise) + 0.01 * client,
                **fields,
            )
    return job


def soak(
    job: FakeJob,
    *,
    duration_s: float = 900.0,
    every_s: float = 10.0,
    fast: float = 20.0,
    slow: float = 16.0,
    hot_from_s: float = 300.0,
    until_s: float | None = None,
    attempt: int = 1,
    repetition: int = 0,
    reasons: tuple[str, ...] = ("throttled",),
) -> FakeJob:
    """Requests without a pause, slower from some time on."""
    for number in range(int((duration_s if until_s is None else until_s) / every_s)):
        at_s = number * every_s
        hot = at_s >= hot_from_s
        noise = random.Random(f"{job.seed} {number}").uniform(0.99, 1.01)
        job.trial(
            "heat",
            repetition,
            attempt=attempt,
            workload_kind="soak",
            trial_id=f"{job.job_id}.heat.{repetition}.a{attempt}.{number}",
            trial_index=0,
            time_ns=START_NS + round(at_s * S),
            soak_s=at_s,
            decode_tps=(slow if hot else fast) * noise,
            latency_s=every_s,
            temperature_c_max=80.0 if hot else 60.0,
            verdict="SUSPECT" if hot and reasons else "VALID",
            verdict_reasons=reasons if hot else (),
        )
    return job


def heat(*, from_s: float = 0.0, to_s: float = 900.0, throttled_from_s: float | None = 300.0):
    """The device's own samples meanwhile: it warms up from 45 °C by 0.05 °C a second."""
    return [
        TelemetryRecord(
            time_ns=START_NS + at_s * S,
            boot_id=BOOT,
            temperature_c=45 + 0.05 * at_s,
            throttled=None if throttled_from_s is None else int(at_s >= throttled_from_s),
        )
        for at_s in range(int(from_s), int(to_s), 5)
    ]


def coldstarts(job: FakeJob, name: str, *, load_s: float, cached: float, repetitions: int = 8):
    """An engine started anew for each request."""
    for repetition in range(repetitions):
        noise = random.Random(f"{name} {repetition}").uniform(0.98, 1.02)
        job.trial(
            name,
            repetition,
            workload_kind="coldstart",
            cold=True,
            load_s=load_s * noise,
            latency_cold_s=load_s * noise + 0.5,
            latency_s=0.5,
            model_cached_percent=cached,
        )
    return job


def priced(job: FakeJob, usd_per_hour: float, *, repetitions: int = 8, **fields: Any) -> FakeJob:
    """Trials with a price."""
    for repetition in range(repetitions):
        noise = random.Random(f"{job.seed} {repetition}").uniform(0.98, 1.02)
        latency_s = 100 * job.tpot_s * noise
        cost = usd_per_hour * latency_s / 3600
        job.trial(
            "single",
            repetition,
            latency_s=latency_s,
            usd_per_hour=usd_per_hour,
            cost_usd=cost,
            **({"eq": 1 / (cost * latency_s)} if cost else {}),
            **({"eq_per_token": 32**2 / (cost * latency_s)} if cost else {}),
            **fields,
        )
    return job


def done(job: FakeJob, state: JobState = JobState.SUCCEEDED) -> FakeJob:
    """The job's last word."""
    return job.job(state)


def workload(name: str, kind: str, **more: Any) -> Workload:
    return Workload(name=name, kind=kind, prompts=("a",), **more)
