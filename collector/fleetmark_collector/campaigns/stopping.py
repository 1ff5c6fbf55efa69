"""What a job that the centre had stopped ends as: for the centre's reason, whoever spoke last."""

from fleetmark_collector.campaigns.reports import failure_of
from fleetmark_collector.campaigns.tables import CampaignRow, JobRow
from fleetmark_protocol.errors import CampaignTimedOut, Canceled
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.records import Failure


def stopped(
    campaign: CampaignRow, job: JobRow, said: Failure | None, *, answered: bool
) -> tuple[JobState, Failure | None]:
    """Return the state and the failure of a job that was stopped.

    Args:
        campaign: of the job.
        job: which.
        said: the failure by the device's own words.
        answered: whether the device answered; else it was given up waiting for.
    """
    if campaign.stop_reason == "timeout":
        return JobState.TIMED_OUT, out_of_time(campaign)
    if campaign.stop_reason == "abort":
        return JobState.CANCELED, campaign.failure
    silence = "" if answered else "; the device did not answer in time"
    if campaign.stop_reason is None and job.stop_reason == "window":
        return JobState.CANCELED, failure_of(Canceled(f"its window closed{silence}"))
    if campaign.stop_reason is None and job.stop_reason is None and job.recalls:
        return JobState.CANCELED, failure_of(Canceled("taken back before it had begun"))
    return JobState.CANCELED, said if answered else failure_of(Canceled(f"canceled{silence}"))


def out_of_time(campaign: CampaignRow) -> Failure:
    """Return the failure of a job whose campaign's time is up."""
    return failure_of(CampaignTimedOut(f"the campaign took longer than {campaign.campaign_s:g} s"))
