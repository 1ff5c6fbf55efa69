"""Kits of the centre that this machine is: whoever has no identity is enrolled."""

from dataclasses import dataclass, replace
from datetime import datetime

from fleetmark_collector.enrolment.enrolling import Enrolment, Wish
from fleetmark_collector.enrolment.running import tell_broker
from fleetmark_collector.fleet.kits import Kit, checked, read_kit


@dataclass(frozen=True)
class EnrolledKits:
    """See `Kits`."""

    enrolment: Enrolment
    wish: Wish
    """Of what kind a new identity is, but for the tags."""
    now: datetime

    def taken(self, device: str) -> bool:
        """See `Kits`."""
        return self.enrolment.find(device) is not None

    def due(self, device: str) -> bool:
        """See `Kits`."""
        identity = self.enrolment.find(device)
        return identity is not None and identity.state(self.now) != "ok"

    def find(self, device: str) -> Kit | None:
        """See `Kits`; None also where the kit was taken away, as it may be once it is copied."""
        directory = self.enrolment.keep.path(f"devices/{device}")
        if not self.taken(device) or not directory.is_dir():
            return None
        return read_kit(directory, device)

    def make(self, device: str, tags: tuple[str, ...]) -> Kit:
        """See `Kits`."""
        wish = replace(self.wish, tags=tags)
        identity, renew = self.enrolment.find(device), self.due(device)
        if identity is not None and renew:
            # The settings on the device stay, and go with this kind and this fleet alone.
            wish = replace(wish, kind=identity.kind, fleet=None)
        elif identity is not None:
            # Lost on the device, with its settings, and here: nobody shall come with it any more.
            wish = replace(wish, fleet=wish.fleet or identity.fleet)
            self.enrolment.revoke([device])
        made = self.enrolment.enroll(device, wish, renew=renew)
        files = {name: text.encode() for name, text in made.files.items()}
        return checked(device, files, made.directory)

    def publish(self) -> str | None:
        """See `Kits`."""
        told = tell_broker(self.enrolment.keep)
        return None if told.done else told.text
