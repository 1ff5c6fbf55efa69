"""Adds the jobs of devices that join a campaign under way to the state file."""

from fleetmark_collector.campaigns.keeping import put_jobs
from fleetmark_collector.campaigns.plan import Plan
from fleetmark_collector.campaigns.roles import DeviceKey
from fleetmark_collector.campaigns.statefile import StateFile
from fleetmark_collector.campaigns.tables import CampaignState


def members(file: StateFile, campaign_id: str) -> frozenset[DeviceKey]:
    """Return the devices that have jobs of a campaign."""
    rows = file.rows(
        "SELECT DISTINCT fleet, device FROM jobs WHERE campaign_id = ?", (campaign_id,)
    )
    return frozenset((row[0], row[1]) for row in rows)


def inlined_text(file: StateFile, campaign_id: str) -> str | None:
    """Return a campaign's file, complete in itself; None if it takes no newcomers."""
    rows = file.rows("SELECT inlined FROM campaigns WHERE campaign_id = ?", (campaign_id,))
    return None if not rows else rows[0][0]


def add_jobs(file: StateFile, plan: Plan, now_ns: int) -> bool:
    """Add the jobs of one device, all QUEUED; False if it has some, or nobody may join any more.

    Args:
        file: has the campaign.
        plan: jobs of one device.
        now_ns: the centre's clock.
    """
    (key,) = {(job.fleet, job.device) for job in plan.jobs}
    with file.transaction() as db:
        (open_,) = db.execute(
            "SELECT count(*) FROM campaigns WHERE campaign_id = ? AND state = ? "
            "AND stop_reason IS NULL AND selection = 'continuous'",
            (plan.campaign_id, CampaignState.RUNNING),
        ).fetchone()
        there, last = db.execute(
            "SELECT count(*) FILTER (WHERE fleet = ? AND device = ?), coalesce(max(position), -1) "
            "FROM jobs WHERE campaign_id = ?",
            (*key, plan.campaign_id),
        ).fetchone()
        if not open_ or there:
            return False
        put_jobs(db, plan, now_ns, first=last + 1)
    return True
