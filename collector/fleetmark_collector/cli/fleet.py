"""`fleetmark fleet install`: the agent onto many devices over ssh, each with its identity."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetmark_collector.cli.common import (
    ConfigOption,
    DataDirOption,
    JsonOption,
    print_json,
    settings_from,
)

if TYPE_CHECKING:
    from fleetmark_collector.enrolment.enrolling import Wish
    from fleetmark_collector.fleet.kits import Kits

app = typer.Typer(
    name="fleet",
    help="Look after many devices at once.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(parent: typer.Typer) -> None:
    """Add the group to the command."""
    parent.add_typer(app)


@app.callback()
def _group() -> None:
    # With it one command alone is still a group's.
    pass


@app.command()
def install(
    hosts: Annotated[
        list[str],
        typer.Argument(
            metavar="HOSTS...",
            help="Destinations of ssh (pi@10.0.0.5, a name, ssh://user@host:port), or @FILE with "
            "one a line: destination, then if wanted the device id, then tags joined by commas.",
            show_default=False,
        ),
    ],
    package: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="What to install: a .deb of `make deb`; once for each architecture. Without it "
            "devices that have the agent get their identity alone.",
        ),
    ] = None,
    kits: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Take identities from here, DIR/DEVICE each as `fleetmark enroll` made it, in the "
            "place of enrolling.",
        ),
    ] = None,
    password: Annotated[
        bool,
        typer.Option("--password", help="Enroll by passwords, in the place of certificates."),
    ] = False,
    days: Annotated[
        int, typer.Option(min=1, max=3650, metavar="N", help="A new identity ends in so many days.")
    ] = 365,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name or address that devices reach the broker by; needed where no device has "
            "been enrolled yet.",
        ),
    ] = None,
    fleet: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The only fleet that devices enrolled now may speak in."),
    ] = None,
    at_once: Annotated[
        int, typer.Option("--jobs", "-j", min=1, max=64, help="Devices at a time.")
    ] = 8,
    wait_s: Annotated[
        int,
        typer.Option(
            "--wait",
            min=0,
            max=3600,
            help="Seconds a device may take to be online; 0: do not wait.",
        ),
    ] = 60,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Look at the devices and say what would be done.")
    ] = False,
    ssh_config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Configuration of ssh, in the place of yours."),
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Install the agent on devices, and wait until each is online as itself.

    Safe to run again: what is done is left out, settings that somebody has made stay. One that
    fails holds up none of the others. It needs a key that the devices take, and root there, or sudo
    without a password. Exit codes: 0 all are online, 1 some are not, 2 wrong input.
    """
    import asyncio

    from fleetmark_collector.cli.fleet_output import outcome_json, print_outcomes, watching
    from fleetmark_collector.enrolment.enrolling import Wish
    from fleetmark_collector.fleet.hosts import read_targets
    from fleetmark_collector.fleet.install import Installer
    from fleetmark_collector.fleet.plan import read_packages
    from fleetmark_collector.fleet.remote import find_ssh

    targets = read_targets(hosts)
    packages = read_packages(package or ())
    ssh = find_ssh(ssh_config)
    source = _kits(
        kits,
        config,
        data_dir,
        Wish(kind="password" if password else "certificate", days=days, host=host, fleet=fleet),
    )
    with watching(len(targets)) as watcher:
        installer = Installer(ssh, source, packages, watcher, at_once=at_once, wait_s=wait_s)
        outcomes = asyncio.run(installer.install(targets, dry_run=dry_run))
    if as_json:
        print_json([outcome_json(one) for one in outcomes])
    else:
        print_outcomes(outcomes)
    if any(one.state == "failed" for one in outcomes):
        raise typer.Exit(1)


def _kits(
    directory: Path | None, config: Path | None, data_dir: Path | None, wish: "Wish"
) -> "Kits":
    from datetime import UTC, datetime

    from fleetmark_collector.enrolment.enrolling import Enrolment
    from fleetmark_collector.fleet.enrolled import EnrolledKits
    from fleetmark_collector.fleet.kits import KitDirectory
    from fleetmark_protocol.errors import ConfigError

    if directory is None:
        settings = settings_from(config, data_dir)
        return EnrolledKits(Enrolment.open(settings.data_dir), wish, datetime.now(UTC))
    if not directory.is_dir():
        raise ConfigError(f"--kits: {directory} is no directory")
    return KitDirectory(directory)
