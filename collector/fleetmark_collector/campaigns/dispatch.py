"""Brings desired and reported state of every job together, tick by tick, however often restarted.

Each tick looks at three levels: the campaigns in the state file, the devices' reports in the
store, and what this connection to the broker has been told. Nothing is pushed in, so nothing can
be missed: after a crash the next tick sees the same levels and goes on.
"""

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from fleetmark_collector.campaigns.abort import ended_devices
from fleetmark_collector.campaigns.announcer import Announcer
from fleetmark_collector.campaigns.apart import Apart
from fleetmark_collector.campaigns.endings import Endings
from fleetmark_collector.campaigns.intake import Intake
from fleetmark_collector.campaigns.joining import Joining
from fleetmark_collector.campaigns.patience import NS, PATIENCE, Arrivals, Patience
from fleetmark_collector.campaigns.reports import failure_of
from fleetmark_collector.campaigns.roles import DeviceKey, KnownDevice, Publish, Registry
from fleetmark_collector.campaigns.skew import has_taken, mismatch
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.campaigns.steering import recall_job, stop_for_window
from fleetmark_collector.campaigns.stopping import out_of_time, stopped
from fleetmark_collector.campaigns.tables import CampaignRow, JobRow
from fleetmark_collector.campaigns.turns import Turns, is_out
from fleetmark_collector.sinks.base import Reader
from fleetmark_collector.sqlitefile import Fence
from fleetmark_protocol import logs
from fleetmark_protocol.errors import CampaignAborted, StoreUnavailable, VersionMismatch
from fleetmark_protocol.jobs import JobState

RECENT_NS = 3600 * NS
"""Campaigns that ended so recently are still looked at: late reports are noted, and what may have
been lost on the way to the broker is cleared again."""


