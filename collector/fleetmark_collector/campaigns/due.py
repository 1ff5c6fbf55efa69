"""What a schedule does at a moment: start, wait, leave out. Pure: asks nobody, writes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo

from fleetmark_collector.campaigns.recurrence import NS, shown
from fleetmark_collector.campaigns.schedule_keys import ScheduleKeys
from fleetmark_collector.campaigns.schedule_tables import Outcome

PUNCTUAL_NS = 60 * NS
"""A time that is older when it is dealt with was missed; within it a collector may be replaced."""


@dataclass(frozen=True)
class Note:
    """What became of a time; see `schedule_tables.RunRow`."""

    due_ns: int
    outcome: Outcome
    reason: str


@dataclass(frozen=True)
class Step:
    """What is to be done now.

    Attributes:
        next_ns: when the schedule comes due next; None when it never will again.
        waiting_ns: the time whose run waits from now on; None for none.
        start_ns: the time whose run is to be started; None for none.
        reason: what is to be said of that start.
        stop_first: whether the runs before are to be canceled for it.
        notes: what became of the other times.
    """

    next_ns: int | None
    waiting_ns: int | None
    start_ns: int | None = None
    reason: str = ""
    stop_first: bool = False
    notes: tuple[Note, ...] = ()


def next_step(
    keys: ScheduleKeys,
    next_ns: int | None,
    waiting_ns: int | None,
    running: Sequence[str],
    now_ns: int,
) -> Step | None:
    """Return what to do; None for nothing.

    Args:
        keys: the schedule.
        next_ns: when it comes due; None for never again.
        waiting_ns: the time whose run waits for the one before to end.
        running: campaigns of the schedule that have not ended.
        now_ns: the centre's clock.
    """
    if waiting_ns is not None and not running:
        return Step(next_ns, None, waiting_ns, reason="waited for the run before it to end")
    if next_ns is None or next_ns > now_ns:
        return None
    times = keys.recurrence
    due_ns = times.latest(next_ns, now_ns)
    following_ns = times.next(due_ns)
    zone = times.zone
    notes: list[Note] = []
    late = now_ns - due_ns > PUNCTUAL_NS
    reason = ""
    if late and keys.missed == "skip":
        notes.append(Note(due_ns, "missed", _missed(next_ns, due_ns, zone)))
        return Step(following_ns, waiting_ns, notes=tuple(notes))
    if due_ns != next_ns:
        before_ns = times.latest(next_ns, due_ns - 1)
        notes.append(Note(before_ns, "missed", _missed(next_ns, before_ns, zone)))
    if late:
        reason = "late: no collector was at work when it came due"
    if not running:
        return Step(following_ns, waiting_ns, due_ns, reason, notes=tuple(notes))
    still = f"{', '.join(running)} had not ended"
    if keys.overlap == "replace":
        told = f"in place of {', '.join(running)}"
        return Step(following_ns, None, due_ns, told, stop_first=True, notes=tuple(notes))
    if keys.overlap == "skip":
        notes.append(Note(due_ns, "skipped", still))
    elif waiting_ns is None:
        notes.append(Note(due_ns, "queued", still))
        return Step(following_ns, due_ns, notes=tuple(notes))
    else:
        already = f"{still}, and the run of {shown(waiting_ns, zone)} waits"
        notes.append(Note(due_ns, "skipped", already))
    return Step(following_ns, waiting_ns, notes=tuple(notes))


def _missed(first_ns: int, last_ns: int, zone: tzinfo) -> str:
    if first_ns == last_ns:
        return "no collector was at work"
    return f"no collector was at work; so were all since {shown(first_ns, zone)}"
