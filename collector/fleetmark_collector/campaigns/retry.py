"""Runs again what went wrong in a campaign that has ended: in a campaign of its own.

A terminal state never changes, and neither does what a report of the first campaign says: the
retry is another campaign, and each of its jobs names the job that it runs again.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fleetmark_collector.campaigns.plan import Plan, PlannedJob, new_campaign_id
from fleetmark_collector.campaigns.policy import Policy
from fleetmark_collector.campaigns.refusals import cannot_run, would_refuse
from fleetmark_collector.campaigns.roles import KnownDevice
from fleetmark_collector.campaigns.skew import mismatch
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.campaigns.tables import CampaignRow, JobRow
from fleetmark_collector.campaigns.takenids import keep_anew
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.settings import suggestion

RETRIED = (JobState.FAILED, JobState.TIMED_OUT, JobState.CANCELED, JobState.REJECTED)
"""States of jobs that a retry runs again, unless some of them are named."""


@dataclass(frozen=True)
class Again:
    """What is kept of a retry beside its jobs: what was kept of the campaign."""

    name: str
    description: str
    file: Path
    text: str
    campaign_s: float
    policy: Policy = field(default_factory=Policy)


def start_retry(
    store: CampaignStore,
    campaign_id: str,
    known: Sequence[KnownDevice],
    *,
    states: Collection[JobState] = RETRIED,
    devices: Collection[str] = (),
    time_ns: Callable[[], int] = time.time_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> Plan:
    """Start a campaign of the jobs that went wrong in another one; return its plan.

    Jobs go to the same devices with the same specification, prompts included, whatever has become
    of the campaign's file. A job that a retry runs already, or that succeeded in one, is left out.

    Args:
        store: has the campaign.
        campaign_id: which.
        known: all devices that the collector knows.
        states: only jobs in these states.
        devices: only jobs of these devices; none means all.
        time_ns: nanoseconds since the epoch.
        sleep: waits so many seconds, where the name was used within the same second.

    Raises:
        ConfigError: there is no such campaign, it has not ended, or nothing is left to retry.
        StoreError: the state file cannot be used.
    """
    campaign = store.campaign(campaign_id)
    if not campaign.state.terminal:
        raise ConfigError(
            f"campaign {campaign_id} is running",
            hint="a retry takes campaigns that have ended; wait, or cancel it",
        )
    jobs = store.jobs(campaign_id)
    _check_devices(devices, jobs)
    # Of jobs that were run again within the campaign, the last of each chain is what went wrong.
    wanted = [
        job
        for job in jobs
        if job.superseded_by is None
        and job.state in states
        and (not devices or job.device in devices)
    ]
    settled = _settled(store, [job.job_id for job in wanted])
    wanted = [job for job in wanted if job.job_id not in settled]
    if not wanted:
        raise ConfigError(_nothing(campaign, settled))
    plan = _plan(store, campaign, wanted, known, time_ns())
    about = Again(
        campaign.name,
        campaign.description,
        Path(campaign.file_name),
        store.file_text(campaign_id),
        campaign.campaign_s,
        campaign.policy,
    )
    return keep_anew(
        store,
        plan,
        lambda made: store.create(about, made, retry_of=campaign_id),
        lambda: _plan(store, campaign, wanted, known, time_ns()),
        sleep,
    )


def _check_devices(devices: Collection[str], jobs: Sequence[JobRow]) -> None:
    there = sorted({job.device for job in jobs})
    for name in devices:
        if name not in there:
            raise ConfigError(f"--device {name}: not in this campaign{suggestion(name, there)}")


def _settled(store: CampaignStore, job_ids: Sequence[str]) -> dict[str, str]:
    """Return the jobs that need no further retry, with the job that took their place."""
    found: dict[str, str] = {}
    origins = {job_id: job_id for job_id in job_ids}
    todo = list(job_ids)
    while todo:
        retries = store.retries(todo)
        todo = []
        for retry in retries:
            origin = origins[str(retry.retry_of)]
            origins[retry.job_id] = origin
            if retry.state is JobState.SUCCEEDED or not retry.state.terminal:
                found[origin] = retry.job_id
            todo.append(retry.job_id)
    return found


def _nothing(campaign: CampaignRow, settled: Mapping[str, str]) -> str:
    if settled:
        others = ", ".join(sorted({job_id.partition(".")[0] for job_id in settled.values()}))
        return f"nothing to retry: {others} runs these jobs of {campaign.campaign_id}, or ran them"
    return f"nothing to retry: no job of {campaign.campaign_id} ended in one of these states"


def _plan(
    store: CampaignStore,
    campaign: CampaignRow,
    jobs: Sequence[JobRow],
    known: Sequence[KnownDevice],
    time_ns: int,
) -> Plan:
    campaign_id = new_campaign_id(campaign.name, time_ns)
    there = {(one.fleet, one.device): one for one in known}
    numbers: Counter[str] = Counter()
    planned = []
    notes: dict[str, None] = {}
    for job in jobs:
        numbers[job.device] += 1
        job_id = f"{campaign_id}.{job.device}.{numbers[job.device]:03d}"
        again = {"job_id": job_id, "campaign_id": campaign_id}
        spec = store.spec(job.job_id).model_copy(update=again)
        made = PlannedJob(job.fleet, job.device, spec, job.trials_planned, retry_of=job.job_id)
        made = replace(made, estimate_s=job.estimate_s)
        device = there.get((job.fleet, job.device))
        if device is None:
            notes[f"{job.device} is not known any more: its jobs wait until it reports"] = None
        else:
            refusal = mismatch(device) or cannot_run(made.cell, device.inventory)
            refusal = refusal or would_refuse(made.cell, device.inventory, known)
            made = replace(made, refusal=refusal)
            if not device.online:
                notes[f"{job.device} is offline: its jobs wait until it is back"] = None
        planned.append(made)
    return Plan(campaign_id, tuple(planned), notes=tuple(notes))
