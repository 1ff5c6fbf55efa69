"""What the doctor finds: one line about one thing."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One line: `info` and `warn` are worth knowing, `bad` keeps the agent from doing its work."""

    level: Literal["ok", "info", "warn", "bad"]
    what: str
    hint: str | None = None
