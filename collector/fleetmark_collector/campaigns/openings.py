"""When the windows of a campaign are open, in a time zone, through daylight-saving changes; pure.

A window lasts from the moment when the zone's clock first shows its start, or jumps over it, until
the moment when it first shows its end, or jumps over that. So a night in which an hour comes twice
opens each window once, and a window that lies in an hour that never comes does not open.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal, get_args
from zoneinfo import ZoneInfo

NS = 1_000_000_000
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)
DAY_MINUTES = 24 * 60
_AHEAD = timedelta(days=16)
"""Far enough to find the next window of a week, even where a change of clocks swallows one."""
_SECOND = timedelta(seconds=1)

Span = tuple[int, int]
"""From and until, in nanoseconds since 1970; the end is not in it."""


@dataclass(frozen=True)
class Hours:
    """Hours of a day by the clock on the wall, in minutes; past midnight counts on from 1440."""

    start: int
    end: int

    @property
    def length_s(self) -> float:
        """How long they last on a day without a change of clocks."""
        return (self.end - self.start) * 60.0


def openings(
    hours: Sequence[Hours], days: Sequence[str], zone: ZoneInfo, start_ns: int, end_ns: int
) -> list[Span]:
    """Return the open times between two moments, in order; what touches is one.

    Args:
        hours: of each day.
        days: names of `WEEKDAYS` on which they begin.
        zone: whose clock they go by.
        start_ns: nothing before.
        end_ns: nothing after.
    """
    found: list[Span] = []
    for opens, closes in sorted(_spans(hours, days, zone, start_ns, end_ns)):
        span = max(opens, start_ns), min(closes, end_ns)
        if span[0] >= span[1]:
            continue
        if found and span[0] <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], span[1])
        else:
            found.append(span)
    return found


def stretch(
    hours: Sequence[Hours], days: Sequence[str], zone: ZoneInfo, now_ns: int
) -> Span | None:
    """Return what is left of the open time that holds now, else the next one; None if none soon."""
    ahead_ns = int(_AHEAD.total_seconds()) * NS
    found = openings(hours, days, zone, now_ns, now_ns + ahead_ns)
    return found[0] if found else None


def _spans(
    hours: Sequence[Hours], days: Sequence[str], zone: ZoneInfo, start_ns: int, end_ns: int
) -> Iterator[Span]:
    # Two days more on either side: a zone may be off by one, and a window may begin the day before.
    day = _utc(start_ns).date() - timedelta(days=2)
    last = _utc(end_ns).date() + timedelta(days=2)
    while day <= last:
        if WEEKDAYS[day.weekday()] in days:
            for one in hours:
                yield _first_shown(day, one.start, zone), _first_shown(day, one.end, zone)
        day += timedelta(days=1)


def _first_shown(day: date, minute: int, zone: ZoneInfo) -> int:
    """Return when a zone's clock first shows a minute of a day, or jumps over it."""
    days, minute = divmod(minute, DAY_MINUTES)
    wall = datetime.combine(day + timedelta(days=days), time(minute // 60, minute % 60))
    # Of an hour that comes twice `fold` 0 is the first; in one that never comes it is the offset
    # before the jump, `fold` 1 the one after it, and the jump is between what the two make of it.
    late = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    early = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    if early >= late:
        return _ns(late)
    before = early.astimezone(zone).utcoffset()
    while late - early > _SECOND:
        middle = early + (late - early) / 2
        if middle.astimezone(zone).utcoffset() == before:
            early = middle
        else:
            late = middle
    return _ns(late.replace(microsecond=0))


def _utc(time_ns: int) -> datetime:
    return datetime.fromtimestamp(time_ns // NS, tz=UTC)


def _ns(moment: datetime) -> int:
    return int(moment.timestamp()) * NS
