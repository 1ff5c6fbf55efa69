"""The `fleetmark` command: joins the groups, and turns errors into messages and exit codes."""

import importlib
import importlib.util
import sys
from typing import Annotated

import typer

from fleetmark_protocol.errors import ConfigError, FleetmarkError
from fleetmark_protocol.version import __version__

GROUPS = (
    "broker",
    "enroll",
    "fleet",
    "collect",
    "devices",
    "campaign",
    "schedule",
    "job",
    "report",
    "store",
    "backup",
    "grafana",
    "doctor",
    "simulate",
    "demo",
)
"""Modules of this package, in the order `--help` lists them; each has `register(app)`."""


def build() -> typer.Typer:
    """Return the command with all its groups."""
    app = typer.Typer(
        name="fleetmark",
        help="Measure LLM inference on a fleet of devices: collect, run campaigns, compare.",
        no_args_is_help=True,
        # Plain help starts several times faster, and what it prints can be copied.
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    for group in GROUPS:
        name = f"fleetmark_collector.cli.{group}"
        if importlib.util.find_spec(name) is not None:
            importlib.import_module(name).register(app)
    return app


def main() -> None:
    """Run the command and exit: 0 done, 1 failed, 2 wrong input, 130 interrupted."""
    try:
        # Typer itself sees to usage errors (2), Ctrl-C (130) and a reader that hung up.
        build()()
    except FleetmarkError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fleetmark {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    # No docstring: it would replace the command's own help.
    del version
