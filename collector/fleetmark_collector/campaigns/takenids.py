"""Keeps a campaign under an id that is free: ids go by the second, commands run side by side."""

from collections.abc import Callable

from fleetmark_collector.campaigns.plan import Plan
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_protocol.errors import ConfigError


def keep_anew(
    store: CampaignStore,
    plan: Plan,
    create: Callable[[Plan], None],
    plan_again: Callable[[], Plan],
    sleep: Callable[[float], None],
) -> Plan:
    """Keep a campaign; where its id is taken wait, and plan it again; return the plan kept.

    Args:
        store: where it is kept.
        plan: of the campaign.
        create: keeps a plan.
        plan_again: returns the same plan under another id, once the second is over.
        sleep: waits so many seconds.

    Raises:
        ConfigError: it cannot be kept for any other reason.
    """
    while True:
        if not store.has(plan.campaign_id):
            try:
                create(plan)
            except ConfigError:
                # Another process may have taken the id since it was looked for.
                if not store.has(plan.campaign_id):
                    raise
            else:
                return plan
        sleep(1.0)
        plan = plan_again()
