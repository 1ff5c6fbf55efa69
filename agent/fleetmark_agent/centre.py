"""What the collector says of itself: its version, and whether it takes what this agent sends."""

from fleetmark_protocol import logs
from fleetmark_protocol.messages import Ack
from fleetmark_protocol.version import __version__, objection

MAX_REASON = 500


class Centre:
    """Written by one thread at a time, read by any; logs what changes, and that once."""

    def __init__(self) -> None:
        """Nothing has been heard yet."""
        self._log = logs.get("link")
        self.version: str | None = None
        """Of the collector that answered last; None before the first, and where it tells none."""
        self.refusal: str | None = None
        """Why nothing is taken, and what to do about it; None while records are."""

    def takes(self, ack: Ack) -> bool:
        """Take note of an answer; return whether it comes from a collector that we go with."""
        self.version = None if ack.collector_version is None else _line(ack.collector_version)
        reason = refusal_of(ack)
        if reason != self.refusal:
            self.refusal = reason
            if reason is None:
                self._log.info("collector_takes_records", version=self.version)
            else:
                self._log.error(
                    "collector_refuses_records",
                    reason=reason,
                    hint="they are kept here and offered again from time to time",
                )
        return reason is None


def refusal_of(ack: Ack) -> str | None:
    """Return why an answer confirms nothing: its collector says so, or we do not go with it."""
    ours = objection(agent=__version__, collector=ack.collector_version)
    return ours if ack.refused is None else _line(ack.refused)


def _line(text: str) -> str:
    """Return foreign text as a log and a terminal may hold it."""
    return "".join(char if char.isprintable() else "?" for char in text[:MAX_REASON])
