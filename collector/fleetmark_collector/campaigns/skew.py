"""Which devices' agents are of a version that does not go with ours: jobs are not sent there."""

from fleetmark_collector.campaigns.roles import KnownDevice
from fleetmark_collector.campaigns.tables import JobRow
from fleetmark_protocol.version import __version__, objection


def mismatch(device: KnownDevice | None) -> str | None:
    """Return what stands against a device's agent, going by its last status; None for nothing."""
    if device is None or device.status is None:
        return None
    return objection(agent=device.status.agent_version, collector=__version__)


def has_taken(device: KnownDevice, job: JobRow) -> bool:
    """Whether a device says that it knows a job, and so will tell how it ends once it can."""
    known = device.inventory.jobs if device.inventory is not None else ()
    return any(one.job_id == job.job_id for one in known)
