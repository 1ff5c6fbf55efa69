"""The broker's rules: topics for the collector and for each device that is enrolled, nobody else.

What a device may do stands in `mosquitto/acl`, as patterns that hold for whoever has a name, in
whatever fleet. Here each pattern becomes a line for each device, in its own fleet alone. So a
certificate which is valid still, but whose device is no longer enrolled, opens nothing; and no
device can have the broker keep something for it in a thousand fleets. As `keep`, the standard
library of Python 3.9 alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fleetmark_collector.enrolment.keep import Keep

FILE = "broker/acl"
TEMPLATE = Path(__file__).resolve().parents[1] / "mosquitto" / "acl"

SIMULATOR = "fleetmark-simulator"
"""Plays devices; the template gives it topics of its own."""

_ANY = "+"
"""Stands for a fleet in the template: any."""

_HEAD = """\
# Made by `fleetmark enroll` and `revoke`: do not edit, your changes would be lost.
"""


def devices(keep: Keep) -> dict[str, str | None]:
    """Return who has topics, and in which fleet, but for those whom the template names."""
    if not keep.has(FILE):
        return {}
    fixed = _users(TEMPLATE.read_text("ascii"))
    found: dict[str, str | None] = {}
    user = ""
    for line in keep.read(FILE).splitlines():
        if line.startswith("user "):
            user = line.split(" ", 1)[1]
        elif line.startswith("topic ") and user and user not in fixed:
            # topic write fleetmark/v1/FLEET/DEVICE/...
            fleet = line.split("/")[2]
            found[user] = None if fleet == _ANY else fleet
    return found


def write(keep: Keep, enrolled: Mapping[str, str | None]) -> None:
    """Give topics to these devices and to nobody else.

    Args:
        keep: the directory of secrets.
        enrolled: device -> the only fleet that it may speak in; None: any.
    """
    text = rules(enrolled)
    if not keep.has(FILE) or keep.path(FILE).read_text("ascii") != text:
        keep.write(FILE, text)


def rules(enrolled: Mapping[str, str | None]) -> str:
    """Return what Mosquitto reads; see `write`."""
    fixed, patterns = [], []
    for line in TEMPLATE.read_text("ascii").splitlines():
        if line.startswith("pattern "):
            patterns.append("topic " + line.removeprefix("pattern "))
        elif not line.startswith("#"):
            fixed.append(line)
    named = set(_users("\n".join(fixed)))
    blocks = [
        "\n".join([f"user {one}", *_lines(patterns, one, enrolled[one])])
        for one in sorted(set(enrolled) - named)
    ]
    return _HEAD + "\n" + "\n\n".join(["\n".join(fixed).strip(), *blocks]) + "\n"


def _lines(patterns: list[str], device: str, fleet: str | None) -> list[str]:
    return [
        line.replace(f"/{_ANY}/%u/", f"/{_ANY if fleet is None else fleet}/{device}/")
        for line in patterns
    ]


def _users(text: str) -> list[str]:
    return [line.split(" ", 1)[1] for line in text.splitlines() if line.startswith("user ")]
