"""Takes what devices say of themselves off the network's thread: noted, or buried, never raised."""

import time
from collections.abc import Callable

from fleetmark_collector.culprits import Culprits, sender
from fleetmark_collector.dead_letters import DeadLetters
from fleetmark_collector.devices import DeviceRegistry
from fleetmark_protocol import logs
from fleetmark_protocol.errors import ContractError, StoreUnavailable

ASK_AGAIN_S = 60.0
"""At least so long between two times that all is had again after the collector was overfull."""


class Reception:
    """Handles statuses and inventories."""

    def __init__(
        self,
        registry: DeviceRegistry,
        dead_letters: DeadLetters,
        culprits: Culprits,
        ask_again: Callable[[], None] = lambda: None,
        relieved: Callable[[], bool] = lambda: False,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare.

        Args:
            registry: takes notes of them.
            dead_letters: where what cannot be understood is kept.
            culprits: whose messages are not to be read.
            ask_again: has the broker send all statuses and inventories again.
            relieved: whether there was more to do than there was room for, and no more: what the
                broker had to drop meanwhile may be among them, and nobody says them again.
            clock_s: monotonic.
        """
        self._registry = registry
        self._dead_letters = dead_letters
        self._culprits = culprits
        self._ask_again = ask_again
        self._relieved = relieved
        self._clock_s = clock_s
        self._missed = False
        self._asked_s: float | None = None
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
        self._missed = self._relieved() or self._missed
        if self._culprits.ask_again() or (self._missed and self._may_ask()):
            self._missed, self._asked_s = False, self._clock_s()
            self._ask_again()

    def _may_ask(self) -> bool:
        return self._asked_s is None or self._clock_s() - self._asked_s >= ASK_AGAIN_S

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
