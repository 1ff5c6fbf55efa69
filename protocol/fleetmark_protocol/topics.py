"""MQTT topics: built and parsed here and nowhere else."""

from dataclasses import dataclass
from typing import Literal, cast, get_args

from fleetmark_protocol.errors import ContractError
from fleetmark_protocol.ids import is_name
from fleetmark_protocol.version import SCHEMA_VERSION

PREFIX = f"fleetmark/v{SCHEMA_VERSION}"

Channel = Literal["status", "inventory", "data", "ack", "jobs"]
"""What a topic carries; the last fixed level of every topic."""


@dataclass(frozen=True)
class Topic:
    """A parsed topic; `job_id` is set on the `jobs` channel only."""

    fleet: str
    device: str
    channel: Channel
    job_id: str | None = None

    def __str__(self) -> str:
        base = f"{PREFIX}/{self.fleet}/{self.device}/{self.channel}"
        return base if self.job_id is None else f"{base}/{self.job_id}"


def topic(fleet: str, device: str, channel: Channel, job_id: str | None = None) -> str:
    """Return the topic of one channel of one device.

    Raises:
        ContractError: a fleet or device that is not a name, or a job id in the wrong place.
    """
    if not (is_name(fleet) and is_name(device)):
        raise ContractError(f"not a fleet and device name: {fleet!r}, {device!r}")
    if (channel == "jobs") != (job_id is not None):
        raise ContractError("a job id goes with the jobs channel, and only with it")
    return str(Topic(fleet, device, channel, job_id))


def parse(text: str) -> Topic:
    """Take a topic apart.

    Raises:
        ContractError: it is not one of ours, or of another schema version.
    """
    levels = text.split("/")
    if levels[0] != "fleetmark":
        raise ContractError(f"not a fleetmark topic: {text!r}")
    if "/".join(levels[:2]) != PREFIX:
        raise ContractError(f"topic of another schema version than v{SCHEMA_VERSION}: {text!r}")
    if len(levels) not in (5, 6):
        raise ContractError(f"wrong number of topic levels: {text!r}")
    fleet, device, channel = levels[2:5]
    if not (is_name(fleet) and is_name(device)) or channel not in get_args(Channel):
        raise ContractError(f"malformed topic: {text!r}")
    job_id = levels[5] if len(levels) == 6 else None
    if (channel == "jobs") != (job_id is not None):
        raise ContractError(f"malformed topic: {text!r}")
    return Topic(fleet, device, cast(Channel, channel), job_id)


def subscription(fleet: str, device: str, channel: Channel) -> str:
    """Return a filter; `+` may stand for any fleet or device, and all jobs are included."""
    base = f"{PREFIX}/{fleet}/{device}/{channel}"
    return f"{base}/+" if channel == "jobs" else base
