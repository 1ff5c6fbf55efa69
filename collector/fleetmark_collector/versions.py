"""Refuses what agents of other versions send, so that both sides say so and nothing is lost."""

from collections.abc import Callable, Iterable

from fleetmark_collector.batch import Refused
from fleetmark_collector.commit import Publish
from fleetmark_collector.tally import Tally
from fleetmark_protocol import codec, logs, topics
from fleetmark_protocol.messages import Ack
from fleetmark_protocol.version import __version__

MAX_LOGGED = 10
"""Versions of one device that the log names: one that has ever new ones must not fill it."""

MAX_KNOWN = 100_000
"""Devices remembered; beyond it all are forgotten, and named again."""


class Refuser:
    """Answers with a refusal: the agent keeps its records; used by one thread at a time."""

    def __init__(
        self, publish: Publish, seen: Callable[[Iterable[tuple[str, str]]], None], tally: Tally
    ) -> None:
        """Nobody has been refused yet.

        Args:
            publish: sends the answers.
            seen: told the (fleet, device) pairs that were heard.
            tally: counts.
        """
        self._publish = publish
        self._seen = seen
        self._tally = tally
        self._log = logs.get("ingest")
        self._logged: dict[tuple[str, str], set[str | None]] = {}

    def refuse(self, one: Refused) -> None:
        """Count it, log each version of a device once, and answer."""
        self._tally.message_refused()
        device = (one.fleet, one.device)
        if device not in self._logged and len(self._logged) >= MAX_KNOWN:
            self._logged.clear()
        logged = self._logged.setdefault(device, set())
        if one.agent_version not in logged and len(logged) < MAX_LOGGED:
            logged.add(one.agent_version)
            self._log.warning(
                "agent_refused",
                device=one.device,
                fleet=one.fleet,
                reason=one.reason,
                hint="its records wait on the device; nothing is lost",
            )
        self._seen([device])
        answer = Ack(epoch=one.epoch, ranges=(), collector_version=__version__, refused=one.reason)
        self._publish(topics.topic(one.fleet, one.device, "ack"), codec.encode(answer), False)