class Dispatcher:
    """Used by one thread, except `on_connect`, which any thread may call."""

    def __init__(
        self,
        state_file: Path,
        reader: Reader,
        registry: Registry,
        publish: Publish,
        clock: Callable[[], int] = time.time_ns,
        patience: Patience = PATIENCE,
        fence: Fence | None = None,
        centre: str | None = None,
        heard: Callable[[], Collection[DeviceKey]] = tuple,
    ) -> None:
        """Open the campaigns.

        Args:
            state_file: see `state.CampaignStore`.
            reader: the store that devices' records go to.
            registry: says which devices are there.
            publish: hands a message to the broker.
            clock: nanoseconds since the epoch; must be the one that `registry` uses.
            patience: when to give up waiting.
            fence: see `sqlitefile.Fence`.
            centre: see `announcer.Announcer`.
            heard: says whose status is of now; that of others may be of before an upgrade.

        Raises:
            StoreError: the state file cannot be used.
        """
        self._store = CampaignStore(state_file, clock, fence)
        self._registry = registry
        self._heard = heard
        self._clock = clock
        self._patience = patience
        self._log = logs.get("dispatch")
        self._reconnected = threading.Event()
        self._connected_ns = clock()
        # What was cleared since then is to be cleared again; None if nothing is.
        self._clear_since_ns: int | None = None
        self._apart = Apart("dispatch")
        arrivals = Arrivals(patience)
        self._endings = Endings(self._store, arrivals)
        self._intake = Intake(self._store, reader, self._endings, patience, arrivals)
        self._announcer = Announcer(self._store, publish, centre, clock)
        self._joining = Joining(self._store, clock)

    def on_connect(self) -> None:
        """Have everything that should be retained published again at the next tick."""
        self._reconnected.set()

    def tick(self) -> None:
        """Take in what was reported, give up what is overdue, publish what has changed.

        Raises:
            StoreError: the state file cannot be used now; the next tick does all of it.
        """
        now = self._clock()
        if self._reconnected.is_set():
            self._reconnected.clear()
            self._announcer.forget()
            # Told to a broker that may never have heard it, or that forgot.
            since_ns = min(self._connected_ns, now - RECENT_NS)
            self._clear_since_ns = min(since_ns, self._clear_since_ns or since_ns)
            self._connected_ns = now
        # Before the statuses are read: one that comes in between is looked at in the next tick.
        heard = self._heard()
        devices = {(one.fleet, one.device): one for one in self._registry.list()}
        ended_there: set[str] = set()
        campaigns = self._store.recent(now - RECENT_NS, self._apart)
        try:
            for campaign in campaigns:
                with self._apart.keep(_called(campaign)):
                    ended_there |= self._intake.take_in(campaign, devices, now)
        except StoreUnavailable as error:
            # Nothing is known of the others, so nothing is overdue; what is to be sent can be sent.
            self._log.debug("reports_not_read", reason=error.message)
        for campaign in campaigns:
            with self._apart.keep(_called(campaign)):
                self._check_deadline(campaign, now)
                self._joining.join(campaign, devices)
        self._announcer.clear(self._clear_since_ns)
        self._clear_since_ns = None
        for key, device in devices.items():
            with self._apart.keep(f"device {device.device}"):
                self._announcer.withdraw(key, device)
        self._send(devices, heard, ended_there, now)

    def close(self) -> None:
        """Release the campaigns."""
        self._store.close()

    # --- when it is over -----------------------------------------------------------------------

    def _check_deadline(self, campaign: CampaignRow, now: int) -> None:
        if self._patience.out_of_time(campaign, now):
            self._log.warning("campaign_timed_out", campaign_id=campaign.campaign_id)
            self._store.stop(campaign.campaign_id, "timeout", out_of_time(campaign))

    def _aborts(self, campaign: CampaignRow, jobs: Sequence[JobRow]) -> bool:
        """Stop a campaign that goes wrong on too many devices; return whether it does."""
        rules = campaign.policy.abort
        if not rules or campaign.stop_reason is not None or campaign.state.terminal:
            return False
        newest = [job for job in jobs if job.superseded_by is None]
        ends = ended_devices(((job.fleet, job.device), job.state) for job in newest)
        for rule in rules:
            broken = rule.broken(ends)
            if broken is not None:
                failure = failure_of(CampaignAborted(broken))
                self._log.warning(
                    "campaign_aborted", campaign_id=campaign.campaign_id, reason=broken
                )
                self._store.stop(campaign.campaign_id, "abort", failure)
                return True
        return False

    # --- to the devices ------------------------------------------------------------------------

    def _send(
        self,
        devices: Mapping[DeviceKey, KnownDevice],
        heard: Collection[DeviceKey],
        ended_there: set[str],
        now: int,
    ) -> None:
        """Say what is desired of each job that was sent, and send each idle device its next one."""
        busy: set[DeviceKey] = set()
        waiting: list[tuple[JobRow, Turns]] = []
        # Read again: what was taken in above, and what a command has changed meanwhile, counts.
        for campaign in self._store.recent(now, self._apart):
            with self._apart.keep(_called(campaign)):
                waiting += self._hold_all(campaign, devices, heard, ended_there, busy, now)
        for job, turns in waiting:
            key = (job.fleet, job.device)
            with self._apart.keep(f"job {job.job_id}"):
                if key in busy or turns.wait(job) is not None or not self._store.assign(job.job_id):
                    continue
                busy.add(key)
                turns.sent(job)
                self._log.info("job_assigned", job_id=job.job_id, device=job.device)
                self._announcer.desire(job, "run")
        self._announcer.clear(None)

    def _hold_all(
        self,
        campaign: CampaignRow,
        devices: Mapping[DeviceKey, KnownDevice],
        heard: Collection[DeviceKey],
        ended_there: set[str],
        busy: set[DeviceKey],
        now: int,
    ) -> list[tuple[JobRow, Turns]]:
        """Say what is desired of a campaign's jobs that were sent; return those that wait here.

        Devices that are at one are put into `busy`.
        """
        waiting: list[tuple[JobRow, Turns]] = []
        jobs = self._store.jobs(campaign.campaign_id)
        if self._aborts(campaign, jobs):
            campaign = self._store.campaign(campaign.campaign_id)
            jobs = self._store.jobs(campaign.campaign_id)
        turns = Turns(campaign, jobs, devices, now, ended_there)
        for job in jobs:
            if job.state.terminal:
                continue
            key = (job.fleet, job.device)
            if key in heard and self._rejects(campaign, job, turns, devices.get(key)):
                continue
            if is_out(job) and job.job_id not in ended_there:
                job = self._hold(campaign, job, turns, devices.get(key), now)
            if not is_out(job):
                if job.recalls:
                    self._announcer.take_back(job)
                waiting.append((job, turns))
                continue
            if job.job_id not in ended_there:
                busy.add(key)
            self._desire(campaign, job, devices.get(key), now)
        return waiting

    def _rejects(
        self, campaign: CampaignRow, job: JobRow, turns: Turns, device: KnownDevice | None
    ) -> bool:
        """End a job that its device would refuse without being heard; return whether it does.

        An agent whose version does not go with ours can tell us nothing. What it has taken before
        is left alone: of that it tells once it has been upgraded.
        """
        if device is None or not device.online or job.state is not JobState.QUEUED:
            return False
        reason = mismatch(device)
        stops = campaign.stop_reason is not None or job.stop_reason is not None
        if reason is None or stops or has_taken(device, job):
            return False
        if not is_out(job) and turns.wait(job) is not None:
            return False
        self._endings.end(job, JobState.REJECTED, failure_of(VersionMismatch(reason)))
        return True

    def _hold(
        self,
        campaign: CampaignRow,
        job: JobRow,
        turns: Turns,
        device: KnownDevice | None,
        now: int,
    ) -> JobRow:
        """Hold a job back that was sent and may not begin or go on now; return how it stands."""
        if campaign.stop_reason is not None or job.stop_reason is not None:
            return job
        closed = not turns.is_open((job.fleet, job.device))
        windows = campaign.policy.windows
        if job.state is JobState.QUEUED:
            # What a device is about to begin while its campaign is paused, it may: it was sent
            # before. One that is away would begin it whenever it comes back.
            away = device is None or not device.online
            held = closed or (campaign.paused_ns is not None and away)
            if campaign.policy.rollout is not None:
                # It would keep its place, perhaps for ever.
                held = held or self._patience.gone(job.assigned_ns, device, now)
            if not held:
                return job
            if recall_job(self._store.file, job.job_id, now):
                self._log.info("job_recalled", job_id=job.job_id, device=job.device)
        elif closed and windows is not None and windows.at_end == "cancel":
            if stop_for_window(self._store.file, job.job_id, now):
                self._log.info("job_window_closed", job_id=job.job_id, device=job.device)
        else:
            return job
        return self._store.job(job.job_id) or job

    def _desire(
        self, campaign: CampaignRow, job: JobRow, device: KnownDevice | None, now: int
    ) -> None:
        """Say what is desired of a job that was sent, or give up waiting for its device."""
        reason = campaign.stop_reason or job.stop_reason
        if reason is None:
            if job.assigned_ns is not None:
                self._announcer.desire(job, "run")
            return
        since = campaign.stop_ns if campaign.stop_reason is not None else job.stop_ns
        if not self._patience.unanswered(since or now, device, now):
            self._announcer.desire(job, "cancel")
        else:
            self._endings.end(job, *stopped(campaign, job, None, answered=False))


def _called(campaign: CampaignRow) -> str:
    return f"campaign {campaign.campaign_id}"
