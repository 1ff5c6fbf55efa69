"""Forgets a campaign that has ended, and says beforehand what goes and what stays."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from fleetmark_collector.campaigns.roles import KnownDevice
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.config import CollectorSettings
from fleetmark_collector.devices import DeviceRegistry
from fleetmark_collector.sinks.stores import erase_campaign
from fleetmark_protocol.errors import ConfigError


@dataclass(frozen=True)
class Removal:
    """What deleting a campaign would take away from the state file."""

    campaign_id: str
    state: str
    jobs: int
    late_reports: int


def look_at(settings: CollectorSettings, campaign_id: str) -> Removal:
    """Return what would be deleted; nothing is.

    Raises:
        ConfigError: there is no such campaign, it is running, or a device still works on it.
        StoreError: the state file cannot be used.
    """
    with closing(CampaignStore(settings.state_file)) as store:
        campaign = store.campaign(campaign_id)
        if not campaign.state.terminal:
            raise ConfigError(
                f"campaign {campaign_id} is running",
                hint=f"cancel it first: `fleetmark campaign cancel {campaign_id}`",
            )
        with closing(DeviceRegistry(settings.state_file)) as registry:
            _check_devices(campaign_id, registry.list())
        return Removal(
            campaign_id,
            campaign.state,
            len(store.jobs(campaign_id)),
            len(store.late_reports(campaign_id)),
        )


def remove(settings: CollectorSettings, campaign_id: str, *, records: bool) -> dict[str, int]:
    """Delete a campaign; return how many records of it were deleted, by kind.

    Records go first: without its campaign nobody could name them any more.

    Args:
        settings: of its collector.
        campaign_id: which.
        records: delete its records in the store as well.

    Raises:
        ConfigError: as `look_at`, or assignments may still be on the broker, or the store deletes
            no records.
        StoreError: state file or store cannot be used.
    """
    look_at(settings, campaign_id)
    erased = erase_campaign(settings, campaign_id) if records else {}
    with closing(CampaignStore(settings.state_file)) as store:
        store.delete(campaign_id)
    return erased


def _check_devices(campaign_id: str, devices: Sequence[KnownDevice]) -> None:
    """Refuse while a device has a job open that only the campaign's rows would have it stop."""
    for device in devices:
        for job in device.inventory.jobs if device.inventory is not None else ():
            if not job.state.terminal and job.job_id.startswith(f"{campaign_id}."):
                raise ConfigError(
                    f"{device.device} has not been told yet that {job.job_id} is over",
                    hint="it is told as soon as it is online while the collector runs",
                )
