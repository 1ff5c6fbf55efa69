"""Takes in what devices have reported of their jobs, in whatever order and however late."""

from collections.abc import Mapping

from fleetmark_collector.campaigns.endings import Endings
from fleetmark_collector.campaigns.patience import NS, Arrivals, Patience
from fleetmark_collector.campaigns.reports import (
    Reported,
    by_job,
    ending,
    fold,
    is_late,
    missing_trials,
    not_heard_of,
)
from fleetmark_collector.campaigns.roles import DeviceKey, KnownDevice
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.campaigns.stopping import stopped
from fleetmark_collector.campaigns.tables import CampaignRow, JobRow
from fleetmark_collector.sinks.base import Reader, Stored
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.records import JobRecord

LATE_NS = 10 * NS
"""What is said of jobs of campaigns that have ended changes nothing, and is noted so late."""


class Intake:
    """Used by one thread."""

    def __init__(
        self,
        store: CampaignStore,
        reader: Reader,
        endings: Endings,
        patience: Patience,
        arrivals: Arrivals,
    ) -> None:
        """Read from one store, write to the other.

        Args:
            store: has the jobs.
            reader: has what was reported.
            endings: ends jobs.
            patience: when to give up waiting.
            arrivals: which jobs wait for trials.
        """
        self._store = store
        self._reader = reader
        self._endings = endings
        self._patience = patience
        self._arrivals = arrivals
        # Reports that were found late and noted.
        self._noted: set[tuple[str, str, str, int]] = set()
        # When campaigns that have ended were last looked at.
        self._looked_ns: dict[str, int] = {}

    def take_in(
        self, campaign: CampaignRow, devices: Mapping[DeviceKey, KnownDevice], now: int
    ) -> set[str]:
        """Bring the jobs of a campaign up to what was reported; return those that ended there.

        Raises:
            StoreUnavailable: nothing can be read now.
        """
        if campaign.finished_ns is not None and not self._due(campaign.campaign_id, now):
            return set()
        jobs = self._store.jobs(campaign.campaign_id)
        reports = by_job(self._reader.job_records(campaign.campaign_id))
        ended_there, online_there = set(), {key for key, one in devices.items() if one.online}
        # Trials are counted where their number matters alone: there may be very many, and far away.
        doubtful: list[tuple[JobRow, Reported, bool, bool]] = []
        for job in jobs:
            if job.state.terminal:
                self._note_late(job, reports[job.job_id])
                continue
            reported = fold(job, reports[job.job_id])
            if reported.final is not None:
                ended_there.add(job.job_id)
            begun_again = reported.attempt > job.attempt
            if begun_again:
                self._endings.move(job, JobState.IN_PROGRESS, attempt=reported.attempt)
            online = (job.fleet, job.device) in online_there
            silent = not (online or begun_again) and self._patience.silent(job, now)
            if silent or reported.final is not None:
                doubtful.append((job, reported, online, silent))
        if doubtful:
            counts = self._reader.trial_counts(
                campaign.campaign_id, [job.job_id for job, *_ in doubtful]
            )
            for job, reported, online, silent in doubtful:
                stored = counts.get(job.job_id, 0)
                if reported.since_attempt > 1:
                    args = (campaign.campaign_id, job.job_id, reported.since_attempt)
                    stored = self._reader.trials_since(*args)
                if not self._arrived(campaign, job, reported, stored, online, now) and silent:
                    self._endings.end(job, JobState.TIMED_OUT, not_heard_of(job), recorded=stored)
        return ended_there

    def _due(self, campaign_id: str, now: int) -> bool:
        """Whether to look once more what devices say too late; there may be very much to read."""
        if 0 <= now - self._looked_ns.get(campaign_id, now - LATE_NS) < LATE_NS:
            return False
        self._looked_ns[campaign_id] = now
        return True

    def _arrived(
        self,
        campaign: CampaignRow,
        job: JobRow,
        reported: Reported,
        stored: int,
        online: bool,
        now: int,
    ) -> bool:
        """End a job that has ended on its device and whose trials are here, or do not come."""
        final = reported.final
        if final is None:
            return False
        if stored >= final.trials_recorded:
            begun = reported.attempt > 0 or job.state is JobState.IN_PROGRESS
            state, failure = ending(final, begun)
            if state is JobState.CANCELED:
                state, failure = stopped(campaign, job, failure, answered=True)
        elif self._arrivals.stuck(job.job_id, stored, online, now):
            state, failure = JobState.FAILED, missing_trials(final, stored)
        else:
            return False
        recorded = min(stored, final.trials_recorded)
        self._endings.end(job, state, failure, attempt=final.attempt, recorded=recorded)
        return True

    def _note_late(self, job: JobRow, reports: list[Stored[JobRecord]]) -> None:
        for report in reports:
            key = (report.fleet, report.device, report.epoch, report.seq)
            if key not in self._noted and is_late(job, report):
                self._store.note_late(report)
                self._noted.add(key)
