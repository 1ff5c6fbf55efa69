"""What `fleetmark campaign` prints: plans and states, for people and for programs."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from fleetmark_collector.campaigns.plan import Plan
    from fleetmark_collector.campaigns.view import View


def say(out: "Console", text: str) -> None:
    """Print a line as it is: no markup, no wrapping, so that it can be copied."""
    out.print(text, soft_wrap=True, markup=False, highlight=False)


def print_plan(made: "Plan", out: "Console") -> None:
    """Print which device runs what, and what is expected of it."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("device", no_wrap=True)
    table.add_column("job", no_wrap=True)
    for title in ("backend", "model", "quantization", "options"):
        table.add_column(title, overflow="fold")
    table.add_column("trials", justify="right")
    table.add_column("expected", overflow="fold")
    for job in made.jobs:
        cell = job.cell
        table.add_row(
            job.device,
            job.spec.job_id.rsplit(".", 1)[-1],
            cell.backend,
            cell.model.name,
            cell.model.quantization or "as is",
            " ".join(f"{name}={value}" for name, value in cell.labels.items()) or "-",
            str(job.trials),
            "runs" if job.refusal is None else f"[red]refused[/]: {escape(job.refusal)}",
        )
    if made.jobs:
        out.print(table)
        say(out, f"{len(made.jobs)} jobs, {made.trials} trials.")
    print_remarks(made, out, refusals=False)


def print_remarks(made: "Plan", out: "Console", *, refusals: bool = True) -> None:
    """Print what is left out, what will be refused, and what the operator should know."""
    for one in made.left_out:
        say(out, f"left out: {one.device}: {one.cell}: {one.reason}")
    for job in made.jobs:
        if refusals and job.refusal is not None:
            say(out, f"will be refused: {job.device}: {job.cell}: {job.refusal}")
    for note in made.notes:
        say(out, f"note: {note}")


def plan_json(made: "Plan") -> dict[str, object]:
    """Return a plan for programs."""
    return {
        "jobs": [
            {
                "fleet": job.fleet,
                "device": job.device,
                "backend": job.spec.backend,
                "model": job.spec.model.model_dump(),
                "options": dict(job.spec.labels),
                "trials": job.trials,
                "refusal": job.refusal,
            }
            for job in made.jobs
        ],
        "left_out": [
            {"fleet": one.fleet, "device": one.device, "cell": str(one.cell), "reason": one.reason}
            for one in made.left_out
        ],
        "notes": made.notes,
        "problems": made.problems,
    }


def status_json(view: "View", alive: bool) -> dict[str, object]:
    """Return how a campaign stands, for programs."""
    campaign = view.campaign
    return {
        "campaign_id": campaign.campaign_id,
        "state": campaign.state,
        "stop_reason": campaign.stop_reason,
        "created_ns": campaign.created_ns,
        "finished_ns": campaign.finished_ns,
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
                "trials_planned": job.trials_planned,
                "trials_stored": view.stored.get(job.job_id, 0),
                "failure": job.failure.model_dump() if job.failure else None,
            }
            for job in view.jobs
        ],
    }
