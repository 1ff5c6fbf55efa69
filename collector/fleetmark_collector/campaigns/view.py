"""What there is to see of a campaign right now, gathered from the files; no drawing here."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from fleetmark_collector.campaigns.roles import Registry
from fleetmark_collector.campaigns.situation import Situation, look
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.campaigns.tables import CampaignRow, JobRow
from fleetmark_collector.campaigns.turns import is_out
from fleetmark_collector.sinks.base import Reader
from fleetmark_protocol.errors import StoreUnavailable
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.records import TelemetryRecord

NS = 1_000_000_000
MIN_TRIALS_FOR_ETA = 3
"""Fewer say too little about how long the others will take."""

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True)
class DeviceView:
    """A device of the campaign; quantities are absent where it has sent none, or is offline."""

    fleet: str
    device: str
    online: bool
    job: JobRow | None
    cpu_percent: float | None = None
    mem_used_percent: float | None = None
    temperature_c: float | None = None


@dataclass(frozen=True)
class View:
    """A campaign at one moment.

    Attributes:
        stored: job id -> trials in the store.
        eta_s: seconds until the end at the pace so far; None while unknown.
        late_reports: reports that came after their job had ended here.
        situation: what it waits for.
    """

    campaign: CampaignRow
    jobs: tuple[JobRow, ...]
    devices: tuple[DeviceView, ...]
    stored: Mapping[str, int]
    eta_s: float | None
    late_reports: int
    situation: Situation = field(default_factory=Situation)

    @property
    def current(self) -> tuple[JobRow, ...]:
        """The jobs that count: of those that were run again the last of each chain."""
        return tuple(_current(self.jobs))

    @property
    def by_state(self) -> Counter[JobState]:
        """How many of the jobs that count are in each state."""
        return Counter(job.state for job in self.current)

    @property
    def trials_planned(self) -> int:
        """Trials of the jobs that count, warm-ups included."""
        return sum(job.trials_planned for job in self.current)

    @property
    def trials_stored(self) -> int:
        """Trials of the jobs that count that are in the store."""
        return sum(self.stored.get(job.job_id, 0) for job in self.current)

    @property
    def trials_settled(self) -> int:
        """Trials that need no waiting for: stored, or of a job that has ended without them."""
        return sum(_settled(job, self.stored) for job in self.current)

    @property
    def failed(self) -> tuple[JobRow, ...]:
        """Jobs that ended other than well and are not run again, the last to end first."""
        ended = (job for job in self.current if job.state.terminal)
        bad = (job for job in ended if job.state is not JobState.SUCCEEDED)
        return tuple(sorted(bad, key=lambda job: job.updated_ns, reverse=True))


def gather(
    store: CampaignStore, reader: Reader, registry: Registry, campaign_id: str, now_ns: int
) -> View:
    """Return what there is to see.

    Raises:
        ConfigError: there is no such campaign.
        StoreError: the state file cannot be read.
    """
    campaign = store.campaign(campaign_id)
    jobs = store.jobs(campaign_id)
    stored = _if_there(lambda: reader.trial_counts(campaign_id))
    samples = _if_there(reader.latest_telemetry)
    devices = registry.list()
    online = {(one.fleet, one.device): one.online for one in devices}
    keys = sorted({(job.fleet, job.device) for job in jobs})
    return View(
        campaign,
        tuple(jobs),
        tuple(_device(key, jobs, online.get(key, False), samples) for key in keys),
        stored,
        # While it is paused nobody can tell.
        None if campaign.paused_ns is not None else _eta_s(_current(jobs), stored, now_ns),
        len(store.late_reports(campaign_id)),
        look(campaign, jobs, devices, now_ns),
    )


def _current(jobs: Iterable[JobRow]) -> list[JobRow]:
    return [job for job in jobs if job.superseded_by is None]


def _if_there(read: Callable[[], dict[K, V]]) -> dict[K, V]:
    """Return what the store says; before the collector's first start there is no store."""
    try:
        return read()
    except StoreUnavailable:
        return {}


def _device(
    key: tuple[str, str],
    jobs: list[JobRow],
    online: bool,
    samples: Mapping[tuple[str, str], TelemetryRecord],
) -> DeviceView:
    sent = [job for job in jobs if (job.fleet, job.device) == key and is_out(job)]
    job = sent[0] if sent else None
    sample = samples.get(key) if online else None
    if sample is None:
        return DeviceView(*key, online, job)
    return DeviceView(
        *key, online, job, sample.cpu_percent, sample.mem_used_percent, sample.temperature_c
    )


def _settled(job: JobRow, stored: Mapping[str, int]) -> int:
    if job.state.terminal:
        return job.trials_planned
    return min(stored.get(job.job_id, 0), job.trials_planned)


def _eta_s(jobs: list[JobRow], stored: Mapping[str, int], now_ns: int) -> float | None:
    begun = [job for job in jobs if job.started_ns is not None]
    measured = sum(stored.get(job.job_id, 0) for job in begun)
    if measured < MIN_TRIALS_FOR_ETA or all(job.state.terminal for job in jobs):
        return None
    elapsed_s = (now_ns - min(job.started_ns or 0 for job in begun)) / NS
    left = sum(job.trials_planned - _settled(job, stored) for job in jobs)
    return max(0.0, elapsed_s * left / measured)
