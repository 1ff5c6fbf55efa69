"""Draws a campaign as it stands: the picture of `watch` and `show`."""

from typing import TYPE_CHECKING

from fleetmark_collector.campaigns.situation import headlines, rollout_line, waiting_lines
from fleetmark_collector.campaigns.tables import CampaignState
from fleetmark_collector.campaigns.view import DeviceView, View
from fleetmark_collector.campaigns.wording import NO_COLLECTOR, failure_lines, progress_text
from fleetmark_protocol.jobs import JobState

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

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


def draw(view: View, alive: bool) -> "Group":
    """Return the picture of a campaign."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    campaign = view.campaign
    retry = f"  (retry of {campaign.retry_of})" if campaign.retry_of else ""
    schedule = f"  (scheduled by {campaign.schedule})" if campaign.schedule else ""
    title = f"{campaign.campaign_id}  {campaign.state}{retry}{schedule}"
    parts: list[Table | Text] = [Text(title, "bold")]
    if campaign.stop_reason is not None and not campaign.state.terminal:
        why = _STOPPING[campaign.stop_reason]
        parts.append(Text(f"{why}: waiting for devices to stop", "yellow"))
    situation = view.situation
    bad = campaign.state is CampaignState.FAILED
    lines = headlines(campaign, situation.now_ns).values()
    parts += [Text(line, "red" if bad else "yellow") for line in lines]
    if not alive:
        parts.append(Text(NO_COLLECTOR, "bold yellow"))
    parts.append(_device_table(view))
    states = Text("jobs  ")
    for state in JobState:
        if view.by_state[state]:
            states.append(f"{view.by_state[state]} {state}  ", _COLOURS[state])
    if situation.retried:
        states.append(f"({situation.retried} retried)", "dim")
    parts.append(states)
    rollout = rollout_line(campaign, situation)
    waiting = [*waiting_lines(situation).values(), *(f"note: {one}" for one in situation.notes)]
    parts += [Text(line, "dim") for line in ([rollout] if rollout else []) + waiting]
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        ProgressBar(total=max(view.trials_planned, 1), completed=view.trials_settled, width=40),
        progress_text(view),
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
