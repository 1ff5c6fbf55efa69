"""From a campaign file to a campaign that the collector carries out: load, plan, keep."""

import time
from collections.abc import Callable
from pathlib import Path

from fleetmark_collector.campaigns.file import Campaign, load_campaign
from fleetmark_collector.campaigns.plan import Plan, make_plan, new_campaign_id
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.config import CollectorSettings
from fleetmark_collector.devices import DeviceRegistry


def plan_campaign(settings: CollectorSettings, campaign: Campaign, time_ns: int) -> Plan:
    """Return the plan that a campaign begun at a time would have; writes nothing.

    Raises:
        StoreError: the state file cannot be read.
    """
    registry = DeviceRegistry(settings.state_file)
    try:
        devices = registry.list()
    finally:
        registry.close()
    return make_plan(campaign, new_campaign_id(campaign.name, time_ns), devices)


def submit_campaign(
    settings: CollectorSettings, file: Path, sleep: Callable[[float], None] = time.sleep
) -> tuple[str, Plan]:
    """Start a campaign on the devices that the collector knows; return its id and its plan.

    Args:
        settings: of the collector that shall carry it out.
        file: the campaign file.
        sleep: waits so many seconds, where the name was used within the same second.

    Raises:
        ConfigError: the file or its targets are wrong; nothing has been started.
        StoreError: the state file cannot be used.
    """
    campaign = load_campaign(file)
    plan = plan_campaign(settings, campaign, time.time_ns())
    plan.check()
    store = CampaignStore(settings.state_file)
    try:
        while store.has(plan.campaign_id):
            sleep(1.0)
            plan = plan_campaign(settings, campaign, time.time_ns())
        store.create(campaign, plan)
    finally:
        store.close()
    return plan.campaign_id, plan
