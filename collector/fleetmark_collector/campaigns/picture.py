"""Draws a campaign as it stands: the picture of `watch` and `show`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleetmark_collector.campaigns.situation import headlines, rollout_line, waiting_lines
from fleetmark_collector.campaigns.tables import CampaignState
from fleetmark_collector.campaigns.view import DeviceView, View
from fleetmark_collector.campaigns.wording import (
    NO_COLLECTOR,
    SHOWN_FAILURES,
    failure_lines,
    progress_text,
)
from fleetmark_protocol.jobs import JobState

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, Group, RenderableType
    from rich.table import Table
    from rich.text import Text

SHOWN_NOTES = 2
TABLE_LINES = 3
"""The least that a table of some devices takes: its head, one of them, how many there are more."""
_COLOURS = {
    JobState.QUEUED: "dim",
    JobState.IN_PROGRESS: "cyan",
    JobState.SUCCEEDED: "green",
    JobState.FAILED: "red",
    JobState.TIMED_OUT: "red",
    JobState.REJECTED: "red",
    JobState.CANCELED: "yellow",
}
_STOPPING = {"cancel": "canceled", "timeout": "out of time", "abort": "aborted"}


@dataclass(frozen=True)
class Picture:
    """A campaign drawn so that all of it fits on the terminal it is drawn on.

    What holds for the whole campaign comes first, then failures, then as many devices as there is
    room for, those at work or in trouble before the others.
    """

    view: View
    alive: bool

    def __rich_console__(
        self, console: "Console", options: "ConsoleOptions"
    ) -> "Iterator[RenderableType]":
        """Yield its parts; measured anew each time, as a terminal's size may change."""
        from rich.console import Group

        head = Group(*_title(self.view, self.alive), *_progress(self.view), *_waiting(self.view))
        yield head
        # One line stays free for the cursor.
        left = options.size.height - 1 - len(console.render_lines(head, options, pad=False))
        most_failures = max(1, min(SHOWN_FAILURES, left // 3 - 1))
        notes = _first([f"note: {one}" for one in self.view.situation.notes], SHOWN_NOTES)
        for lines, style in ((failure_lines(self.view, most_failures), "red"), (notes, "dim")):
            shown = lines[: max(0, left)]
            yield from (_one_line(line, style) for line in shown)
            left -= len(shown)
        devices = by_interest(self.view)
        if len(devices) < left:
            yield _device_table(self.view, devices, fold=False)
        elif left >= TABLE_LINES:
            shown_devices = devices[: left - 2]
            yield _device_table(self.view, shown_devices, fold=False)
            yield _one_line(_others(devices[left - 2 :]), "dim")


def draw(view: View, alive: bool) -> "Group":
    """Return the whole picture of a campaign, however long: what counts most stands last."""
    from rich.console import Group
    from rich.text import Text

    notes = [Text(f"note: {one}", "dim") for one in view.situation.notes]
    states, bar = _progress(view)
    return Group(
        *_title(view, alive),
        _device_table(view, view.devices, fold=True),
        states,
        *_waiting(view),
        *notes,
        bar,
        *(_one_line(line, "red") for line in failure_lines(view)),
    )


def by_interest(view: View) -> list[DeviceView]:
    """Return the devices, those first that are worth a look: at work, in trouble, still waiting."""
    failed = {(job.fleet, job.device) for job in view.failed}
    left = {(job.fleet, job.device) for job in view.current if not job.state.terminal}

    def rank(one: DeviceView) -> int:
        key = (one.fleet, one.device)
        works = one.job is not None and one.job.state is not JobState.QUEUED
        waits = key in left
        order = (
            works and not one.online,
            works,
            key in failed,
            one.job is not None and one.online,
            waits and not one.online,
            waits,
        )
        return order.index(True) if True in order else len(order)

    return sorted(view.devices, key=rank)


def _title(view: View, alive: bool) -> "list[Text]":
    from rich.text import Text

    campaign = view.campaign
    retry = f"  (retry of {campaign.retry_of})" if campaign.retry_of else ""
    schedule = f"  (scheduled by {campaign.schedule})" if campaign.schedule else ""
    parts = [Text(f"{campaign.campaign_id}  {campaign.state}{retry}{schedule}", "bold")]
    if campaign.stop_reason is not None and not campaign.state.terminal:
        why = _STOPPING[campaign.stop_reason]
        parts.append(Text(f"{why}: waiting for devices to stop", "yellow"))
    bad = campaign.state is CampaignState.FAILED
    lines = headlines(campaign, view.situation.now_ns).values()
    parts += [Text(line, "red" if bad else "yellow") for line in lines]
    if not alive:
        parts.append(Text(NO_COLLECTOR, "bold yellow"))
    return parts


def _progress(view: View) -> "tuple[Text, Table]":
    """Return how many jobs are in which state, and the bar."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    states = Text("jobs  ")
    for state in JobState:
        if view.by_state[state]:
            states.append(f"{view.by_state[state]} {state}  ", _COLOURS[state])
    if view.situation.retried:
        states.append(f"({view.situation.retried} retried)", "dim")
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        ProgressBar(total=max(view.trials_planned, 1), completed=view.trials_settled, width=40),
        progress_text(view),
    )
    return states, bar


def _waiting(view: View) -> "list[Text]":
    from rich.text import Text

    rollout = rollout_line(view.campaign, view.situation)
    lines = [*([rollout] if rollout else []), *waiting_lines(view.situation).values()]
    return [Text(line, "dim") for line in lines]


def _one_line(line: str, style: str) -> "Text":
    from rich.text import Text

    return Text(line, style, overflow="ellipsis", no_wrap=True)


def _first(lines: list[str], most: int) -> list[str]:
    more = len(lines) - most
    return lines if more <= 0 else [*lines[:most], f"and {more} more notes"]


def _others(devices: list[DeviceView]) -> str:
    offline = sum(not one.online for one in devices)
    said = f" ({offline} offline)" if offline else ""
    return f"and {len(devices)} more{said}"


def _device_table(view: View, devices: Sequence[DeviceView], *, fold: bool) -> "Table":
    """Return a table of devices.

    Args:
        view: whose.
        devices: of it.
        fold: let what a device does take several lines where it is long; else it is cut.
    """
    from rich.table import Table

    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("device", no_wrap=True)
    table.add_column("", no_wrap=not fold)
    for title in ("CPU %", "RAM %", "°C"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("job", overflow="fold" if fold else "ellipsis", no_wrap=not fold)
    for one in devices:
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
    return escape(f"{doing}: {one.job.cell}")  # its end is cut where there is no room
