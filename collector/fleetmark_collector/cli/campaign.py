"""`fleetmark campaign`: check, plan, run, watch, cancel and list campaigns."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetmark_collector.cli.campaign_output import (
    plan_json,
    print_plan,
    print_remarks,
    say,
    status_json,
)
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
    from rich.console import Console

    from fleetmark_collector.campaigns.state import CampaignStore
    from fleetmark_collector.campaigns.view import View
    from fleetmark_collector.config import CollectorSettings

FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="The campaign file (YAML).", show_default=False)
]
IdArgument = Annotated[
    str | None,
    typer.Argument(metavar="[ID]", help="The campaign's id; left out, the one begun last."),
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
def validate(file: FileArgument) -> None:
    """Check a campaign file without needing devices or a collector."""
    from fleetmark_collector.campaigns.file import load_campaign
    from fleetmark_collector.campaigns.plan import make_cells

    cells = make_cells(load_campaign(file))
    trials = sum(cell.trials for cell in cells)
    typer.echo(f"{file}: valid. On each device: {len(cells)} jobs, {trials} trials.")


@app.command()
def plan(
    file: FileArgument,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Show which jobs a campaign file makes on which devices, and which of them would fail.

    Nothing is written and nothing is sent.
    """
    from fleetmark_collector.campaigns.file import load_campaign
    from fleetmark_collector.campaigns.submit import plan_campaign

    settings = settings_from(config, data_dir)
    made = plan_campaign(settings, load_campaign(file), time.time_ns())
    if as_json:
        print_json(plan_json(made))
    else:
        print_plan(made, console())
    made.check()


@app.command()
def run(
    file: FileArgument,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return at once; the campaign goes on.")
    ] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Start a campaign and watch it until it ends.

    A running collector (`fleetmark collect`) carries it out. Ctrl-C ends the watching only.
    Exit code: 0 if every job succeeded, 1 if not, 2 if the file or its targets are wrong.
    """
    from fleetmark_collector.campaigns.submit import submit_campaign
    from fleetmark_collector.campaigns.watch import NO_COLLECTOR, command_line
    from fleetmark_collector.devices import DeviceRegistry

    settings = settings_from(config, data_dir)
    campaign_id, made = submit_campaign(settings, file)
    out = console()
    devices = len({(job.fleet, job.device) for job in made.jobs})
    say(
        out,
        f"Campaign {campaign_id}: {len(made.jobs)} jobs, {made.trials} trials, "
        f"{devices} device{'s' * (devices != 1)}.",
    )
    print_remarks(made, out)
    registry = DeviceRegistry(settings.state_file)
    alive = registry.collector_alive()
    registry.close()
    if detach:
        if not alive:
            say(out, f"note: {NO_COLLECTOR}")
        say(out, f"Watch:  {command_line(settings, 'campaign', 'status', '--watch')}")
        say(out, f"Cancel: {command_line(settings, 'campaign', 'cancel', campaign_id)}")
        return
    _watch(settings, campaign_id, out)


@app.command()
def status(
    campaign_id: IdArgument = None,
    as_json: JsonOption = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Stay until it ends; exit 1 if it failed.")
    ] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Show how a campaign stands: devices, jobs, progress, failures."""
    from fleetmark_collector.campaigns.watch import draw, print_end

    settings = settings_from(config, data_dir)
    store = _existing_store(settings)
    try:
        found = store.newest() if campaign_id is None else store.campaign(campaign_id)
        if found is None:
            raise _no_campaigns(settings)
        view, alive = _look(store, settings, found.campaign_id)
    finally:
        store.close()
    if as_json:
        print_json(status_json(view, alive))
    elif watch:
        _watch(settings, found.campaign_id, console())
    else:
        out = console()
        out.print(draw(view, alive or found.state.terminal))
        if found.state.terminal:
            print_end(view, settings, out)


