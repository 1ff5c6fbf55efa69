"""Says "offline" for devices that may no longer say it themselves.

The broker asks its rules about a device's will, too: who is revoked while connected would stay
online for ever.
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

CONNECT_S = 5.0
GRACE_S = 1.0
"""What is retained comes at once after the subscription; nothing says that it was all."""


def say_offline(
    settings: BrokerSettings,
    devices: Iterable[str],
    monotonic_s: Callable[[], float] = time.monotonic,
) -> str | None:
    """Change the retained status of devices that are online.

    Args:
        settings: how the collector reaches the broker.
        devices: who has just been revoked.
        monotonic_s: a clock that only goes forward.

    Returns:
        Why it could not be done; None where it was.

    Raises:
        ConfigError: a file that the settings name cannot be read.
    """
    online: dict[str, Status] = {}
    connected = threading.Event()

    def heard(topic: str, payload: bytes, _retained: bool) -> None:
        try:
            status = codec.decode(Status, payload)
        except ContractError:
            return
        if status.online:
            online[topic] = status

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
        for topic, status in list(online.items()):
            offline = status.model_copy(update={"online": False})
            bus.publish(topic, codec.encode(offline), retain=True)
        return None if bus.flush(CONNECT_S) else "the connection was lost"
    finally:
        bus.stop()
