"""`fleetmark campaign`: check, plan, run, watch, cancel and list campaigns."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetmark_collector.cli import campaign_keep, campaign_schedule, campaign_steer
from fleetmark_collector.cli.campaign_common import (
    IdArgument,
    begin,
    chosen_id,
    look,
    watch_for_programs,
    watch_to_the_end,
)
from fleetmark_collector.cli.campaign_output import status_json
from fleetmark_collector.cli.common import (
    ConfigOption,
    DataDirOption,
    JsonOption,
    console,
    print_json,
    settings_from,
)
from fleetmark_protocol.errors import ConfigError

if TYPE_CHECKING:
    from fleetmark_collector.config import CollectorSettings

FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="The campaign file (YAML).", show_default=False)
]
YesOption = Annotated[
    bool,
    typer.Option(
        "--yes", "-y", help="Also where it is expected to go beyond the limits in the file."
    ),
]

app = typer.Typer(
    name="campaign",
    help="Run a campaign: measure every cell of a matrix (engine x model x quantization x "
    "options) on every target device, as a YAML file describes it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(parent: typer.Typer) -> None:
    """Add the group to the command."""
    parent.add_typer(app)


@app.command()
def validate(file: FileArgument, as_json: JsonOption = False) -> None:
    """Check a campaign file without needing devices or a collector."""
    from fleetmark_collector.campaigns.file import load_campaign
    from fleetmark_collector.campaigns.plan import jobs_of
    from fleetmark_collector.cli.plan_output import trials_text

    try:
        campaign = load_campaign(file)
    except ConfigError as error:
        if as_json:
            print_json({"file": file, "valid": False, "problems": error.message.splitlines()})
        raise
    cells, jobs = campaign.cells, jobs_of(campaign)
    trials = sum(job.trials for job in jobs)
    if as_json:
        print_json(
            {
                "file": file,
                "valid": True,
                "problems": [],
                "jobs_per_device": len(jobs),
                "trials_per_device": trials,
                "cells": [{"cell": str(cell), "trials": cell.trials} for cell in cells],
            }
        )
        return
    told = trials_text([one for job in jobs for one in job.workloads])
    typer.echo(f"{file}: valid. On each device: {len(jobs)} jobs, {told} trials.")


@app.command()
def plan(
    file: FileArgument,
    yes: YesOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Show which jobs a campaign file makes on which devices, how long they take, what would fail.

    An estimate comes from earlier runs of the same cell on the same device, else on one of its
    kind, else from the size of the model. Nothing is written and nothing is sent.
    """
    from fleetmark_collector.campaigns.file import load_campaign
    from fleetmark_collector.campaigns.submit import look_ahead
    from fleetmark_collector.cli.plan_output import outlook_json, print_outlook

    settings = settings_from(config, data_dir)
    campaign = load_campaign(file)
    outlook = look_ahead(settings, campaign, time.time_ns())
    if as_json:
        print_json(outlook_json(outlook, campaign.cost))
    else:
        print_outlook(outlook, campaign.cost, console())
    outlook.check(accept_limits=yes)


@app.command()
def run(
    file: FileArgument,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return at once; the campaign goes on.")
    ] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Start a campaign and watch it until it ends.

    A running collector (`fleetmark collect`) carries it out. Ctrl-C ends the watching only.
    Exit code: 0 if every job succeeded, 1 if not, 2 if the file or its targets are wrong.
    """
    from fleetmark_collector.campaigns.submit import submit_campaign

    settings = settings_from(config, data_dir)
    _, made = submit_campaign(settings, file, accept_limits=yes)
    begin(settings, made, detach=detach, as_json=as_json)


@app.command()
def show(
    campaign_id: IdArgument = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Show how a campaign stands: devices, jobs, progress, failures.

    Exit code: 0 if every job has succeeded, 1 if not (or not yet).
    """
    from fleetmark_collector.campaigns.tables import CampaignState

    if _show(settings_from(config, data_dir), campaign_id, as_json) is not CampaignState.SUCCEEDED:
        raise typer.Exit(1)


@app.command()
def watch(
    campaign_id: IdArgument = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Watch a campaign until it ends: a live picture on a terminal, lines elsewhere.

    --json prints an object for each change, one a line. Ctrl-C ends the watching only.
    Exit code: 0 if every job succeeded, 1 if not, 130 if you stopped watching.
    """
    settings = settings_from(config, data_dir)
    wanted = chosen_id(settings, campaign_id)
    if as_json:
        watch_for_programs(settings, wanted, each=True)
    else:
        watch_to_the_end(settings, wanted, console())


@app.command(hidden=True)
def status(
    campaign_id: IdArgument = None,
    as_json: JsonOption = False,
    stay: Annotated[bool, typer.Option("--watch", "-w", help="As `watch`.")] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """As `show`, with exit code 0 however the campaign stands; for scripts that read the JSON."""
    settings = settings_from(config, data_dir)
    if stay:
        watch_to_the_end(settings, chosen_id(settings, campaign_id), console())
    else:
        _show(settings, campaign_id, as_json)


def _show(settings: "CollectorSettings", campaign_id: str | None, as_json: bool) -> str:
    from fleetmark_collector.campaigns.picture import draw
    from fleetmark_collector.campaigns.watch import print_end

    view, alive = look(settings, chosen_id(settings, campaign_id))
    ended = view.campaign.state.terminal
    if as_json:
        print_json(status_json(view, alive))
    else:
        out = console()
        out.print(draw(view, alive or ended))
        if ended:
            print_end(view, settings, out)
    return view.campaign.state


@app.command("list")
def list_campaigns(
    as_json: JsonOption = False, config: ConfigOption = None, data_dir: DataDirOption = None
) -> None:
    """List all campaigns, oldest first."""
    from fleetmark_collector.campaigns.state import CampaignStore
    from fleetmark_collector.cli.campaign_output import list_json, print_list

    settings = settings_from(config, data_dir)
    rows = []
    if settings.state_file.exists():
        store = CampaignStore(settings.state_file)
        try:
            rows = [(row, store.jobs(row.campaign_id)) for row in store.campaigns()]
        finally:
            store.close()
    if as_json:
        print_json(list_json(rows))
    elif rows:
        print_list(rows, console())
    else:
        typer.echo(f"No campaigns in {settings.data_dir} yet.")


campaign_schedule.add_to(app)
campaign_steer.add_to(app)
campaign_keep.add_to(app)
