"""Brings desired and reported state of every job together, tick by tick, however often restarted.

Each tick looks at three levels: the campaigns in the state file, the devices' reports in the
store, and what this connection to the broker has been told. Nothing is pushed in, so nothing can
be missed: after a crash the next tick sees the same levels and goes on.
"""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from fleetmark_collector.campaigns.patience import NS, PATIENCE, Arrivals, Patience
from fleetmark_collector.campaigns.reports import (
    Reported,
    by_job,
    ending,
    failure_of,
    fold,
    is_late,
    missing_trials,
    not_heard_of,
)
from fleetmark_collector.campaigns.roles import KnownDevice, Publish, Registry
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.campaigns.tables import CampaignRow, JobRow
from fleetmark_collector.sinks.base import Reader, Stored
from fleetmark_protocol import codec, logs, topics
from fleetmark_protocol.errors import (
    CampaignTimedOut,
    Canceled,
    StoreUnavailable,
)
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.messages import Assignment
from fleetmark_protocol.records import Failure, JobRecord

RECENT_NS = 3600 * NS
"""Campaigns that ended so recently are still looked at: late reports are noted, and what may have
been lost on the way to the broker is cleared again."""

DeviceKey = tuple[str, str]
Said = Literal["run", "cancel"]


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
    ) -> None:
        """Open the campaigns.

        Args:
            state_file: see `state.CampaignStore`.
            reader: the store that devices' records go to.
            registry: says which devices are there.
            publish: hands a message to the broker.
            clock: nanoseconds since the epoch; must be the one that `registry` uses.
            patience: when to give up waiting.

        Raises:
            StoreError: the state file cannot be used.
        """
        self._store = CampaignStore(state_file, clock)
        self._reader = reader
        self._registry = registry
        self._publish = publish
        self._clock = clock
        self._patience = patience
        self._log = logs.get("dispatch")
        self._reconnected = threading.Event()
        self._connected_ns = clock()
        # What this connection has told the broker of each job; empty after a reconnect.
        self._said: dict[str, Said] = {}
        # When the inventory was made that was last held against our jobs, of devices online.
        self._compared: dict[DeviceKey, int] = {}
        self._arrivals = Arrivals(patience)
        # Reports that were found late and noted.
        self._noted: set[tuple[str, str, str, int]] = set()

    def on_connect(self) -> None:
        """Have everything that should be retained published again at the next tick."""
        self._reconnected.set()

    def tick(self) -> None:
        """Take in what was reported, give up what is overdue, publish what has changed.

        Raises:
            StoreError: the state file cannot be used now; the next tick does all of it.
        """
        now = self._clock()
        clear_since = None
        if self._reconnected.is_set():
            self._reconnected.clear()
            self._said.clear()
            # Told to a broker that may never have heard it, or that forgot.
            clear_since = min(self._connected_ns, now - RECENT_NS)
            self._connected_ns = now
        devices = {(one.fleet, one.device): one for one in self._registry.list()}
        ended_there: set[str] = set()
        campaigns = self._store.recent(now - RECENT_NS)
        try:
            for campaign in campaigns:
                ended_there |= self._take_in(campaign, devices, now)
        except StoreUnavailable as error:
            # Nothing is known of the others, so nothing is overdue; what is to be sent can be sent.
            self._log.debug("reports_not_read", reason=error.message)
        for campaign in campaigns:
            self._check_deadline(campaign, now)
        self._clear(clear_since)
        for key, device in devices.items():
            self._withdraw(key, device)
        self._send(devices, ended_there, now)

    def close(self) -> None:
        """Release the campaigns."""
        self._store.close()

    # --- from the devices ----------------------------------------------------------------------

    def _take_in(
        self, campaign: CampaignRow, devices: Mapping[DeviceKey, KnownDevice], now: int
    ) -> set[str]:
        """Bring the jobs of a campaign up to what was reported; return those that ended there."""
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
                self._move(job, JobState.IN_PROGRESS, attempt=reported.attempt)
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
                if not self._arrived(job, reported, stored, online, now) and silent:
                    self._end(job, JobState.TIMED_OUT, not_heard_of(job), recorded=stored)
        return ended_there

    def _arrived(
        self, job: JobRow, reported: Reported, stored: int, online: bool, now: int
    ) -> bool:
        """End a job that has ended on its device and whose trials are here, or do not come."""
        final = reported.final
        if final is None:
            return False
        if stored >= final.trials_recorded:
            begun = reported.attempt > 0 or job.state is JobState.IN_PROGRESS
            state, failure = ending(final, begun)
        elif self._arrivals.stuck(job.job_id, stored, online, now):
            state, failure = JobState.FAILED, missing_trials(final, stored)
        else:
            return False
        recorded = min(stored, final.trials_recorded)
        self._end(job, state, failure, attempt=final.attempt, recorded=recorded)
        return True

    def _note_late(self, job: JobRow, reports: list[Stored[JobRecord]]) -> None:
        for report in reports:
            key = (report.fleet, report.device, report.epoch, report.seq)
            if key not in self._noted and is_late(job, report):
                self._store.note_late(report)
                self._noted.add(key)

    # --- time ----------------------------------------------------------------------------------

    def _check_deadline(self, campaign: CampaignRow, now: int) -> None:
        if self._patience.out_of_time(campaign, now):
            self._log.warning("campaign_timed_out", campaign_id=campaign.campaign_id)
            self._store.stop(campaign.campaign_id, "timeout", _out_of_time(campaign))

    # --- to the devices ------------------------------------------------------------------------

    def _send(
        self, devices: Mapping[DeviceKey, KnownDevice], ended_there: set[str], now: int
    ) -> None:
        """Say what is desired of each job that was sent, and send each idle device its next one."""
        busy: set[DeviceKey] = set()
        waiting: list[JobRow] = []
        # Read again: what was taken in above, and what a command has changed meanwhile, counts.
        for campaign in self._store.recent(now):
            for job in self._store.jobs(campaign.campaign_id):
                if job.state.terminal:
                    continue
                key = (job.fleet, job.device)
                if job.assigned_ns is None:
                    waiting.append(job)
                    continue
                if job.job_id not in ended_there:
                    busy.add(key)
                if campaign.stop_reason is None:
                    self._say(job, "run")
                elif self._patience.unanswered(campaign, devices.get(key), now):
                    self._give_up(campaign, job)
                else:
                    self._say(job, "cancel")
        for job in waiting:
            key = (job.fleet, job.device)
            if key not in busy and self._store.assign(job.job_id):
                busy.add(key)
                self._log.info("job_assigned", job_id=job.job_id, device=job.device)
                self._say(job, "run")
        self._clear(None)

    def _give_up(self, campaign: CampaignRow, job: JobRow) -> None:
        if campaign.stop_reason == "timeout":
            self._end(job, JobState.TIMED_OUT, _out_of_time(campaign))
        else:
            failure = failure_of(Canceled("canceled; the device did not answer in time"))
            self._end(job, JobState.CANCELED, failure)

    def _withdraw(self, key: DeviceKey, device: KnownDevice) -> None:
        """Stop jobs that a device still has open although they have ended here.

        It was away when their assignments were cleared, so nobody told it.
        """
        inventory = device.inventory
        if not device.online or inventory is None:
            self._compared.pop(key, None)
            return
        if self._compared.get(key) == inventory.time_ns:
            return
        for known in inventory.jobs:
            job = None if known.state.terminal else self._store.job(known.job_id)
            if job is not None and job.state.terminal and (job.fleet, job.device) == key:
                self._log.info("job_withdrawn", job_id=job.job_id, device=job.device)
                self._publish(_topic(job), b"", True)
        self._compared[key] = inventory.time_ns

    def _clear(self, since_ns: int | None) -> None:
        """Take assignments of jobs that have ended off the broker; again those since a time."""
        for job in self._store.to_clear(since_ns):
            self._publish(_topic(job), b"", True)
            self._said.pop(job.job_id, None)
            self._store.mark_cleared(job.job_id)

    def _say(self, job: JobRow, desired: Said) -> None:
        """Publish what is desired of a job, unless this connection has been told."""
        if self._said.get(job.job_id) == desired:
            return
        spec = self._store.spec(job.job_id)
        self._publish(_topic(job), codec.encode(Assignment(desired=desired, job=spec)), True)
        self._said[job.job_id] = desired

    # --- the state of jobs ---------------------------------------------------------------------

    def _move(self, job: JobRow, state: JobState, *, attempt: int) -> None:
        if self._store.set_job_state(job.job_id, state, attempt=attempt):
            self._log.info("job_moved", job_id=job.job_id, state=str(state), attempt=attempt)

    def _end(
        self,
        job: JobRow,
        state: JobState,
        failure: Failure | None,
        *,
        attempt: int | None = None,
        recorded: int | None = None,
    ) -> None:
        self._arrivals.forget(job.job_id)
        moved = self._store.set_job_state(
            job.job_id, state, attempt=attempt, failure=failure, trials_recorded=recorded
        )
        if moved:
            reason = None if failure is None else failure.code
            self._log.info("job_ended", job_id=job.job_id, state=str(state), reason=reason)


def _topic(job: JobRow) -> str:
    return topics.topic(job.fleet, job.device, "jobs", job.job_id)


def _out_of_time(campaign: CampaignRow) -> Failure:
    return failure_of(CampaignTimedOut(f"the campaign took longer than {campaign.campaign_s:g} s"))
