"""What the numbers and states of several dashboards mean, in words and colours."""

from typing import Final

Meaning = dict[str, tuple[str, str]]

ONLINE: Final[Meaning] = {"1": ("online", "green"), "0": ("offline", "red")}
THROTTLED: Final[Meaning] = {"1": ("throttled", "red"), "0": ("full speed", "green")}
CONNECTED: Final[Meaning] = {"1": ("connected", "green"), "0": ("not connected", "red")}
AVAILABLE: Final[Meaning] = {"1": ("store takes records", "green"), "0": ("store is away", "red")}

JOB_STATES: Final[Meaning] = {
    "SUCCEEDED": ("SUCCEEDED", "green"),
    "IN_PROGRESS": ("IN_PROGRESS", "blue"),
    "QUEUED": ("QUEUED", "text"),
    "FAILED": ("FAILED", "red"),
    "TIMED_OUT": ("TIMED_OUT", "red"),
    "REJECTED": ("REJECTED", "orange"),
    "CANCELED": ("CANCELED", "purple"),
}
VERDICTS: Final[Meaning] = {
    "VALID": ("VALID", "green"),
    "SUSPECT": ("SUSPECT", "orange"),
    "INVALID": ("INVALID", "red"),
}
SEVERITIES: Final[Meaning] = {
    "info": ("info", "text"),
    "warning": ("warning", "orange"),
    "error": ("error", "red"),
}

HOT: Final = ((60.0, "yellow"), (75.0, "orange"), (80.0, "red"))
"""A Raspberry Pi slows down from 80 °C on, and a benchmark's figures suffer before."""

FULL: Final = ((80.0, "orange"), (95.0, "red"))
"""Memory in percent: from about 95 on the kernel swaps, or kills."""

BACKLOG: Final = ((50.0, "yellow"), (80.0, "orange"), (90.0, "red"))
"""The outbox in percent of its cap: an alert at 80, old telemetry is thinned from 90 on."""

SILENCE: Final = ((60.0, "orange"), (300.0, "red"))
"""Seconds since a device was last heard: an alert after five minutes."""

ANY: Final = ((1.0, "red"),)
"""None is well, one is one too many."""

SUSPECT: Final = ((1.0, "orange"),)
"""Trials that a comparison should be read with care for."""
