"""How a campaign is carried out; kept with it, so that who restarts goes on by the same rules."""

from fleetmark_collector.campaigns.abort import AbortRule
from fleetmark_collector.campaigns.retries import Retries
from fleetmark_collector.campaigns.rollout import Rollout
from fleetmark_collector.campaigns.shapes import Part
from fleetmark_collector.campaigns.windows import Windows


class Policy(Part):
    """What of a campaign file the dispatcher goes by; a key that the file leaves out is None."""

    retries: Retries | None = None
    rollout: Rollout | None = None
    abort: tuple[AbortRule, ...] = ()
    windows: Windows | None = None
