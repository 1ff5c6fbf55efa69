"""`fleetmark backup` and `fleetmark restore`: what the collector keeps, copied and put back."""

from pathlib import Path
from typing import Annotated

import typer

from fleetmark_collector.cli.common import ConfigOption, DataDirOption, settings_from


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(backup)
    app.command()(restore)


def backup(
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="A new or empty directory.", show_default=False),
    ],
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Copy devices, campaigns, jobs and the embedded store, while the collector runs.

    An InfluxDB is backed up with its own tools; docs/operate.md says how. Passwords are no part of
    this.
    """
    from fleetmark_collector.backup import back_up, describe

    manifest = back_up(settings_from(config, data_dir), directory.expanduser().absolute())
    typer.echo(f"{directory}: {describe(manifest)}")


def restore(
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="What `fleetmark backup` has made.", show_default=False),
    ],
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Put a backup back, while no collector runs; what it replaces is kept beside it."""
    from fleetmark_collector.backup import describe
    from fleetmark_collector.backup import restore as put_back

    settings = settings_from(config, data_dir)
    restored = put_back(settings, directory.expanduser().absolute())
    typer.echo(f"{settings.data_dir}: restored what was {describe(restored.manifest)}")
    if restored.kept is not None:
        typer.echo(f"what was there before is in {restored.kept}; delete it when all is well")
