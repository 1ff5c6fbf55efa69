"""The hours in which a campaign may work on a device, as the campaign file says them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, Field

from fleetmark_collector.campaigns import openings
from fleetmark_collector.campaigns.openings import DAY_MINUTES, WEEKDAYS, Hours, Span, Weekday
from fleetmark_collector.campaigns.shapes import OneOrMany, Part
from fleetmark_protocol.messages import Inventory
from fleetmark_protocol.settings import suggestion

DEVICE = "device"
UTC = ZoneInfo("UTC")
WEEK_NS = 7 * DAY_MINUTES * 60 * openings.NS

_HOURS = re.compile(r"(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})", re.ASCII)


HOURS_PATTERN = r"^\s*([01]?\d|2[0-3]):[0-5]\d\s*-\s*(([01]?\d|2[0-3]):[0-5]\d|24:00)\s*$"
"""What editors are told of it."""


def read_hours(text: str) -> Hours:
    """Return hours from HH:MM-HH:MM.

    Raises:
        ValueError: it is not of that form, or no time at all.
    """
    found = _HOURS.fullmatch(text.strip())
    form = f"should be HH:MM-HH:MM, such as 22:00-06:00 (got {text!r})"
    if found is None:
        raise ValueError(form)
    hour, minute, to_hour, to_minute = map(int, found.groups())
    start, end = hour * 60 + minute, to_hour * 60 + to_minute
    if minute > 59 or to_minute > 59 or start >= DAY_MINUTES or end > DAY_MINUTES:
        raise ValueError(form)
    if start == end:
        raise ValueError(f"begins when it ends (the whole day is 00:00-24:00; got {text!r})")
    return Hours(start, end if end > start else end + DAY_MINUTES)


def read_zone(name: str) -> ZoneInfo | None:
    """Return a time zone by its name in the IANA database, if there is such a one."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # no such name, no lawful name, a directory's name
        return None


def _hours_text(text: str) -> str:
    read_hours(text)
    return text


HoursText = Annotated[
    str,
    AfterValidator(_hours_text),
    Field(json_schema_extra={"pattern": HOURS_PATTERN}),
]


def _zone_text(name: str) -> str:
    if name != DEVICE and read_zone(name) is None:
        known = sorted({DEVICE, *available_timezones()})
        close = suggestion(name, known)
        hint = close if "did you mean" in close else " (such as Europe/Berlin, or `device`)"
        raise ValueError(f"no time zone {name!r}{hint}")
    return name


class Windows(Part):
    """When jobs of the campaign may run on a device."""

    times: Annotated[tuple[HoursText, ...], OneOrMany()] = Field(
        description="HH:MM-HH:MM, such as 22:00-06:00; past midnight where the end is not later."
    )
    days: Annotated[tuple[Weekday, ...], OneOrMany()] = Field(
        default=WEEKDAYS, description="Days on which they begin."
    )
    time_zone: Annotated[str, AfterValidator(_zone_text)] = Field(
        default=DEVICE,
        description="Whose clock they go by: `device` is each device's own time zone, else a name "
        "such as Europe/Berlin. The time itself is the centre's.",
    )
    at_end: Literal["finish", "cancel"] = Field(
        default="finish",
        description="What becomes of a job that runs at the end of a window: it may finish, or it "
        "is canceled and run anew in the next one.",
    )

    @cached_property
    def hours(self) -> tuple[Hours, ...]:
        """`times`, read."""
        return tuple(map(read_hours, self.times))

    def openings(self, zone: ZoneInfo, start_ns: int, end_ns: int) -> list[Span]:
        """Return the open times between two moments of the centre's clock, in order."""
        return openings.openings(self.hours, self.days, zone, start_ns, end_ns)

    def stretch(self, zone: ZoneInfo, now_ns: int) -> Span | None:
        """Return the open time that holds now, else the next one."""
        return openings.stretch(self.hours, self.days, zone, now_ns)

    def longest_s(self, zone: ZoneInfo, now_ns: int) -> float:
        """Return how long the longest open time of the coming two weeks lasts, in seconds.

        Of one week the window that is open now, and its next one, would both be cut off.
        """
        spans = self.openings(zone, now_ns, now_ns + 2 * WEEK_NS)
        return max((end - start for start, end in spans), default=0) / openings.NS

    def zone_of(self, inventory: Inventory | None) -> "Zone":
        """Return the time zone that counts for a device."""
        if self.time_zone != DEVICE:
            return Zone(self.time_zone, read_zone(self.time_zone) or UTC)
        name = inventory.time_zone if inventory is not None else None
        if name is None:
            return Zone("UTC", UTC, "does not say its time zone: its windows go by UTC")
        zone = read_zone(name)
        if zone is None:
            return Zone("UTC", UTC, f"has an unknown time zone {name!r}: its windows go by UTC")
        return Zone(name, zone)


@dataclass(frozen=True)
class Zone:
    """A time zone, and what the operator should know of how it was found.

    Attributes:
        note: about the device, to be put after its name; None if all is as it should be.
    """

    name: str
    info: ZoneInfo
    note: str | None = None


def zone_notes(
    windows: Windows | None, devices: Sequence[tuple[str, Inventory | None]]
) -> list[str]:
    """Return what a plan tells about the time zones of its devices.

    Args:
        windows: of the campaign.
        devices: id and inventory of each.
    """
    if windows is None:
        return []
    notes = ((device, windows.zone_of(inventory).note) for device, inventory in devices)
    return [f"{device} {note}" for device, note in notes if note is not None]
