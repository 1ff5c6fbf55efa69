"""What an operator or a window changes under way: pause, resume, cancel, take a job back."""

from fleetmark_collector.campaigns.statefile import StateFile
from fleetmark_collector.campaigns.tables import CampaignState
from fleetmark_collector.campaigns.transitions import end_jobs, settle, stop_campaign
from fleetmark_protocol.errors import Canceled
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.records import Failure

_OPEN = (JobState.QUEUED, JobState.IN_PROGRESS)
_IS_OPEN = "state IN (?, ?)"


def pause_campaign(file: StateFile, campaign_id: str, now_ns: int) -> bool:
    """Let no more jobs be sent for now; return False if that was so, or it stops or has ended."""
    with file.transaction() as db:
        done = db.execute(
            "UPDATE campaigns SET paused_ns = ? WHERE campaign_id = ? AND state = ? "
            "AND stop_reason IS NULL AND paused_ns IS NULL",
            (now_ns, campaign_id, CampaignState.RUNNING),
        )
        return done.rowcount == 1


def resume_campaign(file: StateFile, campaign_id: str, now_ns: int) -> bool:
    """Let jobs be sent again; return False if it was not paused, or stops or has ended."""
    with file.transaction() as db:
        done = db.execute(
            "UPDATE campaigns SET paused_before_ns = paused_before_ns + max(0, ? - paused_ns), "
            "paused_ns = NULL WHERE campaign_id = ? AND state = ? AND paused_ns IS NOT NULL",
            (now_ns, campaign_id, CampaignState.RUNNING),
        )
        return done.rowcount == 1


def cancel_campaign(file: StateFile, campaign_id: str, now_ns: int, *, force: bool) -> None:
    """Stop a campaign; jobs never sent are CANCELED now, with `force` all that have not ended.

    `force` also ends what is left of a campaign that stops already, for whatever reason.
    """
    stop_campaign(file, campaign_id, "cancel", None, now_ns)
    if force:
        with file.transaction() as db:
            where = f"campaign_id = ? AND {_IS_OPEN}"
            end_jobs(db, where, (campaign_id, *_OPEN), JobState.CANCELED, _forced(), now_ns)
            settle(db, campaign_id, now_ns)


def cancel_device(
    file: StateFile, campaign_id: str, device: str, now_ns: int, *, force: bool
) -> None:
    """Cancel the jobs of one device, as `cancel_campaign` does all; the others go on."""
    with file.transaction() as db:
        mine = f"campaign_id = ? AND device = ? AND {_IS_OPEN}"
        those = (campaign_id, device, *_OPEN)
        db.execute(
            f"UPDATE jobs SET stop_reason = 'cancel', stop_ns = ? WHERE {mine} "  # noqa: S608
            "AND stop_reason IS NOT 'cancel'",
            (now_ns, *those),
        )
        never_sent = f"{mine} AND state = ? AND assigned_ns IS NULL"
        end_jobs(db, never_sent, (*those, JobState.QUEUED), JobState.CANCELED, None, now_ns)
        if force:
            end_jobs(db, mine, those, JobState.CANCELED, _forced(), now_ns)
        settle(db, campaign_id, now_ns)


def stop_for_window(file: StateFile, job_id: str, now_ns: int) -> bool:
    """Have a device asked to stop a job whose window has closed; False if it is asked already."""
    with file.transaction() as db:
        done = db.execute(
            "UPDATE jobs SET stop_reason = 'window', stop_ns = ? "  # noqa: S608
            f"WHERE job_id = ? AND stop_reason IS NULL AND {_IS_OPEN}",
            (now_ns, job_id, *_OPEN),
        )
        return done.rowcount == 1


def recall_job(file: StateFile, job_id: str, now_ns: int) -> bool:
    """Take back a job that was sent and has not begun; False if it has, or was not sent."""
    with file.transaction() as db:
        done = db.execute(
            "UPDATE jobs SET assigned_ns = NULL, recalls = recalls + 1, updated_ns = ? "
            "WHERE job_id = ? AND state = ? AND assigned_ns IS NOT NULL AND stop_reason IS NULL",
            (now_ns, job_id, JobState.QUEUED),
        )
        return done.rowcount == 1


def _forced() -> Failure:
    error = Canceled("canceled by force; the device was not waited for")
    return Failure(code=error.code, message=error.message, retryable=error.retryable)
