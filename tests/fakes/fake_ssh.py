"""The way to many devices that nobody has: each answers as a bare one, then does as it is told."""

import asyncio
from pathlib import Path

from fleetmark_collector.fleet import scripts
from fleetmark_collector.fleet.probe import PROBE

BARE = (
    "fleetmark-facts\nmachine=x86_64\nnode={node}\npython=3.12\nsystemd=yes\napt=yes\nagent=yes\n"
)
ONLINE = '{{"device": "{node}", "connected": true}}'


class FakeSsh:
    """Keeps account of what runs, and of how much runs at once."""

    def __init__(self, online: str = ONLINE) -> None:
        self._online = online
        self.ran: list[tuple[str, str]] = []
        self.most_at_once = 0
        self._running = 0

    async def run(
        self, destination: str, script: str, given: bytes | Path = b"", *, limit_s: float
    ) -> str:
        self.ran.append((destination, script))
        self._running += 1
        self.most_at_once = max(self.most_at_once, self._running)
        await asyncio.sleep(0)
        self._running -= 1
        answer = {PROBE: BARE, scripts.WAIT: self._online}.get(script, "")
        return answer.format(node=destination)
