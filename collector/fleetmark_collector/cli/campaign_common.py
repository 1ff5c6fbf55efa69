"""What the campaign commands share: opening the state file, watching, and how they end."""

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from fleetmark_collector.cli.campaign_output import print_remarks, say, status_json
from fleetmark_collector.cli.common import console, harmless_json, print_json
from fleetmark_collector.cli.completion import complete_campaign
from fleetmark_protocol.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from fleetmark_collector.campaigns.plan import Plan
    from fleetmark_collector.campaigns.state import CampaignStore
    from fleetmark_collector.campaigns.view import View
    from fleetmark_collector.config import CollectorSettings

IdArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[ID]",
        help="The campaign's id; left out, the one begun last.",
        autocompletion=complete_campaign,
    ),
]
NeededIdArgument = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="The campaign's id.",
        show_default=False,
        autocompletion=complete_campaign,
    ),
]


def existing_store(settings: "CollectorSettings") -> "CampaignStore":
    """Open the campaigns, without making a file where somebody names the wrong directory.

    Raises:
        ConfigError: there are none.
    """
    from fleetmark_collector.campaigns.state import CampaignStore

    if not settings.state_file.exists():
        raise no_campaigns(settings)
    return CampaignStore(settings.state_file)


def no_campaigns(settings: "CollectorSettings") -> ConfigError:
    """Return what to say where there is none."""
    return ConfigError(
        f"no campaigns in {settings.data_dir}",
        hint="start one with `fleetmark campaign run FILE`, or name the collector's --data-dir",
    )


def chosen_id(settings: "CollectorSettings", campaign_id: str | None) -> str:
    """Return the campaign that is meant: the one begun last where none is named.

    Raises:
        ConfigError: there is no such campaign, or none at all.
    """
    store = existing_store(settings)
    try:
        found = store.newest() if campaign_id is None else store.campaign(campaign_id)
    finally:
        store.close()
    if found is None:
        raise no_campaigns(settings)
    return found.campaign_id


def look(settings: "CollectorSettings", campaign_id: str) -> "tuple[View, bool]":
    """Return how a campaign stands, and whether a collector is running."""
    from fleetmark_collector.campaigns.state import CampaignStore
    from fleetmark_collector.campaigns.view import gather
    from fleetmark_collector.devices import DeviceRegistry
    from fleetmark_collector.sinks.stores import open_reader

    store, registry = CampaignStore(settings.state_file), DeviceRegistry(settings.state_file)
    reader = open_reader(settings)
    try:
        view = gather(store, reader, registry, campaign_id, time.time_ns())
        return view, registry.collector_alive()
    finally:
        reader.close()
        registry.close()
        store.close()


def begin(settings: "CollectorSettings", made: "Plan", *, detach: bool, as_json: bool) -> None:
    """Say what has been started, and watch it unless it is to go on by itself."""
    alive = _collector_alive(settings)
    if as_json and detach:
        print_json(
            {
                "campaign_id": made.campaign_id,
                "jobs": len(made.jobs),
                "trials": made.trials,
                "notes": made.notes,
                "collector_running": alive,
            }
        )
    elif as_json:
        watch_for_programs(settings, made.campaign_id, each=False)
    else:
        _say_begun(settings, made, console(), detach=detach, alive=alive)
        if not detach:
            watch_to_the_end(settings, made.campaign_id, console())


def _say_begun(
    settings: "CollectorSettings", made: "Plan", out: "Console", *, detach: bool, alive: bool
) -> None:
    from fleetmark_collector.campaigns.watch import command_line
    from fleetmark_collector.campaigns.wording import NO_COLLECTOR

    devices = len({(job.fleet, job.device) for job in made.jobs})
    say(
        out,
        f"Campaign {made.campaign_id}: {len(made.jobs)} jobs, {made.trials} trials, "
        f"{devices} device{'s' * (devices != 1)}.",
    )
    print_remarks(made, out)
    if detach:
        if not alive:
            say(out, f"note: {NO_COLLECTOR}")
        say(out, f"Watch:  {command_line(settings, 'campaign', 'watch', made.campaign_id)}")
        say(out, f"Cancel: {command_line(settings, 'campaign', 'cancel', made.campaign_id)}")


def _collector_alive(settings: "CollectorSettings") -> bool:
    from fleetmark_collector.devices import DeviceRegistry

    registry = DeviceRegistry(settings.state_file)
    try:
        return registry.collector_alive()
    finally:
        registry.close()


def watch_to_the_end(settings: "CollectorSettings", campaign_id: str, out: "Console") -> None:
    """Show a campaign until it has ended; the exit code says how: 0 SUCCEEDED, 1 other."""
    from fleetmark_collector.campaigns.tables import CampaignState
    from fleetmark_collector.campaigns.watch import command_line, watch_campaign

    try:
        state = watch_campaign(settings, campaign_id, out)
    except KeyboardInterrupt:
        say(out, f"\nThe campaign goes on without you: {campaign_id}")
        say(out, f"Watch:  {command_line(settings, 'campaign', 'watch', campaign_id)}")
        say(out, f"Cancel: {command_line(settings, 'campaign', 'cancel', campaign_id)}")
        raise typer.Exit(130) from None
    if state is not CampaignState.SUCCEEDED:
        raise typer.Exit(1)


def watch_for_programs(settings: "CollectorSettings", campaign_id: str, *, each: bool) -> None:
    """Wait for the end of a campaign and print it as JSON; the exit code says how it ended.

    Args:
        settings: of the collector.
        campaign_id: which.
        each: print each change, too, all of them one object a line.
    """
    from fleetmark_collector.campaigns.tables import CampaignState
    from fleetmark_collector.campaigns.watch import looks

    before = ""
    try:
        for view, alive in looks(settings, campaign_id):
            now = status_json(view, alive)
            ended = view.campaign.state.terminal
            if not each:
                if ended:
                    print_json(now)
                continue
            # The time that is left changes with every look, and is no news by itself.
            news = json.dumps({**now, "eta_s": None, "devices": None}, default=str)
            if news != before or ended:
                typer.echo(harmless_json(json.dumps(now, ensure_ascii=False, default=str)))
            before = news
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if view.campaign.state is not CampaignState.SUCCEEDED:
        raise typer.Exit(1)
