"""What `fleetmark schedule` prints: schedules, their times and their runs."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fleetmark_collector.cli.campaign_output import say
from fleetmark_protocol.errors import StoreError

if TYPE_CHECKING:
    from rich.console import Console

    from fleetmark_collector.campaigns.schedule_keys import ScheduleKeys
    from fleetmark_collector.campaigns.schedule_tables import RunRow, ScheduleRow
    from fleetmark_collector.campaigns.tables import CampaignState

    Runs = Sequence[tuple[RunRow, CampaignState | None]]
    Times = Sequence[tuple[int, ScheduleRow]]
    Listed = tuple[ScheduleRow, Runs, list[str]]


def schedule_json(row: "ScheduleRow", runs: "Runs", running: list[str]) -> dict[str, Any]:
    """Return a schedule, for programs; of one that cannot be read only why, not when it runs."""
    keys, unreadable = keys_of(row)
    return {
        "name": row.name,
        "file": row.file_name,
        "schedule": None if keys is None else keys.model_dump(exclude_none=True),
        **({} if keys is not None else {"unreadable": unreadable}),
        "created_ns": row.created_ns,
        "next_ns": row.next_ns,
        "waiting_ns": row.waiting_ns,
        "campaigns_running": running,
        "runs": [
            {
                "due_ns": run.due_ns,
                "noted_ns": run.noted_ns,
                "outcome": run.outcome,
                "campaign_id": run.campaign_id,
                "campaign_state": state,
                "reason": run.reason,
            }
            for run, state in runs
        ],
    }


def print_schedules(rows: "Sequence[Listed]", out: "Console") -> None:
    """Print all schedules."""
    table = _table("schedule", "cron", "next", "last run")
    reasons = []
    for row, runs, running in rows:
        keys, unreadable = keys_of(row)
        last = _outcome(*runs[0]) if runs else "none yet"
        if running and runs[0][0].campaign_id not in running:
            last = f"{last}; {', '.join(running)} runs"
        if keys is None:
            reasons.append(unreadable)
            table.add_row(row.name, "cannot be read", "never by this version", last)
        else:
            table.add_row(row.name, f"{keys.cron}  {keys.time_zone}", _next(row), last)
    out.print(table)
    for reason in reasons:
        say(out, f"note: {reason}")


def print_schedule(row: "ScheduleRow", runs: "Runs", running: list[str], out: "Console") -> None:
    """Print one schedule with its runs."""
    from fleetmark_collector.campaigns.recurrence import shown

    keys = _keys(row)
    zone = keys.recurrence.zone
    say(out, f"Schedule {row.name}: {keys.cron}  {keys.time_zone}")
    span = [f"{word} {text}" for word, text in (("from", keys.start), ("to", keys.end)) if text]
    say(out, "; ".join([*span, f"overlap: {keys.overlap}", f"missed: {keys.missed}"]))
    say(out, f"registered {shown(row.created_ns, zone)} from {row.file_name}")
    say(out, f"next: {_next(row)}")
    if row.waiting_ns is not None:
        say(out, f"waits for {', '.join(running)} to end: the run of {shown(row.waiting_ns, zone)}")
    if runs and runs[0][0].due_ns > time.time_ns():
        say(out, "note: the clock was ahead of what it shows now; --replace begins anew from now")
    if not runs:
        say(out, "no runs yet")
        return
    table = _table("due", "what became of it", "why")
    for run, state in runs:
        table.add_row(shown(run.due_ns, zone), _outcome(run, state), run.reason)
    out.print(table)


def times_json(times: "Times") -> list[dict[str, Any]]:
    """Return what comes due, for programs."""
    from datetime import UTC, datetime

    found = []
    for time_ns, row in times:
        keys = _keys(row)
        moment = datetime.fromtimestamp(time_ns // 10**9, tz=UTC)
        found.append(
            {
                "schedule": row.name,
                "time_ns": time_ns,
                "time_zone": keys.time_zone,
                "in_time_zone": moment.astimezone(keys.recurrence.zone).isoformat(),
                "in_centre": moment.astimezone().isoformat(),
            }
        )
    return found


def print_times(times: "Times", out: "Console") -> None:
    """Print what comes due."""
    from fleetmark_collector.campaigns.recurrence import shown

    if not times:
        say(out, "Nothing comes due any more.")
        return
    table = _table("schedule", "time zone", "there", "this machine")
    for time_ns, row in times:
        keys = _keys(row)
        there, here = shown(time_ns, keys.recurrence.zone), shown(time_ns, None)
        table.add_row(row.name, keys.time_zone, there, here)
    out.print(table)


def keys_of(row: "ScheduleRow") -> "tuple[ScheduleKeys | None, str]":
    """Return a schedule's keys; where this version cannot read them, None and why."""
    try:
        return _keys(row), ""
    except StoreError as error:
        return None, f"{error.message} ({error.hint})"


def _keys(row: "ScheduleRow") -> "ScheduleKeys":
    from fleetmark_collector.campaigns.schedule_keys import read_keys

    return read_keys(row.name, row.keys)


def _next(row: "ScheduleRow") -> str:
    from fleetmark_collector.campaigns.recurrence import shown

    if row.next_ns is None:
        return "never: it has ended"
    return shown(row.next_ns, _keys(row).recurrence.zone)


def _outcome(run: "RunRow", state: "CampaignState | None") -> str:
    if run.campaign_id is None:
        return run.outcome
    return f"{run.campaign_id} {state or '(deleted)'}"


def _table(*titles: str) -> Any:
    from rich.table import Table

    table = Table(box=None, padding=(0, 1), pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    return table
