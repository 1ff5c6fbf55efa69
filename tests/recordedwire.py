"""What releases said on the wire, as `tools/record_wire.py` kept it, and what to expect of it."""

import json
from dataclasses import dataclass
from pathlib import Path

from fleetmark_protocol import topics
from fleetmark_protocol.version import __version__, compatible

WIRE = Path(__file__).parent / "fixtures" / "wire"
RELEASES = sorted(one.name for one in WIRE.iterdir() if compatible(one.name, __version__))
"""Recorded versions that today's goes with."""

_MAJOR, _MINOR = (int(part) for part in __version__.split(".")[:2])

NEAR = [f"{_MAJOR}.{_MINOR}.99", f"{_MAJOR}.{_MINOR + 1}.7"] + (
    [f"{_MAJOR}.{_MINOR - 1}.0"] if _MINOR else []
)
FAR = [f"{_MAJOR}.{_MINOR + 2}.0", f"{_MAJOR + 1}.{_MINOR}.0"] + (
    [f"{_MAJOR}.{_MINOR - 2}.0"] if _MINOR > 1 else []
)
"""Versions that today's goes with, and some that it does not go with."""


@dataclass(frozen=True)
class Said:
    """One message."""

    topic: str
    payload: bytes

    @property
    def channel(self) -> str:
        return topics.parse(self.topic).channel

    def json(self):
        return json.loads(self.payload)


def wire(release: str, channel: str, version: str | None = None) -> list[Said]:
    """Return what was said on a channel, as if by `version` if it is given."""
    lines = (WIRE / release / "messages.jsonl").read_text("utf-8").splitlines()
    said = [Said(one["topic"], one["payload"].encode()) for one in map(json.loads, lines)]
    return [_of(one, release, version) for one in said if one.channel == channel]


def _of(said: Said, release: str, version: str | None) -> Said:
    payload = said.payload
    for side in ("agent", "collector") if version else ():
        old, new = f'"{side}_version":"{release}"', f'"{side}_version":"{version}"'
        payload = payload.replace(old.encode(), new.encode())
    return Said(said.topic, payload)


def records(release: str) -> dict[int, dict]:
    """Return the records by their numbers, as they were on the wire."""
    batches = [said.json() for said in wire(release, "data")]
    return {item["seq"]: item["record"] for batch in batches for item in batch["records"]}
