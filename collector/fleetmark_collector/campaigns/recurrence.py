"""When a schedule runs: a cron expression in a time zone, between a start and an end. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from cronsim import CronSim, CronSimError

from fleetmark_protocol.settings import suggestion

NS = 10**9
MAX_CRON_CHARACTERS = 200
FIELDS = ("minute", "hour", "day-of-month", "month", "day-of-week")
_STEPS = (60, 24, 31, 12, 7)
"""Values of each field: a larger step would silently count within the field's first round only."""
FIRST_NS, LAST_NS = -1, 2**63 - 1
"""Outside of these no time is kept: 1970 is over, and 2262 is where a database's integers end."""
_RANGES = ("0 to 59", "0 to 23", "1 to 31 or L", "1 to 12 or JAN to DEC", "0 to 7 or SUN to SAT")
_LOOK_BACK_S = (3600, 86_400, 40 * 86_400, 400 * 86_400)
"""How far back the newest time is looked for, one after the other: there may be very many."""


class NotACron(ValueError):
    """The text is no cron expression; `offset` is where in it."""

    def __init__(self, text: str, offset: int = 0) -> None:
        super().__init__(text)
        self.offset = offset


@dataclass(frozen=True)
class Recurrence:
    """Times of a schedule; all of them are nanoseconds since the epoch.

    A time of day that the clocks leave out in spring counts as the moment they have jumped to; one
    that comes twice in autumn counts the first time. That is so where minute and hour are fixed. An
    expression whose minute or hour begins with `*` goes by what the clock shows: what is left out
    is left out, what comes twice counts twice. These are the rules of Debian's cron.

    Attributes:
        cron: five fields.
        zone: whose clock the expression is about.
        start_ns: no time is before it.
        end_ns: no time is at it or after it.
    """

    cron: str
    zone: tzinfo
    start_ns: int | None = None
    end_ns: int | None = None

    def next(self, after_ns: int) -> int | None:
        """Return the first time after another; None when there is none any more."""
        return next(self.upcoming(after_ns), None)

    def upcoming(self, after_ns: int) -> Iterator[int]:
        """Yield the times after another, in order, each once."""
        last_ns = max(after_ns, FIRST_NS, FIRST_NS if self.start_ns is None else self.start_ns - 1)
        until_ns = LAST_NS if self.end_ns is None else min(self.end_ns, LAST_NS)
        if last_ns >= until_ns:
            return
        begin = datetime.fromtimestamp(last_ns // NS, tz=UTC).astimezone(self.zone)
        try:
            for moment in CronSim(self.cron, begin):
                time_ns = int(moment.timestamp()) * NS
                # Two times that the clocks left out are one moment, and from within the hour that
                # comes twice the library begins with its first turn.
                if time_ns <= last_ns:
                    continue
                if time_ns >= until_ns:
                    return
                yield time_ns
                last_ns = time_ns
        except OverflowError:  # the end of the calendar
            return

    def latest(self, first_ns: int, until_ns: int) -> int:
        """Return the last time up to a moment; `first_ns` is a time itself, and not after it."""
        for back_s in _LOOK_BACK_S:
            from_ns = max(first_ns, until_ns - back_s * NS)
            found = None
            for time_ns in self.upcoming(from_ns):
                if time_ns > until_ns:
                    break
                found = time_ns
            if found is not None:
                return found
            if from_ns == first_ns:
                return first_ns
        # Rarer than once a year, so there are few.
        found = first_ns
        for time_ns in self.upcoming(first_ns):
            if time_ns > until_ns:
                break
            found = time_ns
        return found


def check_cron(text: str, *, large_steps: bool = False) -> None:
    """Refuse what is no cron expression, or one that never comes true.

    Args:
        text: the expression.
        large_steps: whether steps larger than their field are taken, as they once were.

    Raises:
        NotACron: says what is wrong, and where in the text.
    """
    words = list(re.finditer(r"\S+", text))
    if len(words) != len(FIELDS):
        raise NotACron(f"should be 5 fields ({' '.join(FIELDS)}), not {len(words)}")
    for at, word in enumerate(words):
        alone = ["*"] * len(FIELDS)
        alone[at] = word[0]
        if not _is_lawful(" ".join(alone)):
            raise NotACron(f"{FIELDS[at]} {word[0]!r}: takes {_RANGES[at]}", word.start())
        for step in re.findall(r"/(\d+)", word[0], re.ASCII):
            if int(step) > _STEPS[at] and not large_steps:
                text = (
                    f"{FIELDS[at]} {word[0]!r}: a step of {step} is larger than the field, which "
                    f"takes {_RANGES[at]} and begins anew each time"
                )
                raise NotACron(text, word.start())
    never = NotACron("never runs: there is no such day", words[2].start())
    try:
        # In a year that is not over: 50 years from there are looked through.
        next(CronSim(text, datetime(2000, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration):
        raise never from None


def _is_lawful(cron: str) -> bool:
    try:
        CronSim(cron, datetime(2000, 1, 1, tzinfo=UTC))
    except (CronSimError, AssertionError, TypeError, ValueError):
        # The last three are what the library makes of some wild combinations.
        return False
    return True


def zone_named(name: str) -> tzinfo:
    """Return a time zone of the IANA database.

    Raises:
        ValueError: there is none of that name; says which is nearest.
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"no time zone {name!r}{_nearest(name)}") from None


def _nearest(name: str) -> str:
    known = _zones()
    folded = {one.casefold(): one for one in known}
    last = {one.rpartition("/")[2].casefold(): one for one in reversed(known)}
    word = name.strip().casefold().replace(" ", "_")
    exact = folded.get(word) or last.get(word)
    if exact is not None:
        return f" (did you mean {exact!r}?)"
    hint = suggestion(name, known)
    return hint if "did you mean" in hint else " (a name such as Europe/Berlin, or UTC)"


@cache
def _zones() -> list[str]:
    return sorted(available_timezones())


def moment(text: str, zone: tzinfo, *, through: bool = False) -> int:
    """Return the time that a date or a time of the file stands for.

    Args:
        text: `2026-12-01`, or `2026-12-01T08:00`, in the schedule's zone unless it has an offset.
        zone: of the schedule.
        through: a date alone stands for its end, not for its beginning.

    Raises:
        ValueError: it is neither.
    """
    try:
        if not re.match(r"\d{4}-\d{2}-\d{2}(?:$|[T ]\d{2}:\d{2})", text, re.ASCII):
            raise ValueError
        if len(text) == len("2026-12-01"):
            day = date.fromisoformat(text)
            if not through:
                found = datetime.combine(day, time())
            elif day < date.max:
                found = datetime.combine(day + timedelta(days=1), time())
            else:  # the calendar has no day after it; to many it stands for "for ever"
                found = datetime.max
        else:
            found = datetime.fromisoformat(text)
        if found.tzinfo is None:
            found = found.replace(tzinfo=zone)
        return int(found.timestamp()) * NS
    except (ValueError, OverflowError):
        raise ValueError(
            "should be a date such as 2026-12-01, or a time such as 2026-12-01T08:00"
        ) from None


def shown(time_ns: int, zone: tzinfo | None) -> str:
    """Return a time for people; without a zone in that of this machine."""
    return f"{datetime.fromtimestamp(time_ns // NS, tz=UTC).astimezone(zone):%Y-%m-%d %H:%M:%S %Z}"
