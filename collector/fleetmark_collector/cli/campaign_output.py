"""What `fleetmark campaign` prints: states and lists, for people and for programs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from fleetmark_collector.campaigns.plan import Plan
    from fleetmark_collector.campaigns.tables import CampaignRow, JobRow
    from fleetmark_collector.campaigns.view import View

    Rows = Sequence[tuple[CampaignRow, Sequence[JobRow]]]


def say(out: "Console", text: str) -> None:
    """Print a line as it is: no markup, no wrapping, so that it can be copied."""
    out.print(text, soft_wrap=True, markup=False, highlight=False)


def print_remarks(made: "Plan", out: "Console", *, refusals: bool = True) -> None:
    """Print what is left out, what will be refused, and what the operator should know."""
    for one in made.left_out:
        say(out, f"left out: {one.device}: {one.cell}: {one.reason}")
    for job in made.jobs:
        if refusals and job.refusal is not None:
            say(out, f"will be refused: {job.device}: {job.cell}: {job.refusal}")
    for note in made.notes:
        say(out, f"note: {note}")


def list_json(rows: "Rows") -> list[dict[str, object]]:
    """Return all campaigns, for programs."""
    return [
        {
            "campaign_id": row.campaign_id,
            "state": row.state,
            "description": row.description,
            "created_ns": row.created_ns,
            "finished_ns": row.finished_ns,
            "retry_of": row.retry_of,
            "schedule": row.schedule,
            "paused": _paused(row),
            "selection": row.selection,
            "jobs": len(_current(jobs)),
            "jobs_ended": sum(job.state.terminal for job in _current(jobs)),
            "jobs_retried": len(jobs) - len(_current(jobs)),
        }
        for row, jobs in rows
    ]


def print_list(rows: "Rows", out: "Console") -> None:
    """Print all campaigns."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("campaign", no_wrap=True)
    table.add_column("state")
    table.add_column("jobs ended", justify="right")
    table.add_column("description")
    for row, jobs in rows:
        current = _current(jobs)
        ended = f"{sum(job.state.terminal for job in current)}/{len(current)}"
        if len(current) < len(jobs):
            ended += f" ({len(jobs) - len(current)} retried)"
        retry = f"retry of {row.retry_of}" if row.retry_of else ""
        schedule = f"scheduled by {row.schedule}" if row.schedule else ""
        text = "; ".join(part for part in (retry, schedule, row.description) if part)
        state = f"{row.state} (paused)" if _paused(row) else str(row.state)
        table.add_row(row.campaign_id, state, ended, escape(text))
    out.print(table)


def _current(jobs: "Sequence[JobRow]") -> "list[JobRow]":
    return [job for job in jobs if job.superseded_by is None]


def _paused(row: "CampaignRow") -> bool:
    return row.paused_ns is not None and not row.state.terminal


def status_json(view: "View", alive: bool) -> dict[str, object]:
    """Return how a campaign stands, for programs."""
    from fleetmark_collector.campaigns.situation import situation_json, wait_json

    campaign = view.campaign
    return {
        **situation_json(campaign, view.situation),
        "campaign_id": campaign.campaign_id,
        "state": campaign.state,
        "stop_reason": campaign.stop_reason,
        "created_ns": campaign.created_ns,
        "finished_ns": campaign.finished_ns,
        "retry_of": campaign.retry_of,
        "schedule": campaign.schedule,
        "collector_running": alive,
        "trials_planned": view.trials_planned,
        "trials_stored": view.trials_stored,
        "eta_s": view.eta_s,
        "late_reports": view.late_reports,
        "jobs_by_state": dict(view.by_state),
        "devices": [
            {
                "fleet": one.fleet,
                "device": one.device,
                "online": one.online,
                "job_id": one.job.job_id if one.job else None,
                "cpu_percent": one.cpu_percent,
                "mem_used_percent": one.mem_used_percent,
                "temperature_c": one.temperature_c,
            }
            for one in view.devices
        ],
        "jobs": [
            {
                "job_id": job.job_id,
                "fleet": job.fleet,
                "device": job.device,
                "cell": job.cell,
                "state": job.state,
                "attempt": job.attempt,
                "retry_of": job.retry_of,
                "superseded_by": job.superseded_by,
                "waits": wait_json(view.situation.waits.get(job.job_id)),
                "trials_planned": job.trials_planned,
                "trials_stored": view.stored.get(job.job_id, 0),
                "failure": job.failure.model_dump() if job.failure else None,
            }
            for job in view.jobs
        ],
    }
