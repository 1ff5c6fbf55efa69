"""Which time zone a device lives in, by its name in the IANA database."""

import re
import zoneinfo
from pathlib import Path

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*")
_SAME = ("posix/", "right/")
"""Directories that hold all zones once more."""


def device_time_zone(root: Path = Path("/")) -> str | None:
    """Return the system's time zone; None where it does not say its name.

    Programs go by /etc/localtime. Where that is a copy of a zone and no link to one, it has no
    name, and /etc/timezone may have it.

    Args:
        root: where `etc` is looked for.
    """
    try:
        target = str((root / "etc/localtime").readlink())
    except OSError:
        target = ""
    _, found, name = target.partition("zoneinfo/")
    for directory in _SAME:
        name = name.removeprefix(directory)
    if found and _usable(name):
        return name
    try:
        lines = (root / "etc/timezone").read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    named = next((line.strip() for line in lines if line.strip()), "")
    return named if _usable(named) else None


def check_name(name: str) -> str:
    """Return a time zone's name.

    Raises:
        ValueError: it is none that this system knows, or, on one that knows none, could be.
    """
    known = zoneinfo.available_timezones()
    if name not in known if known else not _usable(name):
        raise ValueError(f"{name!r} is no time zone; it is a name such as Europe/Berlin or UTC")
    return name


def _usable(name: str) -> bool:
    return len(name) <= 64 and _NAME.fullmatch(name) is not None
