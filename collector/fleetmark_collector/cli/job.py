"""`fleetmark job`: one job in full, and what happened to it."""

import time
from typing import Annotated

import typer

from fleetmark_collector.cli.campaign_common import existing_store
from fleetmark_collector.cli.common import (
    ConfigOption,
    DataDirOption,
    JsonOption,
    console,
    print_json,
    settings_from,
)
from fleetmark_collector.cli.completion import complete_job
from fleetmark_protocol.errors import StoreUnavailable

FOLLOW_S = 1.0
SETTLE_S = 5.0
"""For so long after a job's end more may come to be known of it."""

JobArgument = Annotated[
    str,
    typer.Argument(
        metavar="JOB",
        help="The job's id, such as sizes-20260101-120000.pi-1.001.",
        show_default=False,
        autocompletion=complete_job,
    ),
]

app = typer.Typer(
    name="job",
    help="Look at one job of a campaign.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(parent: typer.Typer) -> None:
    """Add the group to the command."""
    parent.add_typer(app)


@app.command()
def show(
    job_id: JobArgument,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Show a job: what it asks for, its states and attempts, its trials, why it failed.

    Exit code: 0 if it has succeeded, 1 if not (or not yet).
    """
    from fleetmark_collector.campaigns.joblog import read_log, read_trials
    from fleetmark_collector.cli.job_output import job_json, print_job
    from fleetmark_collector.sinks.stores import open_reader
    from fleetmark_protocol.jobs import JobState

    settings = settings_from(config, data_dir)
    store, reader = existing_store(settings), open_reader(settings)
    try:
        job, spec = store.named_job(job_id), store.spec(job_id)
        log = read_log(store, reader, job)
        trials = read_trials(reader, job)
    except StoreUnavailable as error:
        _say_unread(error)
        log, trials = read_log(store, None, job), []
    finally:
        reader.close()
        store.close()
    if as_json:
        print_json(job_json(job, spec, log, trials))
    else:
        print_job(job, spec, log, trials, console())
    if job.state is not JobState.SUCCEEDED:
        raise typer.Exit(1)


@app.command()
def logs(
    job_id: JobArgument,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Stay, and print what comes, until it has ended.")
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Print what happened to a job in order of time: its states, here and there, and its events.

    --json prints an object a line. The centre and the device each speak of their own clock.
    """
    from fleetmark_collector.campaigns.joblog import Entry, read_log
    from fleetmark_collector.cli.job_output import entry_json_line, entry_line
    from fleetmark_collector.sinks.stores import open_reader

    settings = settings_from(config, data_dir)
    store, reader = existing_store(settings), open_reader(settings)
    shown: set[Entry] = set()
    told = ""
    try:
        while True:
            job = store.named_job(job_id)
            try:
                log = read_log(store, reader, job)
            except StoreUnavailable as error:
                log = read_log(store, None, job)
                if error.message != told:
                    told = error.message
                    _say_unread(error)
            for entry in log:
                if entry not in shown:
                    shown.add(entry)
                    typer.echo(entry_json_line(entry) if as_json else entry_line(entry))
            over_s = (time.time_ns() - job.updated_ns) / 1e9
            if not follow or (job.state.terminal and over_s > SETTLE_S):
                return
            time.sleep(FOLLOW_S)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    finally:
        reader.close()
        store.close()


def _say_unread(error: StoreUnavailable) -> None:
    typer.echo(f"note: the store cannot be read, only the centre speaks: {error.message}", err=True)
