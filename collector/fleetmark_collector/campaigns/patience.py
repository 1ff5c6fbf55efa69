"""Says when the centre has waited long enough for a device, a job or its trials."""

from dataclasses import dataclass

from fleetmark_collector.campaigns.roles import KnownDevice
from fleetmark_collector.campaigns.tables import CampaignRow, JobRow
from fleetmark_protocol.jobs import JobState

NS = 1_000_000_000


@dataclass(frozen=True)
class Patience:
    """How long the centre waits before it gives a job up, in seconds.

    Attributes:
        cancel_offline_s: for a device that is gone to answer a cancellation.
        cancel_online_s: for one that is there.
        job_s: past the job's own limit, for a device that is gone.
        trials_s: for trials that a device says it recorded, counted from the last that came.
    """

    cancel_offline_s: float = 60.0
    cancel_online_s: float = 600.0
    job_s: float = 60.0
    trials_s: float = 600.0

    def out_of_time(self, campaign: CampaignRow, now_ns: int) -> bool:
        """Whether a campaign has run for longer than its file lets it; no patience beyond that."""
        if campaign.finished_ns is not None or campaign.stop_reason is not None:
            return False
        return now_ns > campaign.deadline_ns(now_ns)

    def silent(self, job: JobRow, now_ns: int) -> bool:
        """Whether a job goes on for longer than it may on a device that is gone."""
        return (
            job.state is JobState.IN_PROGRESS
            and job.started_ns is not None
            and now_ns - job.started_ns > (job.job_s + self.job_s) * NS
        )

    def unanswered(self, stop_ns: int, device: KnownDevice | None, now_ns: int) -> bool:
        """Whether a device has had its time to answer a cancellation of that time."""
        if device is not None and device.online:
            return now_ns - stop_ns > self.cancel_online_s * NS
        heard = (device.last_seen_ns or 0) if device is not None else 0
        return now_ns - max(stop_ns, heard) > self.cancel_offline_s * NS

    def gone(self, sent_ns: int | None, device: KnownDevice | None, now_ns: int) -> bool:
        """Whether a device that was sent something then is away, and has been for too long."""
        away = device is None or not device.online
        return away and self.unanswered(sent_ns or 0, device, now_ns)


PATIENCE = Patience()
"""What is waited unless somebody asks for something else."""


class Arrivals:
    """Remembers of jobs that have ended on their device since when no more trials have come."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        # Job id -> trials in the store, and since when so many.
        self._seen: dict[str, tuple[int, int]] = {}

    def stuck(self, job_id: str, stored: int, online: bool, now_ns: int) -> bool:
        """Whether trials that a device that is there says it recorded have stopped coming."""
        count, since = self._seen.get(job_id, (-1, now_ns))
        if count != stored or not online:
            since = now_ns
        self._seen[job_id] = (stored, since)
        return now_ns - since > self._patience.trials_s * NS

    def forget(self, job_id: str) -> None:
        """Drop what is remembered of a job that has ended here."""
        self._seen.pop(job_id, None)
