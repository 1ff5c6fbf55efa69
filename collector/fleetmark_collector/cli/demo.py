"""`fleetmark demo`: a two-agent fleet on this machine, a small campaign, a report."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    directory: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="Where everything of the demo is kept.")
    ] = Path("fleetmark-demo"),
    backends: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Engines to compare, with commas between them; installed: all that are here.",
        ),
    ] = "installed",
    mosquitto: Annotated[
        bool, typer.Option(help="Use Mosquitto, if installed, instead of the embedded broker.")
    ] = False,
) -> None:
    """Run a small campaign over a two-agent fleet on this machine, and show the report.

    Broker, collector and agents are separate processes on loopback, as in a deployment. The two
    agents, pi-sim and ec2-sim, are both this machine: their figures show the method, not a
    Raspberry Pi. The first run downloads a 93 MB model. Ctrl-C stops everything and keeps the data.
    It compares every engine that is installed, and says which are not and why.
    """
    from fleetmark_collector.cli.common import console
    from fleetmark_collector.demo.fleet import Demo

    story = Demo(
        directory.expanduser().absolute(), console(), mosquitto=mosquitto, backends=backends
    )
    raise typer.Exit(story.run())
