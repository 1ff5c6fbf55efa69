"""What a check found: how bad it is, in words, and what to do about it."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "missing"]


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        level: `missing` is what stops fleetmark from working; `warn` is worth knowing.
        todo: what to do about it; empty where there is nothing to do.
    """

    name: str
    level: Level
    text: str
    todo: str = ""