@app.command()
def cancel(
    campaign_id: Annotated[
        str, typer.Argument(metavar="ID", help="The campaign's id.", show_default=False)
    ],
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Cancel a campaign: devices stop their jobs, what is measured stays."""
    from fleetmark_collector.campaigns.watch import NO_COLLECTOR

    settings = settings_from(config, data_dir)
    store = _existing_store(settings)
    out = console()
    try:
        before = store.campaign(campaign_id)
        after = store.request_cancel(campaign_id)
        view, alive = _look(store, settings, campaign_id)
    finally:
        store.close()
    if before.state.terminal:
        say(out, f"Campaign {campaign_id} has ended already: {before.state}.")
        return
    running = sum(not job.state.terminal for job in view.jobs)
    if after.state.terminal:
        say(out, f"Campaign {campaign_id}: {after.state}; no job was under way.")
    else:
        say(out, f"Campaign {campaign_id}: asked devices to stop {running} job(s) under way.")
        if not alive:
            say(out, f"note: {NO_COLLECTOR}")


@app.command("list")
def list_campaigns(
    as_json: JsonOption = False, config: ConfigOption = None, data_dir: DataDirOption = None
) -> None:
    """List all campaigns, oldest first."""
    from fleetmark_collector.campaigns.state import CampaignStore

    settings = settings_from(config, data_dir)
    rows = []
    if settings.state_file.exists():
        store = CampaignStore(settings.state_file)
        try:
            rows = [(row, store.jobs(row.campaign_id)) for row in store.campaigns()]
        finally:
            store.close()
    if as_json:
        print_json(
            [
                {
                    "campaign_id": row.campaign_id,
                    "state": row.state,
                    "description": row.description,
                    "created_ns": row.created_ns,
                    "finished_ns": row.finished_ns,
                    "jobs": len(jobs),
                    "jobs_ended": sum(job.state.terminal for job in jobs),
                }
                for row, jobs in rows
            ]
        )
        return
    if not rows:
        typer.echo(f"No campaigns in {settings.data_dir} yet.")
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("campaign", no_wrap=True)
    table.add_column("state")
    table.add_column("jobs ended", justify="right")
    table.add_column("description")
    for row, jobs in rows:
        ended = f"{sum(job.state.terminal for job in jobs)}/{len(jobs)}"
        table.add_row(row.campaign_id, row.state, ended, escape(row.description))
    console().print(table)


# --- shared ------------------------------------------------------------------------------------


def _existing_store(settings: "CollectorSettings") -> "CampaignStore":
    """Open the campaigns, without making a file where somebody names the wrong directory."""
    from fleetmark_collector.campaigns.state import CampaignStore

    if not settings.state_file.exists():
        raise _no_campaigns(settings)
    return CampaignStore(settings.state_file)


def _no_campaigns(settings: "CollectorSettings") -> ConfigError:
    return ConfigError(
        f"no campaigns in {settings.data_dir}",
        hint="start one with `fleetmark campaign run FILE`, or name the collector's --data-dir",
    )


def _look(
    store: "CampaignStore", settings: "CollectorSettings", campaign_id: str
) -> "tuple[View, bool]":
    """Return how a campaign stands, and whether a collector is running."""
    from fleetmark_collector.campaigns.view import gather
    from fleetmark_collector.devices import DeviceRegistry
    from fleetmark_collector.sinks.stores import open_reader

    registry, reader = DeviceRegistry(settings.state_file), open_reader(settings)
    try:
        view = gather(store, reader, registry, campaign_id, time.time_ns())
        return view, registry.collector_alive()
    finally:
        reader.close()
        registry.close()


def _watch(settings: "CollectorSettings", campaign_id: str, out: "Console") -> None:
    from fleetmark_collector.campaigns.tables import CampaignState
    from fleetmark_collector.campaigns.watch import command_line, watch_campaign

    try:
        state = watch_campaign(settings, campaign_id, out)
    except KeyboardInterrupt:
        say(out, f"\nThe campaign goes on without you: {campaign_id}")
        again = command_line(settings, "campaign", "status", campaign_id, "--watch")
        say(out, f"Watch:  {again}")
        say(out, f"Cancel: {command_line(settings, 'campaign', 'cancel', campaign_id)}")
        raise typer.Exit(130) from None
    if state is not CampaignState.SUCCEEDED:
        raise typer.Exit(1)
