"""The broker's rules: topics for the collector and for each device that is enrolled, nobody else.

What a device may do stands in `mosquitto/acl`, as patterns that hold for whoever has a name. Here
each pattern becomes a line for each device, so that a certificate which is valid still, but whose
device is no longer enrolled, opens nothing. As `keep`, the standard library of Python 3.9 alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fleetmark_collector.enrolment.keep import Keep

FILE = "broker/acl"
TEMPLATE = Path(__file__).resolve().parents[1] / "mosquitto" / "acl"

SIMULATOR = "fleetmark-simulator"
"""Plays devices; the template gives it topics of its own."""

_HEAD = """\
# Made by `fleetmark enroll` and `revoke`: do not edit, your changes would be lost.
"""


def devices(keep: Keep) -> list[str]:
    """Return who has topics, but for those whom the template names."""
    if not keep.has(FILE):
        return []
    fixed = _users(TEMPLATE.read_text("ascii"))
    return [user for user in _users(keep.read(FILE)) if user not in fixed]


def write(keep: Keep, enrolled: Iterable[str]) -> None:
    """Give topics to these devices and to nobody else."""
    text = rules(enrolled)
    if not keep.has(FILE) or keep.path(FILE).read_text("ascii") != text:
        keep.write(FILE, text)


def rules(enrolled: Iterable[str]) -> str:
    """Return what Mosquitto reads."""
    fixed, patterns = [], []
    for line in TEMPLATE.read_text("ascii").splitlines():
        if line.startswith("pattern "):
            patterns.append("topic " + line.removeprefix("pattern "))
        elif not line.startswith("#"):
            fixed.append(line)
    named = set(_users("\n".join(fixed)))
    blocks = [
        "\n".join([f"user {one}", *(line.replace("%u", one) for line in patterns)])
        for one in sorted(set(enrolled) - named)
    ]
    return _HEAD + "\n" + "\n\n".join(["\n".join(fixed).strip(), *blocks]) + "\n"


def _users(text: str) -> list[str]:
    return [line.split(" ", 1)[1] for line in text.splitlines() if line.startswith("user ")]
