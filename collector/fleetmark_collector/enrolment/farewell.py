"""Says "offline" for devices that may no longer say it themselves.

The broker asks its rules about a device's will, too: who is revoked while connected would stay
online for ever. Who is offline is shown with what he was: status and inventory stay retained. A
status that is none goes, for the broker would keep it for nothing.
"""

import threading
import time
from collections.abc import Callable, Iterable

from fleetmark_collector.mqtt import Bus
from fleetmark_protocol import codec, topics
from fleetmark_protocol.errors import ContractError
from fleetmark_protocol.ids import new_uuid
from fleetmark_protocol.messages import Status
from fleetmark_protocol.settings import BrokerSettings

_FLEET_LEVEL = 2
"""Of a topic; whoever may speak in any fleet can have called it what is no name."""

CONNECT_S = 5.0
GRACE_S = 1.0
"""What is retained comes at once after the subscription; nothing says that it was all."""


def say_offline(
    settings: BrokerSettings,
    devices: Iterable[str],
    but_in: str | None = None,
    monotonic_s: Callable[[], float] = time.monotonic,
) -> str | None:
    """Change the retained status of devices that are online, in every fleet where there is one.

    Args:
        settings: how the collector reaches the broker.
        devices: who has just been revoked, or may speak in one fleet only from now on.
        but_in: that fleet; there they speak for themselves.
        monotonic_s: a clock that only goes forward.

    Returns:
        Why it could not be done; None where it was.

    Raises:
        ConfigError: a file that the settings name cannot be read.
    """
    changes: dict[str, bytes] = {}
    connected = threading.Event()

    def heard(topic: str, payload: bytes, _retained: bool) -> None:
        if not payload or topic.split("/")[_FLEET_LEVEL] == but_in:
            return
        try:
            status = codec.decode(Status, payload)
        except ContractError:
            changes[topic] = b""
            return
        if status.online:
            changes[topic] = codec.encode(status.model_copy(update={"online": False}))

    bus = Bus(settings, f"fleetmark-revoke-{new_uuid()}")
    for device in devices:
        bus.subscribe(topics.subscription("+", device, "status"), heard)
    bus.on_connect(connected.set)
    bus.start()
    try:
        deadline_s = monotonic_s() + CONNECT_S
        while not connected.wait(0.05):
            if bus.trouble or monotonic_s() > deadline_s:
                return bus.trouble or "the broker does not answer"
        threading.Event().wait(GRACE_S)
        for topic, payload in list(changes.items()):
            bus.publish(topic, payload, retain=True)
        return None if bus.flush(CONNECT_S) else "the connection was lost"
    finally:
        bus.stop()
