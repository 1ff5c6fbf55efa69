"""`fleetmark campaign schedule`: registers a campaign that runs again and again."""

from pathlib import Path
from typing import Annotated

import typer

from fleetmark_collector.cli.campaign_output import print_remarks, say
from fleetmark_collector.cli.common import (
    ConfigOption,
    DataDirOption,
    JsonOption,
    console,
    print_json,
    settings_from,
)


def add_to(app: typer.Typer) -> None:
    """Add the command to the group."""
    app.command()(schedule)


def schedule(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The campaign file (YAML).", show_default=False)
    ],
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The schedule's name (default: the campaign's)."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in the place of one of the same name.")
    ] = False,
    yes: Annotated[
        bool,
        typer.Option(
            "--yes", "-y", help="Also where it is expected to go beyond the limits in the file."
        ),
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Have a campaign run again and again, as `schedule` in its file says.

    What is kept is complete in itself: the file, and prompts it takes from other files, may change
    or go. A running collector (`fleetmark collect`) starts the runs. Nothing runs now.
    """
    from fleetmark_collector.campaigns.recurrence import shown
    from fleetmark_collector.campaigns.scheduling import register_schedule
    from fleetmark_collector.cli.schedule_output import schedule_json

    settings = settings_from(config, data_dir)
    made = register_schedule(settings, file, name=name, replace=replace, accept_limits=yes)
    row = made.row
    if as_json:
        print_json({**schedule_json(row, (), []), "replaced": made.replaced})
        return
    out = console()
    what = "replaced" if made.replaced else "registered"
    say(out, f"Schedule {row.name}: {what}; {len(made.plan.jobs)} jobs a run as things are now.")
    print_remarks(made.plan, out)
    if row.next_ns is not None:
        zone = made.keys.recurrence.zone
        here = shown(row.next_ns, None)
        say(out, f"Next:   {shown(row.next_ns, zone)} ({made.keys.time_zone}); here {here}")
    say(out, f"Look:   fleetmark schedule show {row.name}")
    say(out, f"Remove: fleetmark schedule rm {row.name}")
