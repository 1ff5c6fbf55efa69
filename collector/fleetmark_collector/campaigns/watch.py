"""Shows a campaign until it ends: a live picture on a terminal, a line for each change elsewhere.

It reads the collector's files only, so it may be stopped and started again at will.
"""

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import datetime
from typing import TYPE_CHECKING

from fleetmark_collector.campaigns.picture import Picture
from fleetmark_collector.campaigns.situation import clock, headlines, waiting_lines
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.campaigns.tables import CampaignState, JobRow
from fleetmark_collector.campaigns.view import View, gather
from fleetmark_collector.campaigns.wording import NO_COLLECTOR, progress_text, share
from fleetmark_collector.config import CollectorSettings, default_data_dir
from fleetmark_collector.devices import DeviceRegistry
from fleetmark_collector.sinks.stores import open_reader
from fleetmark_protocol.errors import StoreUnavailable
from fleetmark_protocol.jobs import JobState

if TYPE_CHECKING:
    from rich.console import Console

INTERVAL_S = 1.0
PROGRESS_STEP = 0.1
"""Without a terminal, progress is told each time it has grown by this share."""


def looks(
    settings: CollectorSettings,
    campaign_id: str,
    *,
    interval_s: float = INTERVAL_S,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[tuple[View, bool]]:
    """Yield how a campaign stands, and whether a collector is running, until it has ended.

    Args:
        settings: of the collector whose campaign it is.
        campaign_id: which.
        interval_s: between two looks.
        sleep: waits so many seconds.

    Raises:
        ConfigError: there is no such campaign.
        StoreError: the state file cannot be used.
    """
    store = CampaignStore(settings.state_file)
    registry = DeviceRegistry(settings.state_file)
    reader = open_reader(settings)
    seen = False
    try:
        while True:
            try:
                view = gather(store, reader, registry, campaign_id, time.time_ns())
                alive = registry.collector_alive()
            except StoreUnavailable:
                # Busy for a moment: the last picture is better than none.
                if not seen:
                    raise
            else:
                seen = True
                yield view, alive
                if view.campaign.state.terminal:
                    return
            sleep(interval_s)
    finally:
        reader.close()
        registry.close()
        store.close()


def watch_campaign(
    settings: CollectorSettings,
    campaign_id: str,
    console: "Console",
    *,
    interval_s: float = INTERVAL_S,
    sleep: Callable[[float], None] = time.sleep,
) -> CampaignState:
    """Show a campaign until it has ended, then how it went; return its state.

    Ctrl-C ends the watching alone (KeyboardInterrupt goes to the caller).

    Args:
        settings: of the collector whose campaign it is.
        campaign_id: which.
        console: where to draw; what is no terminal gets plain lines.
        interval_s: between two looks.
        sleep: waits so many seconds.

    Raises:
        ConfigError: there is no such campaign.
        StoreError: the state file cannot be used.
    """
    from rich.live import Live

    view, was_alive = None, True
    live = Live(console=console, auto_refresh=False) if console.is_terminal else None
    with live or nullcontext():
        for new, alive in looks(settings, campaign_id, interval_s=interval_s, sleep=sleep):
            if live is not None:
                live.update(Picture(new, alive), refresh=True)
            else:
                for line in changes(view, new, alive, was_alive):
                    console.print(
                        f"{datetime.now().astimezone():%H:%M:%S} {line}",
                        soft_wrap=True,
                        markup=False,
                        highlight=False,
                    )
            view, was_alive = new, alive
    print_end(new, settings, console)
    return new.campaign.state


def print_end(view: View, settings: CollectorSettings, console: "Console") -> None:
    """Say under the last picture or line how a campaign ended, and how to get its report."""
    counts = ", ".join(f"{number} {state}" for state, number in sorted(view.by_state.items()))
    number = view.situation.retried
    retried = f" ({number} retried)" if number else ""
    if view.campaign.failure is not None:
        text = f"aborted: {view.campaign.failure.message}"
        console.print(text, soft_wrap=True, markup=False, highlight=False)
    console.print(
        f"Campaign {view.campaign.campaign_id} {view.campaign.state}: {counts}{retried}; "
        f"{view.trials_stored} of {view.trials_planned} trials in the store.",
        soft_wrap=True,
        highlight=False,
    )
    if view.trials_stored:
        command = command_line(settings, "report", view.campaign.campaign_id)
        console.print(f"Report: {command}", soft_wrap=True, markup=False, highlight=False)


def command_line(settings: CollectorSettings, *words: str) -> str:
    """Return a fleetmark command to copy, with the data directory where it is needed."""
    given = list(words)
    if settings.data_dir != default_data_dir():
        given += ["--data-dir", str(settings.data_dir)]
    return shlex.join(["fleetmark", *given])


# --- lines -------------------------------------------------------------------------------------


def changes(old: View | None, new: View, alive: bool, was_alive: bool = True) -> list[str]:
    """Return what is worth a line since the last look.

    Args:
        old: the look before; None for the first.
        new: this look.
        alive: whether a collector is running.
        was_alive: whether one was, at the look before.
    """
    lines = []
    if alive != was_alive:
        lines.append("a collector is running again" if alive else NO_COLLECTOR)
    lines += _campaign_changes(old, new)
    before = {job.job_id: job for job in old.jobs} if old else {}
    for job in new.jobs:
        line = _job_change(before.get(job.job_id), job, new, first=old is None)
        if line:
            lines.append(line)
    was_online = {(one.fleet, one.device): one.online for one in old.devices} if old else {}
    lines += [
        f"{one.device} is {'online again' if one.online else 'offline'}"
        for one in new.devices
        if was_online.get((one.fleet, one.device), True) != one.online
    ]
    shares = [share(view) for view in (old, new) if view is not None]
    if len(shares) == 1 or int(shares[0] / PROGRESS_STEP) != int(shares[1] / PROGRESS_STEP):
        lines.append(progress_text(new))
    return lines


def _campaign_changes(old: View | None, new: View) -> Iterator[str]:
    """Tell what holds now and did not before; how long it holds is no news."""
    was = headlines(old.campaign, old.situation.now_ns) if old else {}
    now = headlines(new.campaign, new.situation.now_ns)
    yield from (line for kind, line in now.items() if kind not in was)
    if "paused" in was and "paused" not in now and not new.campaign.state.terminal:
        yield "no longer paused"
    waited = waiting_lines(old.situation) if old else {}
    waiting = waiting_lines(new.situation)
    yield from (line for reason, line in waiting.items() if reason not in waited)
    rates = [view.situation.jobs_per_minute for view in (old, new) if view is not None]
    if rates[0] != rates[-1] and rates[-1] is not None:
        yield f"the roll-out goes on at {rates[-1]:g} jobs per minute"
    if old is not None:
        there = {(one.fleet, one.device) for one in old.devices}
        for one in new.devices:
            if (one.fleet, one.device) not in there:
                yield f"{one.device} has joined"


def _job_change(old: JobRow | None, new: JobRow, view: View, *, first: bool) -> str:
    if old is not None and (old.state, old.attempt) == (new.state, new.attempt):
        return ""
    number = new.job_id.removeprefix(f"{new.campaign_id}.{new.device}.")
    if old is None and new.state is JobState.QUEUED:
        if first or new.retry_of is None or not number.startswith(_number(new.retry_of)):
            return ""
        when = ""
        if new.not_before_ns is not None:
            when = f" at {clock(new.not_before_ns, view.situation.now_ns)}"
        text = f"{new.device} job {number} [{new.cell}] runs {_number(new.retry_of)} again{when}"
    else:
        again = f" (attempt {new.attempt})" if new.attempt > 1 else ""
        why = f": {new.failure.code}: {new.failure.message}" if new.failure else ""
        text = f"{new.device} job {number} [{new.cell}] {new.state}{again}{why}"
    return "".join(char if char.isprintable() else " " for char in text)


def _number(job_id: str) -> str:
    """Return what of a job's id its device's jobs are told apart by."""
    return job_id.split(".", 2)[-1]
