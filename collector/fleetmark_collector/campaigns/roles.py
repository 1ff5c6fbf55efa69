"""What campaigns need of others: a registry of devices, and somebody who publishes."""

from collections.abc import Sequence
from typing import Protocol

from fleetmark_protocol.messages import Inventory, Status

DeviceKey = tuple[str, str]
"""Fleet and id of a device."""


class KnownDevice(Protocol):
    """A device as the centre knows it; `devices.Device` is one."""

    @property
    def fleet(self) -> str:
        """Its fleet."""

    @property
    def device(self) -> str:
        """Its id, unique in the fleet."""

    @property
    def online(self) -> bool:
        """Whether its agent is connected."""

    @property
    def status(self) -> Status | None:
        """What its agent last said of itself; None if it never did."""

    @property
    def inventory(self) -> Inventory | None:
        """What it has; None if it never said."""

    @property
    def last_seen_ns(self) -> int | None:
        """When it was last heard of, on the centre's clock; None if not noted yet."""


class Registry(Protocol):
    """The devices there are; `devices.DeviceRegistry` is one."""

    def list(self) -> Sequence[KnownDevice]:
        """Return all devices that ever reported."""


class Publish(Protocol):
    """Hands a message to the broker; one that is not connected may drop it."""

    def __call__(self, topic: str, payload: bytes, retain: bool, /) -> None:
        """Publish with QoS 1."""
