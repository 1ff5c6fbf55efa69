"""`fleetmark campaign retry|clone|export|delete`: what is done with campaigns that have ended."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetmark_collector.cli.campaign_common import (
    IdArgument,
    NeededIdArgument,
    begin,
    chosen_id,
    existing_store,
)
from fleetmark_collector.cli.campaign_output import say
from fleetmark_collector.cli.common import (
    ConfigOption,
    DataDirOption,
    JsonOption,
    console,
    print_json,
    settings_from,
)
from fleetmark_collector.cli.completion import complete_device, complete_tag
from fleetmark_protocol.errors import ConfigError

if TYPE_CHECKING:
    from fleetmark_protocol.jobs import JobState

STATES = ("failed", "timed_out", "canceled", "rejected")

StateOption = Annotated[
    list[str] | None,
    typer.Option(
        "--state",
        metavar="STATE",
        help="Only jobs that ended so: failed, timed_out, canceled, rejected (repeatable; all "
        "four without it).",
        autocompletion=lambda incomplete: [one for one in STATES if one.startswith(incomplete)],
    ),
]
DeviceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="Only on this device (repeatable).",
        autocompletion=complete_device,
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the group."""
    for command in (retry, clone, export, delete):
        app.command()(command)


def retry(
    campaign_id: IdArgument = None,
    state: StateOption = None,
    device: DeviceOption = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return at once; the campaign goes on.")
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Run again what went wrong in a campaign that has ended, as a campaign of its own.

    Same devices, same jobs, prompts included. What a retry runs already, or has run well, is
    left out. The first campaign stays as it is. Exit codes as of `run`.
    """
    from fleetmark_collector.campaigns.retry import RETRIED, start_retry
    from fleetmark_collector.devices import DeviceRegistry

    settings = settings_from(config, data_dir)
    states = [_state(one) for one in state] if state else RETRIED
    wanted = chosen_id(settings, campaign_id)
    registry, store = DeviceRegistry(settings.state_file), existing_store(settings)
    try:
        made = start_retry(store, wanted, registry.list(), states=states, devices=device or ())
    finally:
        store.close()
        registry.close()
    begin(settings, made, detach=detach, as_json=as_json)


def _state(text: str) -> "JobState":
    from fleetmark_protocol.jobs import JobState
    from fleetmark_protocol.settings import suggestion

    if text.lower() not in STATES:
        raise ConfigError(f"--state {text}: no such state{suggestion(text.lower(), [*STATES])}")
    return JobState(text.upper())


def clone(
    campaign_id: IdArgument = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write to a new file."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Another name for the campaign.")
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DEVICE",
            help="Target this device instead of the targets in the file (repeatable).",
            autocompletion=complete_device,
        ),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TAG",
            help="Target devices of this tag instead (repeatable).",
            autocompletion=complete_tag,
        ),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a key, such as workloads[0].repetitions=3; the value is YAML "
            "(repeatable).",
        ),
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Give the file of a campaign out again, to be run anew, with changes if wanted.

    Prompts that came from a file of their own are written into it. With changes, what comes out is
    checked as `validate` would.
    """
    from fleetmark_collector.campaigns.clone import checked, clone_text, read_change, write_new

    settings = settings_from(config, data_dir)
    wanted = chosen_id(settings, campaign_id)
    changes: list[tuple[str, object]] = [("name", name)] if name is not None else []
    if device or tag:
        targets = {"devices": device, "tags": tag}
        changes.append(("targets", {key: value for key, value in targets.items() if value}))
    changes += [read_change(one) for one in change or ()]
    store = existing_store(settings)
    try:
        text = clone_text(store, wanted, changes)
    finally:
        store.close()
    if changes:
        checked(text)
    if output is not None:
        write_new(output, text)
    if as_json:
        print_json({"campaign_id": wanted, "file": output, "text": text})
    elif output is None:
        typer.echo(text, nl=False)
    else:
        say(console(), f"wrote {output}: `fleetmark campaign run {output}` runs it")


def export(
    campaign_id: IdArgument = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="A new directory, or a new file that ends in .zip (default: the campaign's id in "
            "the current directory).",
        ),
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Write a campaign with all its records: plan, file and records, as JSON Lines."""
    from fleetmark_collector.campaigns.export import export_campaign
    from fleetmark_collector.sinks.stores import open_reader

    settings = settings_from(config, data_dir)
    wanted = chosen_id(settings, campaign_id)
    target = output if output is not None else Path(wanted)
    store, reader = existing_store(settings), open_reader(settings)
    try:
        counts = export_campaign(store, reader, wanted, target)
    finally:
        reader.close()
        store.close()
    if as_json:
        print_json({"campaign_id": wanted, "path": target, "lines": counts})
        return
    told = ", ".join(f"{count} {name.removesuffix('.jsonl')}" for name, count in counts.items())
    say(console(), f"wrote {target}: {told}")


def delete(
    campaign_id: NeededIdArgument,
    records: Annotated[
        bool,
        typer.Option("--records", help="Delete its trials, loads and job records in the store."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Forget a campaign that has ended: its file, its plan, its jobs and their history.

    What it measured stays in the store unless --records is given.
    """
    from fleetmark_collector.campaigns.removal import look_at, remove

    settings = settings_from(config, data_dir)
    existing_store(settings).close()
    found = look_at(settings, campaign_id)
    stays = "its records in the store go as well" if records else "its records in the store stay"
    what = (
        f"campaign {campaign_id} ({found.state}): its file, {found.jobs} jobs with their history, "
        f"{found.late_reports} late reports; {stays}"
    )
    if not yes:
        typer.confirm(f"Delete {what}?", abort=True, err=True)
    erased = remove(settings, campaign_id, records=records)
    if as_json:
        print_json({"campaign_id": campaign_id, "jobs": found.jobs, "records": erased or None})
        return
    out = console()
    say(out, f"Deleted {what}.")
    if erased:
        told = ", ".join(f"{count} {kind} records" for kind, count in erased.items())
        say(
            out,
            f"Deleted from the store: {told}. Events and telemetry stay: they are the devices'.",
        )
