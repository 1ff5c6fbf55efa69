"""Who has been enrolled, by what, and until when: `identities.json` in the directory of secrets."""

from collections.abc import Container
from datetime import datetime, timedelta
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from fleetmark_collector.enrolment.keep import Keep
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.ids import Name

FILE = "identities.json"
SOON = timedelta(days=30)
"""An identity that ends sooner should be renewed."""

Kind = Literal["certificate", "password"]
State = Literal["ok", "ends soon", "ended"]


class Identity(BaseModel):
    """What a device proves itself with; holds no secret."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Name
    kind: Kind
    fleet: Name | None = None
    """The only one that it may speak in; None: any, as before identities had one."""
    made: AwareDatetime | None = None
    """None: before fleetmark kept account of it."""
    ends: AwareDatetime | None = None
    """None: never by itself."""
    certificates: dict[str, AwareDatetime] = {}
    """Serial number -> its end, of each certificate that was made; a renewal leaves the old one."""

    def state(self, now: datetime) -> State:
        """Return how it stands at a moment."""
        if self.ends is None or self.ends - now > SOON:
            return "ok"
        return "ends soon" if self.ends > now else "ended"


class Revocation(BaseModel):
    """A certificate that is to count no more before its own end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    revoked: AwareDatetime
    ends: AwareDatetime
    device: Name | None = None
    """Whose it was; None: nobody has written it down."""


class Registry(BaseModel):
    """All of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    identities: dict[Name, Identity] = {}
    revoked: dict[str, Revocation] = {}
    """Serial number -> when; those that have ended need not be told any longer."""

    def fleets(self) -> dict[str, str | None]:
        """Return the fleet of each device; see `Identity.fleet`."""
        return {device: one.fleet for device, one in self.identities.items()}

    def revocations(self) -> dict[str, datetime]:
        """Return when each certificate was revoked, by serial number."""
        return {serial: one.revoked for serial, one in self.revoked.items()}

    def still_opens(self, device: str, listed: Container[str]) -> bool:
        """Whether a revoked certificate would let somebody in as a device that has topics.

        Args:
            device: who is to get topics.
            listed: serial numbers on the list that the broker reads.
        """
        return any(
            serial not in listed and one.device in (device, None)
            for serial, one in self.revoked.items()
        )

    def with_identity(self, identity: Identity) -> "Registry":
        """Return it with one more, or with one changed."""
        return self.model_copy(
            update={"identities": {**self.identities, identity.device: identity}}
        )

    def without(self, device: str, now: datetime) -> "Registry":
        """Return it with a device gone and its certificates revoked."""
        gone = self.identities.get(device)
        revoked = {
            **self.revoked,
            **{
                serial: Revocation(revoked=now, ends=ends, device=device)
                for serial, ends in (gone.certificates if gone else {}).items()
            },
        }
        return Registry(
            identities={one: kept for one, kept in self.identities.items() if one != device},
            revoked={serial: one for serial, one in revoked.items() if one.ends > now},
        )


def read(keep: Keep) -> Registry:
    """Return the registry.

    Raises:
        ConfigError: the file is damaged.
    """
    if not keep.has(FILE):
        return Registry()
    try:
        return Registry.model_validate_json(keep.read(FILE))
    except ValidationError as error:
        raise ConfigError(
            f"{keep.path(FILE)} is damaged: {error.errors()[0]['msg']}",
            hint="put it back from a backup",
        ) from error


def write(keep: Keep, registry: Registry) -> None:
    """Keep it."""
    keep.write(FILE, registry.model_dump_json(indent=2) + "\n", 0o600)
