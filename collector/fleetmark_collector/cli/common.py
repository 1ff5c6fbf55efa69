"""What every command shares: the options for settings, the console, JSON output."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from fleetmark_collector.config import CollectorSettings
    from fleetmark_collector.findings import Finding

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        envvar="FLEETMARK_CONFIG",
        metavar="FILE",
        help="TOML file with the collector's settings; without it, defaults and FLEETMARK_... "
        "environment variables count.",
    ),
]
"""Type of a command's `config` parameter; its default is None."""

DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        "-d",
        metavar="DIR",
        help="Where the collector keeps store, devices and campaigns "
        "(default: ~/.local/share/fleetmark).",
    ),
]
"""Type of a command's `data_dir` parameter; its default is None."""

_OBEYED = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""C1 controls and what turns the direction of writing; JSON itself escapes the C0 controls."""

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
"""Type of a command's `as_json` parameter; its default is False."""


def settings_from(
    config: Path | None, data_dir: Path | None, **flags: object
) -> "CollectorSettings":
    """Return the settings a command runs with, and set logging up as they say.

    Args:
        config: the TOML file, if one was named.
        data_dir: the directory, if one was named on the command line.
        flags: more settings from the command line, nested by table; None counts as not given.

    Raises:
        ConfigError: the file or a value is wrong.
    """
    from fleetmark_collector.config import load_settings
    from fleetmark_collector.enrolment.directories import collector_settings
    from fleetmark_protocol import logs

    # The directory as an absolute path: messages that name it must make sense elsewhere too.
    given = None if data_dir is None else data_dir.expanduser().absolute()
    settings = load_settings(config, {"data_dir": given, **flags})
    if config is None and (made := collector_settings(settings.data_dir)):
        settings = load_settings(made, {"data_dir": given, **flags})
    logs.configure(settings.log_level, settings.log_format)
    return settings


def console() -> "Console":
    """Return the console that results go to (standard output; logs go to standard error).

    What devices say goes through it, so it lets nothing through that a terminal would obey.
    """
    from fleetmark_collector.cli.harmless import HarmlessConsole

    return HarmlessConsole()


def print_finding(out: "Console", finding: "Finding") -> None:
    """Print what a check found, and under it what to do."""
    from rich.text import Text

    styles = {"ok": "green", "warn": "yellow", "missing": "red"}
    level = Text(f"{finding.level:<8}", style=styles[finding.level])
    out.print(Text.assemble(level, f"{finding.name:<16}", finding.text), soft_wrap=True)
    if finding.todo:
        out.print(Text(f"{'':<24}-> {finding.todo}"), soft_wrap=True)


def print_json(obj: object) -> None:
    """Print plain JSON, whatever standard output is; paths and other objects become strings."""
    typer.echo(harmless_json(json.dumps(obj, indent=2, ensure_ascii=False, default=str)))


def harmless_json(text: str) -> str:
    """Return JSON without characters that a terminal might obey: JSON has escapes for them."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
