"""Whose turn it is: which jobs of a campaign may be sent now, what the others wait for."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from zoneinfo import ZoneInfo

from fleetmark_collector.campaigns.openings import NS, Span
from fleetmark_collector.campaigns.roles import DeviceKey, KnownDevice
from fleetmark_collector.campaigns.tables import CampaignRow, JobRow
from fleetmark_protocol.jobs import JobState

Reason = Literal["paused", "backoff", "window", "too_long", "offline", "rollout"]


@dataclass(frozen=True)
class Wait:
    """Why a job is not sent yet, apart from its device being at another one.

    Attributes:
        until_ns: when that is over at the earliest; None if nobody can tell.
        zone: time zone in which the device's windows are meant.
    """

    reason: Reason
    until_ns: int | None = None
    zone: str | None = None


class Turns:
    """The turns of one campaign at one moment; all of it follows from the rows."""

    def __init__(
        self,
        campaign: CampaignRow,
        jobs: Sequence[JobRow],
        devices: Mapping[DeviceKey, KnownDevice],
        now_ns: int,
        ended_there: Collection[str] = (),
    ) -> None:
        """Look at the campaign.

        Args:
            campaign: which.
            jobs: all of it.
            devices: those that the centre knows.
            now_ns: the centre's clock.
            ended_there: jobs that have ended on their device, though not yet here.
        """
        self._campaign = campaign
        self._devices = devices
        self._now_ns = now_ns
        self._stretches: dict[str, Span | None] = {}
        self._longest: dict[str, float] = {}
        self._rollout = campaign.policy.rollout
        self._successes = sum(job.state is JobState.SUCCEEDED for job in jobs)
        self._sent_ns = [job.assigned_ns for job in jobs if job.assigned_ns is not None]
        self._due = (
            self._rollout.due(self._sent_ns, self._successes, now_ns) if self._rollout else None
        )
        # Told to each of very many jobs, so worked out once.
        self._next_sent_ns = (
            self._rollout.next_ns(self._sent_ns, self._successes, now_ns) if self._rollout else None
        )
        self._at_work = {
            (job.fleet, job.device) for job in jobs if is_out(job) and job.job_id not in ended_there
        }

    def wait(self, job: JobRow) -> Wait | None:
        """Return what a job that waits here waits for; None if it may be sent now."""
        key = (job.fleet, job.device)
        if self._campaign.paused_ns is not None:
            return Wait("paused")
        if job.not_before_ns is not None and self._now_ns < job.not_before_ns:
            return Wait("backoff", job.not_before_ns)
        closed = self._closed(job, key)
        if closed is not None:
            return closed
        careful = self._rollout is not None or self._campaign.policy.windows is not None
        if careful and not self._online(key):
            # It would keep its place in the roll-out, or begin it whenever it comes back.
            return Wait("offline")
        return self._held_back(key)

    def sent(self, job: JobRow) -> None:
        """Count a job that has been sent now."""
        if self._rollout is not None:
            self._next_sent_ns = self._rollout.next_ns(
                [self._now_ns], self._successes, self._now_ns
            )
        self._at_work.add((job.fleet, job.device))
        if self._due is not None:
            self._due -= 1

    def is_open(self, key: DeviceKey) -> bool:
        """Whether jobs of the campaign may run on a device now, as far as windows say."""
        if self._campaign.policy.windows is None:
            return True
        span = self._stretch(key)[0]
        return span is not None and span[0] <= self._now_ns

    def _closed(self, job: JobRow, key: DeviceKey) -> Wait | None:
        if self._campaign.policy.windows is None:
            return None
        span, zone = self._stretch(key)
        if span is None or span[0] > self._now_ns:
            return Wait("window", span[0] if span else None, zone)
        if job.estimate_s is None:
            return None
        left_ns, needed_ns = span[1] - self._now_ns, job.estimate_s * NS
        if needed_ns <= left_ns or needed_ns > self._longest_ns(key):
            # What fits in no window was let in by somebody who was told so.
            return None
        return Wait("too_long", self._next_ns(key, span[1]), zone)

    def _held_back(self, key: DeviceKey) -> Wait | None:
        if self._rollout is None:
            return None
        most = self._rollout.devices_at_once
        if most is not None and key not in self._at_work and len(self._at_work) >= most:
            return Wait("rollout")
        if self._due is not None and self._due <= 0:
            return Wait("rollout", self._next_sent_ns)
        return None

    def _online(self, key: DeviceKey) -> bool:
        device = self._devices.get(key)
        return device is not None and device.online

    def _zone(self, key: DeviceKey) -> tuple[str, ZoneInfo]:
        windows, device = self._campaign.policy.windows, self._devices.get(key)
        assert windows is not None  # noqa: S101 - callers look first
        zone = windows.zone_of(device.inventory if device is not None else None)
        return zone.name, zone.info

    def _stretch(self, key: DeviceKey) -> tuple[Span | None, str]:
        """Return the open time that holds now, else the next one, and in which zone."""
        windows = self._campaign.policy.windows
        name, zone = self._zone(key)
        if name not in self._stretches:
            # Fleets are large and time zones few.
            self._stretches[name] = windows.stretch(zone, self._now_ns) if windows else None
        return self._stretches[name], name

    def _longest_ns(self, key: DeviceKey) -> float:
        windows = self._campaign.policy.windows
        name, zone = self._zone(key)
        if name not in self._longest:
            self._longest[name] = windows.longest_s(zone, self._now_ns) * NS if windows else 0.0
        return self._longest[name]

    def _next_ns(self, key: DeviceKey, after_ns: int) -> int | None:
        windows = self._campaign.policy.windows
        span = windows.stretch(self._zone(key)[1], after_ns) if windows else None
        return None if span is None else max(span[0], after_ns)


def is_out(job: JobRow) -> bool:
    """Whether a job is on its device, as far as the centre knows: sent, or begun there."""
    if job.state.terminal:
        return False
    return job.assigned_ns is not None or job.state is JobState.IN_PROGRESS


def waits(turns: Turns, jobs: Iterable[JobRow]) -> dict[str, Wait]:
    """Return what the jobs of a campaign that are not sent yet wait for; for those who watch."""
    found = {}
    for job in jobs:
        if job.state is JobState.QUEUED and not is_out(job):
            wait = turns.wait(job)
            if wait is not None:
                found[job.job_id] = wait
    return found
