"""How much waits on this device to be written at the centre, told with every sample."""

from collections.abc import Callable
from typing import NamedTuple

from fleetmark_agent.telemetry.base import SensorStatus, Values


class Waiting(NamedTuple):
    """What waits.

    Attributes:
        records: how many.
        used_percent: what they take of the room there is for them; may exceed 100.
    """

    records: int
    used_percent: float


class Backlog:
    """What somebody else counts; who that is, sensors need not know."""

    name = "outbox"

    def __init__(self, waiting: Callable[[], Waiting]) -> None:
        """Prepare.

        Args:
            waiting: says how much waits now; must be quick.
        """
        self._waiting = waiting

    def probe(self) -> SensorStatus:
        """Available in every running agent."""
        return SensorStatus(True, "the agent's outbox", ("outbox_records", "outbox_used_percent"))

    def read(self) -> Values:
        """As it is now, before this sample is one more."""
        records, used_percent = self._waiting()
        return {
            "outbox_records": records,
            "outbox_used_percent": min(100.0, round(used_percent, 3)),
        }
