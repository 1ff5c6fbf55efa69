"""Gives devices that join later the jobs of the campaigns that take newcomers (`continuous`).

Who takes part already is in the rows of the jobs; what is kept in memory here only saves work.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from fleetmark_collector.campaigns.file import Campaign
from fleetmark_collector.campaigns.newcomers import add_jobs, inlined_text, members
from fleetmark_collector.campaigns.plan import Plan, make_plan
from fleetmark_collector.campaigns.roles import DeviceKey, KnownDevice
from fleetmark_collector.campaigns.selection import Targets
from fleetmark_collector.campaigns.selfcontained import load_text
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.campaigns.tables import CampaignRow
from fleetmark_collector.campaigns.targets import newcomers
from fleetmark_protocol import logs
from fleetmark_protocol.errors import ConfigError


class Joining:
    """Used by one thread."""

    def __init__(self, store: CampaignStore, clock: Callable[[], int] = time.time_ns) -> None:
        """Nobody has joined yet.

        Args:
            store: has the campaigns.
            clock: nanoseconds since the epoch.
        """
        self._store = store
        self._clock = clock
        self._log = logs.get("dispatch")
        # Campaign id -> its file, read; None where this fleetmark cannot read it.
        self._read: dict[str, Campaign | None] = {}
        # Devices of which an inventory left nothing to run, and when it was made.
        self._nothing: dict[tuple[str, DeviceKey], int] = {}

    def join(self, campaign: CampaignRow, devices: Mapping[DeviceKey, KnownDevice]) -> None:
        """Plan the jobs of devices that fit a campaign and have none of it.

        Raises:
            StoreError: the state file cannot be used now.
        """
        if not campaign.joinable:
            self._read.pop(campaign.campaign_id, None)
            return
        there = members(self._store.file, campaign.campaign_id)
        # One that has not said what it has, may be about to: its tags and engines decide.
        known = [one for key, one in devices.items() if one.inventory is not None or key in there]
        if all((one.fleet, one.device) in there for one in known):
            return
        read = self._campaign(campaign)
        if read is None:
            return
        for device in newcomers(read.targets, read.seed, known, there):
            self._add(campaign, read, device)

    def _add(self, campaign: CampaignRow, read: Campaign, device: KnownDevice) -> None:
        key = (device.fleet, device.device)
        made_ns = device.inventory.time_ns if device.inventory is not None else 0
        if self._nothing.get((campaign.campaign_id, key)) == made_ns:
            return
        everyone = replace(read, targets=Targets(all=True))
        plan = make_plan(everyone, campaign.campaign_id, [device])
        about = {"campaign_id": campaign.campaign_id, "device": device.device}
        if plan.problems or not plan.jobs:
            self._nothing[campaign.campaign_id, key] = made_ns
            reason = "; ".join(plan.problems or [one.reason for one in plan.left_out])
            self._log.warning("device_not_joined", **about, reason=reason)
            return
        plan = self._numbered(plan)
        if add_jobs(self._store.file, plan, self._clock()):
            self._log.info("device_joined", **about, jobs=len(plan.jobs))

    def _numbered(self, plan: Plan) -> Plan:
        """Return the plan with job ids that are free: two fleets may have devices of one id."""
        taken = Counter(job.device for job in self._store.jobs(plan.campaign_id))
        jobs = []
        for job in plan.jobs:
            stem, _, number = job.spec.job_id.rpartition(".")
            job_id = f"{stem}.{int(number) + taken[job.device]:03d}"
            jobs.append(replace(job, spec=job.spec.model_copy(update={"job_id": job_id})))
        return replace(plan, jobs=tuple(jobs))

    def _campaign(self, campaign: CampaignRow) -> Campaign | None:
        campaign_id = campaign.campaign_id
        if campaign_id not in self._read:
            text = inlined_text(self._store.file, campaign_id)
            self._read[campaign_id] = None
            if text is not None:
                try:
                    file = Path(campaign.file_name)
                    self._read[campaign_id] = load_text(text, file, kept=True)
                except ConfigError as error:
                    # Written by another version of fleetmark; those who take part are not touched.
                    self._log.error(
                        "newcomers_not_planned", campaign_id=campaign_id, reason=error.message
                    )
        return self._read[campaign_id]
