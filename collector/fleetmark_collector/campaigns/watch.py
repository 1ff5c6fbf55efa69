"""Shows a campaign until it ends: a live picture on a terminal, a line for each change elsewhere.

It reads the collector's files only, so it may be stopped and started again at will.
"""

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import datetime
from typing import TYPE_CHECKING

from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.campaigns.tables import CampaignState, JobRow
from fleetmark_collector.campaigns.view import DeviceView, View, gather
from fleetmark_collector.config import CollectorSettings, default_data_dir
from fleetmark_collector.devices import DeviceRegistry
from fleetmark_collector.sinks.stores import open_reader
from fleetmark_protocol.errors import StoreUnavailable
from fleetmark_protocol.jobs import JobState

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table

INTERVAL_S = 1.0
PROGRESS_STEP = 0.1
"""Without a terminal, progress is told each time it has grown by this share."""
SHOWN_FAILURES = 5

_COLOURS = {
    JobState.QUEUED: "dim",
    JobState.IN_PROGRESS: "cyan",
    JobState.SUCCEEDED: "green",
    JobState.FAILED: "red",
    JobState.TIMED_OUT: "red",
    JobState.REJECTED: "red",
    JobState.CANCELED: "yellow",
}


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
                live.update(draw(new, alive), refresh=True)
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
    console.print(
        f"Campaign {view.campaign.campaign_id} {view.campaign.state}: {counts}; "
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


def duration_text(seconds: float | None) -> str:
    """Return a time to wait as people read it; `?` when unknown."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def failure_lines(view: View) -> list[str]:
    """Return a line for each job that ended other than well, newest first, a few at most."""
    lines = []
    for job in view.failed[:SHOWN_FAILURES]:
        # One line each: what the device said may have several, and odd characters.
        said = f": {job.failure.code}: {job.failure.message}" if job.failure else ""
        text = f"{job.device} {job.cell}: {job.state}{said}"
        lines.append("".join(char if char.isprintable() else " " for char in text)[:300])
    if len(view.failed) > SHOWN_FAILURES:
        lines.append(f"and {len(view.failed) - SHOWN_FAILURES} more")
    return lines


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
    before = {job.job_id: job for job in old.jobs} if old else {}
    for job in new.jobs:
        line = _job_change(before.get(job.job_id), job)
        if line:
            lines.append(line)
    was_online = {(one.fleet, one.device): one.online for one in old.devices} if old else {}
    lines += [
        f"{one.device} is {'online again' if one.online else 'offline'}"
        for one in new.devices
        if was_online.get((one.fleet, one.device), True) != one.online
    ]
    shares = [_share(view) for view in (old, new) if view is not None]
    if len(shares) == 1 or int(shares[0] / PROGRESS_STEP) != int(shares[1] / PROGRESS_STEP):
        lines.append(_progress_text(new))
    return lines


NO_COLLECTOR = "no collector is running: nothing moves until `fleetmark collect` is started"


def _job_change(old: JobRow | None, new: JobRow) -> str:
    if old is not None and (old.state, old.attempt) == (new.state, new.attempt):
        return ""
    if old is None and new.state is JobState.QUEUED:
        return ""
    number = new.job_id.rsplit(".", 1)[-1]
    again = f" (attempt {new.attempt})" if new.attempt > 1 else ""
    why = f": {new.failure.code}: {new.failure.message}" if new.failure else ""
    text = f"{new.device} job {number} [{new.cell}] {new.state}{again}{why}"
    return "".join(char if char.isprintable() else " " for char in text)


def _share(view: View) -> float:
    return view.trials_settled / view.trials_planned if view.trials_planned else 1.0


def _progress_text(view: View) -> str:
    text = f"{_share(view):.0%}, {view.trials_stored} of {view.trials_planned} trials"
    return text if view.eta_s is None else f"{text}, about {duration_text(view.eta_s)} left"


# --- the picture -------------------------------------------------------------------------------


def draw(view: View, alive: bool) -> "Group":
    """Return the picture of a campaign."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    campaign = view.campaign
    retry = f"  (retry of {campaign.retry_of})" if campaign.retry_of else ""
    parts: list[Table | Text] = [Text(f"{campaign.campaign_id}  {campaign.state}{retry}", "bold")]
    if campaign.stop_reason is not None and not campaign.state.terminal:
        why = "canceled" if campaign.stop_reason == "cancel" else "out of time"
        parts.append(Text(f"{why}: waiting for devices to stop", "yellow"))
    if not alive:
        parts.append(Text(NO_COLLECTOR, "bold yellow"))
    parts.append(_device_table(view))
    states = Text("jobs  ")
    for state in JobState:
        if view.by_state[state]:
            states.append(f"{view.by_state[state]} {state}  ", _COLOURS[state])
    parts.append(states)
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        ProgressBar(total=max(view.trials_planned, 1), completed=view.trials_settled, width=40),
        _progress_text(view),
    )
    parts.append(bar)
    parts += [Text(line, "red", overflow="ellipsis", no_wrap=True) for line in failure_lines(view)]
    return Group(*parts)


def _device_table(view: View) -> "Table":
    from rich.table import Table

    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("device", no_wrap=True)
    table.add_column("")
    for title in ("CPU %", "RAM %", "°C"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("job", overflow="fold")
    for one in view.devices:
        table.add_row(
            one.device,
            "[green]online[/]" if one.online else "[red]offline[/]",
            _number(one.cpu_percent),
            _number(one.mem_used_percent),
            _number(one.temperature_c),
            _job_text(one, view),
        )
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _job_text(one: DeviceView, view: View) -> str:
    from rich.markup import escape

    if one.job is None:
        return "-"
    if one.job.state is JobState.QUEUED:
        doing = "preparing" if one.online else "waiting for the device"
    else:
        doing = f"{view.stored.get(one.job.job_id, 0)}/{one.job.trials_planned} trials"
    return escape(f"{one.job.cell} ({doing})")
