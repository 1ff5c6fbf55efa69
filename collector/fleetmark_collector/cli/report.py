"""`fleetmark report`: a campaign's figures in the terminal or in files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetmark_collector.cli.common import ConfigOption, DataDirOption, console, settings_from
from fleetmark_collector.cli.completion import complete_campaign

if TYPE_CHECKING:
    from fleetmark_collector.config import CollectorSettings
    from fleetmark_collector.report.jobs import PlannedJob

TERMINAL_COLUMNS = 100
"""What the tables are made for; taken where no terminal says how wide it is."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(report)


def report(
    campaign: Annotated[
        str | None,
        typer.Argument(
            metavar="[CAMPAIGN]",
            help="The campaign's id (`fleetmark campaign list` lists them); left out, the one "
            "begun last.",
            autocompletion=complete_campaign,
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a page with plots that opens in any browser, without a network.",
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write every trial with all its fields, one a row."),
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write medians, intervals and comparisons as JSON."),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="CELL",
            help="What to compare with: a part of one cell's name that no other has, such as "
            "pi-1/xllamacpp/smollm2/Q8_0. Default: the one that most can be compared with.",
        ),
    ] = None,
    confidence: Annotated[
        float, typer.Option(metavar="SHARE", help="Of the intervals, between 0.5 and 0.999.")
    ] = 0.95,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Compare the cells of a campaign: medians, intervals, speed-ups, what was left out and why.

    Without --html, --csv or --json it prints tables. FILE may be - for standard output. Works
    while the campaign is running, too, and then says how much of it is there.
    """
    from fleetmark_collector.report.build import build_report
    from fleetmark_collector.report.export import STDOUT, write_csv, write_json
    from fleetmark_collector.report.html import write_html
    from fleetmark_collector.report.tables import render_terminal
    from fleetmark_collector.sinks.stores import open_reader
    from fleetmark_protocol.errors import ConfigError

    outputs = [
        (path, write)
        for path, write in ((html, write_html), (csv, write_csv), (json, write_json))
        if path is not None
    ]
    if sum(path == STDOUT for path, _ in outputs) > 1:
        raise ConfigError("only one of --html, --csv and --json can go to standard output")
    settings = settings_from(config, data_dir)
    known, campaign_id, plan = _planned(settings, campaign)
    reader = open_reader(settings)
    try:
        made = build_report(
            reader,
            campaign_id,
            baseline=baseline,
            confidence=confidence,
            machine_ids=_machines(settings),
            plan=plan,
            known_campaigns=known,
        )
    finally:
        reader.close()
    for path, write in outputs:
        write(made, path)
        if path != STDOUT:
            typer.echo(f"wrote {path}", err=True)
    if not outputs:
        out = console()
        if not out.is_terminal:
            out.width = max(out.width, TERMINAL_COLUMNS)
        render_terminal(made, out)


def _planned(
    settings: "CollectorSettings", campaign: str | None
) -> "tuple[list[str], str, list[PlannedJob]]":
    """Return all known campaigns, the wanted one's id, and its jobs in the order of the plan.

    Raises:
        ConfigError: none is named, and there is none.
    """
    from fleetmark_collector.campaigns.state import CampaignStore
    from fleetmark_collector.report.jobs import PlannedJob
    from fleetmark_protocol.errors import ConfigError

    known: list[str] = []
    plan: list[PlannedJob] = []
    # Looking at a report makes no files: the wrong directory must not become a data directory.
    if settings.state_file.exists():
        store = CampaignStore(settings.state_file)
        try:
            known = [row.campaign_id for row in store.campaigns()]
            campaign = campaign or (known[-1] if known else None)
            plan = [
                PlannedJob(row.fleet, row.device, store.spec(row.job_id), row.state, row.failure)
                for row in (store.jobs(campaign) if campaign else ())
            ]
        finally:
            store.close()
    if campaign is None:
        raise ConfigError(
            f"no campaign in {settings.data_dir} yet",
            hint="`fleetmark campaign run FILE` starts one; is this the right --data-dir?",
        )
    return known, campaign, plan


def _machines(settings: "CollectorSettings") -> dict[tuple[str, str], str]:
    """Return which machine each device runs on, where its inventory tells."""
    from fleetmark_collector.devices import DeviceRegistry

    registry = DeviceRegistry(settings.state_file)
    try:
        return {
            (device.fleet, device.device): device.inventory.hardware.machine_id
            for device in registry.list()
            if device.inventory is not None and device.inventory.hardware.machine_id is not None
        }
    finally:
        registry.close()
