"""`fleetmark schedule`: campaigns that run again and again, and what became of them."""

import time
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from fleetmark_collector.cli.campaign_output import say
from fleetmark_collector.cli.common import (
    ConfigOption,
    DataDirOption,
    JsonOption,
    console,
    print_json,
    settings_from,
)
from fleetmark_collector.cli.completion import complete_schedule
from fleetmark_protocol.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fleetmark_collector.campaigns.schedule_tables import ScheduleRow
    from fleetmark_collector.campaigns.schedules import ScheduleStore
    from fleetmark_collector.config import CollectorSettings

NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="The schedule's name.",
        show_default=False,
        autocompletion=complete_schedule,
    ),
]

app = typer.Typer(
    name="schedule",
    help="Look after campaigns that run again and again; `fleetmark campaign schedule FILE` "
    "registers one.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(parent: typer.Typer) -> None:
    """Add the group to the command."""
    parent.add_typer(app)


@app.command("list")
def list_schedules(
    as_json: JsonOption = False, config: ConfigOption = None, data_dir: DataDirOption = None
) -> None:
    """List all schedules: when each comes due next, and how its last run stands."""
    from fleetmark_collector.cli.schedule_output import print_schedules, schedule_json

    settings = settings_from(config, data_dir)
    rows = []
    if settings.state_file.exists():
        with closing(_store(settings)) as store:
            rows = [(row, store.runs(row.name, 1), store.running(row.name)) for row in store.all()]
    if as_json:
        print_json([schedule_json(*one) for one in rows])
    elif rows:
        print_schedules(rows, console())
    else:
        typer.echo(f"No schedules in {settings.data_dir} yet.")


@app.command()
def show(
    name: NameArgument,
    number: Annotated[
        int, typer.Option("-n", "--runs", min=1, max=1000, help="How many of its last runs.")
    ] = 20,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Show a schedule: what it runs and when, its last runs, and what was left out and why."""
    from fleetmark_collector.cli.schedule_output import print_schedule, schedule_json

    settings = settings_from(config, data_dir)
    with closing(_existing(settings)) as store:
        row = store.get(name)
        runs, running = store.runs(name, number), store.running(name)
    if as_json:
        print_json({**schedule_json(row, runs, running), "file_text": row.file_text})
    else:
        print_schedule(row, runs, running, console())


@app.command("next")
def next_times(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="The schedule's name; left out, all of them together.",
            autocompletion=complete_schedule,
        ),
    ] = None,
    number: Annotated[int, typer.Option("-n", min=1, max=1000, help="How many times.")] = 5,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Show what comes due next, by the clock of the schedule's time zone and of this machine."""
    from heapq import merge

    from fleetmark_collector.cli.schedule_output import keys_of, print_times, times_json

    settings = settings_from(config, data_dir)
    with closing(_existing(settings)) as store:
        rows = store.all() if name is None else [store.get(name)]
    told = []
    for row in rows:
        keys, unreadable = keys_of(row)
        # Where it is asked for by name it is an error; one of all does not keep back the others.
        if keys is None and name is None:
            typer.echo(f"note: {unreadable}", err=True)
        else:
            told.append(row)
    each = map(_upcoming, told)
    times = list(islice(merge(*each, key=lambda one: one[0]), number))
    if as_json:
        print_json(times_json(times))
    else:
        print_times(times, console())


@app.command("rm")
def remove(
    name: NameArgument,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Remove a schedule. Campaigns that it has started go on and stay."""
    settings = settings_from(config, data_dir)
    with closing(_existing(settings)) as store:
        running = store.running(name)
        store.remove(name)
    if as_json:
        print_json({"name": name, "removed": True, "campaigns_running": running})
        return
    out = console()
    say(out, f"Schedule {name}: removed.")
    for campaign_id in running:
        say(out, f"note: {campaign_id} goes on: `fleetmark campaign cancel {campaign_id}` stops it")


def _upcoming(row: "ScheduleRow") -> "Iterator[tuple[int, ScheduleRow]]":
    from fleetmark_collector.campaigns.schedule_keys import read_keys

    if row.next_ns is None:
        return
    times = read_keys(row.name, row.keys).recurrence
    # One that is overdue is dealt with as soon as a collector is there.
    first = max(row.next_ns, time.time_ns())
    for time_ns in times.upcoming(first - 1):
        yield time_ns, row


def _store(settings: "CollectorSettings") -> "ScheduleStore":
    from fleetmark_collector.campaigns.schedules import ScheduleStore

    return ScheduleStore(settings.state_file)


def _existing(settings: "CollectorSettings") -> "ScheduleStore":
    if not settings.state_file.exists():
        raise ConfigError(
            f"no schedules in {settings.data_dir}",
            hint="`fleetmark campaign schedule FILE` registers one; or name the collector's "
            "--data-dir",
        )
    return _store(settings)
