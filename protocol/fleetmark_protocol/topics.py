"""MQTT topics: built and parsed here and nowhere else."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast, get_args

from fleetmark_protocol.errors import ContractError
from fleetmark_protocol.ids import is_job_id, is_name
from fleetmark_protocol.version import SCHEMA_VERSION

PREFIX = f"fleetmark/v{SCHEMA_VERSION}"

Channel = Literal["status", "inventory", "data", "ack", "jobs"]
"""What a topic carries; the last fixed level of every topic."""

CHANNELS: tuple[Channel, ...] = get_args(Channel)


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
        ContractError: a fleet or device that is not a name, an unknown channel, or a job id that
            is none or in the wrong place.
    """
    built = Topic(fleet, device, channel, job_id)
    _check(built)
    return str(built)


def parse(text: str) -> Topic:
    """Take a topic apart.

    Raises:
        ContractError: it is not one of ours, or of another schema version.
    """
    levels = text.split("/")
    shown = repr(text[:200])
    if levels[0] != "fleetmark":
        raise ContractError(f"not a fleetmark topic: {shown}")
    if "/".join(levels[:2]) != PREFIX:
        raise ContractError(f"topic of another schema version than v{SCHEMA_VERSION}: {shown}")
    if len(levels) not in (5, 6):
        raise ContractError(f"wrong number of topic levels: {shown}")
    job_id = levels[5] if len(levels) == 6 else None
    parsed = Topic(levels[2], levels[3], cast(Channel, levels[4]), job_id)
    _check(parsed)
    return parsed


def subscription(fleet: str, device: str, channel: Channel) -> str:
    """Return a filter; `+` may stand for any fleet or device, and all jobs are included.

    Raises:
        ContractError: a fleet or device that is neither a name nor `+`.
    """
    _check_names(level for level in (fleet, device) if level != "+")
    base = f"{PREFIX}/{fleet}/{device}/{channel}"
    return f"{base}/+" if channel == "jobs" else base


def _check_names(levels: Iterable[str]) -> None:
    for level in levels:
        if not is_name(level):
            raise ContractError(f"neither a fleet nor a device name: {level[:200]!r}")


def _check(candidate: Topic) -> None:
    """Let nothing into a topic that could widen it (`+`, `#`, `/`, NUL) or end it early."""
    _check_names((candidate.fleet, candidate.device))
    if candidate.channel not in CHANNELS:
        raise ContractError(f"no channel of ours: {candidate.channel[:200]!r}")
    if (candidate.channel == "jobs") != (candidate.job_id is not None):
        raise ContractError("a job id goes with the jobs channel, and only with it")
    if candidate.job_id is not None and not is_job_id(candidate.job_id):
        raise ContractError(f"not a job id: {candidate.job_id[:200]!r}")
