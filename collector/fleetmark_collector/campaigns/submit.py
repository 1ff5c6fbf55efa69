"""From a campaign file to a campaign that the collector carries out: load, plan, keep."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from fleetmark_collector.campaigns.estimate import Estimate, estimate_plan
from fleetmark_collector.campaigns.file import Campaign, load_campaign
from fleetmark_collector.campaigns.history import History, read_history
from fleetmark_collector.campaigns.plan import Plan, make_plan, new_campaign_id
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.campaigns.statefile import has_campaigns
from fleetmark_collector.config import CollectorSettings
from fleetmark_collector.devices import Device, DeviceRegistry
from fleetmark_collector.sinks.stores import open_reader
from fleetmark_protocol.errors import ConfigError, StoreError


@dataclass(frozen=True)
class Outlook:
    """What a campaign would do, and how long that would take."""

    plan: Plan
    estimate: Estimate

    def check(self, *, accept_limits: bool) -> None:
        """Let it pass only if it can be run, and keeps within its limits or need not.

        Raises:
            ConfigError: all that stands against it, a line each.
        """
        problems = [*self.plan.problems, *self.estimate.problems]
        if problems:
            raise ConfigError("\n".join(problems))
        if self.estimate.over and not accept_limits:
            raise ConfigError(
                "\n".join(self.estimate.over), hint="--yes starts it all the same; or ask for less"
            )


def plan_campaign(settings: CollectorSettings, campaign: Campaign, time_ns: int) -> Plan:
    """Return the plan that a campaign begun at a time would have; writes nothing.

    Raises:
        StoreError: the state file cannot be read.
    """
    return make_plan(campaign, new_campaign_id(campaign.name, time_ns), _devices(settings))


def look_ahead(settings: CollectorSettings, campaign: Campaign, time_ns: int) -> Outlook:
    """Return the plan with an estimate; writes nothing.

    Without a store to read, estimates go by the size of the models, and a note says why.

    Raises:
        StoreError: the state file cannot be read.
    """
    devices = _devices(settings)
    plan = make_plan(campaign, new_campaign_id(campaign.name, time_ns), devices)
    history, notes = _history(settings, plan)
    estimate = estimate_plan(campaign, plan, devices, history)
    return Outlook(plan, replace(estimate, notes=(*notes, *estimate.notes)))


def submit_campaign(
    settings: CollectorSettings,
    file: Path,
    sleep: Callable[[float], None] = time.sleep,
    *,
    accept_limits: bool = False,
) -> tuple[str, Plan]:
    """Start a campaign on the devices that the collector knows; return its id and its plan.

    Args:
        settings: of the collector that shall carry it out.
        file: the campaign file.
        sleep: waits so many seconds, where the name was used within the same second.
        accept_limits: start it even if it is expected to go beyond the limits in its file.

    Raises:
        ConfigError: the file or its targets are wrong, or it would go beyond its limits; nothing
            has been started.
        StoreError: the state file cannot be used.
    """
    campaign = load_campaign(file)
    limits = campaign.limits
    if limits.duration_s is None and limits.cost_usd is None:
        plan = plan_campaign(settings, campaign, time.time_ns())
        plan.check()
    else:
        outlook = look_ahead(settings, campaign, time.time_ns())
        outlook.check(accept_limits=accept_limits)
        beyond = (f"started beyond its limits: {line}" for line in outlook.estimate.over)
        plan = replace(outlook.plan, notes=(*outlook.plan.notes, *beyond))
    with closing(CampaignStore(settings.state_file)) as store:
        while store.has(plan.campaign_id):
            sleep(1.0)
            again = plan_campaign(settings, campaign, time.time_ns())
            plan = replace(again, notes=plan.notes)
        store.create(campaign, plan)
    return plan.campaign_id, plan


def _devices(settings: CollectorSettings) -> list[Device]:
    with closing(DeviceRegistry(settings.state_file)) as registry:
        return registry.list()


def _history(settings: CollectorSettings, plan: Plan) -> tuple[History, Sequence[str]]:
    if not has_campaigns(settings.state_file):
        return History(), ()
    wanted = {str(job.cell): job.spec.model.sha256 for job in plan.jobs}
    with closing(CampaignStore(settings.state_file)) as store, closing(open_reader(settings)) as r:
        try:
            return read_history(store, r, wanted), ()
        except StoreError as error:
            return History(), (f"earlier runs are not counted in: {error.message}",)
