"""What identity a device is to get, and what is refused of it before anything is made."""

from collections.abc import Sequence
from dataclasses import dataclass

from fleetmark_collector.enrolment import brokerusers
from fleetmark_collector.enrolment.registry import Identity, Kind
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.ids import is_name

DEFAULT_DAYS = 365
MAX_DAYS = 3650
DEFAULT_FLEET = "default"
"""As in an agent's own settings."""


@dataclass(frozen=True)
class Wish:
    """What identity a device is to get.

    Attributes:
        days: after so many it ends.
        tags: written into the device's settings.
        host: that the device reaches the broker by; None: the centre's first name.
        fleet: the only one that it may speak in; None: see `fleet_for`.
    """

    kind: Kind = "certificate"
    days: int = DEFAULT_DAYS
    tags: Sequence[str] = ()
    host: str | None = None
    fleet: str | None = None

    def fleet_for(self, old: Identity | None) -> str | None:
        """Return the device's fleet: one that it had stays, unless another is wished for.

        Args:
            old: the identity that it has; of before there were fleets in them, it may have none,
                and then it speaks in any.
        """
        if self.fleet is not None:
            return self.fleet
        return DEFAULT_FLEET if old is None else old.fleet


USUAL = Wish()


def check_wish(wish: Wish) -> None:
    """Refuse what no device can get.

    Raises:
        ConfigError: the days are too few or too many; no tag; no fleet.
    """
    if not 1 <= wish.days <= MAX_DAYS:
        raise ConfigError(f"--days: from 1 to {MAX_DAYS}, not {wish.days}")
    if wrong := [tag for tag in wish.tags if not is_name(tag)]:
        raise ConfigError(f"{wrong[0]!r} is no tag: small letters, digits, - and _")
    if wish.fleet is not None and not is_name(wish.fleet):
        raise ConfigError(f"--fleet: {wish.fleet!r} is no name: small letters, digits, - and _")


def check_device(device: str) -> None:
    """Refuse what cannot be a device's id.

    Raises:
        ConfigError: it is none, or not a device's.
    """
    if not is_name(device):
        raise ConfigError(
            f"{device!r} is no device id: small letters, digits, - and _, at most 63, a letter or "
            "digit first"
        )
    if device == brokerusers.COLLECTOR:
        raise ConfigError(f"{device} is the collector's own name")
