"""Takes what devices say of themselves off the network's thread: noted, or buried, never raised."""

from collections.abc import Callable

from fleetmark_collector.culprits import Culprits, sender
from fleetmark_collector.dead_letters import DeadLetters
from fleetmark_collector.devices import DeviceRegistry
from fleetmark_protocol import logs
from fleetmark_protocol.errors import ContractError, StoreUnavailable


class Reception:
    """Handles statuses and inventories."""

    def __init__(
        self,
        registry: DeviceRegistry,
        dead_letters: DeadLetters,
        culprits: Culprits,
        ask_again: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare.

        Args:
            registry: takes notes of them.
            dead_letters: where what cannot be understood is kept.
            culprits: whose messages are not to be read.
            ask_again: has the broker send all statuses and inventories again.
        """
        self._registry = registry
        self._dead_letters = dead_letters
        self._culprits = culprits
        self._ask_again = ask_again
        self._known = False
        self._log = logs.get("collector")

    def look_after(self) -> None:
        """See who is known already, and to what was not listened to; for the main thread.

        Raises:
            FleetmarkError: the registry is damaged, or another collector leads.
        """
        if not self._known:
            try:
                self._culprits.learn((one.fleet, one.device) for one in self._registry.list())
                self._known = True
            except StoreUnavailable as error:
                # Until it can be had all fleets are new, and taken up a few in an hour.
                self._log.debug("devices_not_read", reason=error.message)
        if self._culprits.ask_again():
            self._ask_again()

    def receive(self, topic: str, payload: bytes, retained: bool = False) -> None:
        """Take a message; runs in the network's thread, which must not wait for a disk."""
        if self._culprits.ignored(sender(topic), "self"):
            return
        try:
            self._registry.receive(topic, payload, retained)
        except ContractError as error:
            self._culprits.charge(sender(topic), len(payload), "self")
            self._log.warning("message_not_understood", topic=topic, reason=error.message)
            try:
                self._dead_letters.add(topic, [(error.message, payload)], durable=False)
            except StoreUnavailable as problem:
                self._log.error("dead_letter_not_kept", reason=problem.message)
