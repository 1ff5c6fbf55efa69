"""`fleetmark store`: prepares the store, says what is wrong with it, copies one into another."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from fleetmark_collector.cli.common import (
    ConfigOption,
    DataDirOption,
    JsonOption,
    console,
    print_finding,
    print_json,
    settings_from,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from fleetmark_collector.config import CollectorSettings
    from fleetmark_collector.sinks.base import Writer
    from fleetmark_collector.sinks.copying import Copied, Parts

FOR_EVER = "forever"
_RETENTION = re.compile(r"([1-9]\d{0,4})([hdw])")
_UNIT_S = {"h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}

STEP = 0.1
"""Without a terminal, progress is told each time it has grown by this share."""


class Kind(StrEnum):
    """The stores there are."""

    SQLITE = "sqlite"
    INFLUXDB = "influxdb"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        help="Prepare the store that the settings name, check it, copy one into another.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command()(init)
    group.command()(check)
    group.command()(copy)
    app.add_typer(group, name="store")


def init(
    retention: Annotated[
        str | None,
        typer.Option(
            "--retention",
            metavar="TIME",
            help="How long records are kept, such as 90d, 52w or 12h, or `forever`. Without it a "
            "new database keeps them for ever, and one that is there stays as it is.",
        ),
    ] = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Make what the store needs: database or bucket, retention, the mapping for InfluxQL.

    What is there already is left as it is, so it may be run again at any time. A retention that is
    shortened makes the server drop what is older.
    """
    from fleetmark_collector.sinks.stores import prepare

    settings = settings_from(config, data_dir)
    for line in prepare(settings, _retention_s(retention)):
        typer.echo(line)


def check(
    as_json: JsonOption = False, config: ConfigOption = None, data_dir: DataDirOption = None
) -> None:
    """Say whether the store can be written and read, and what to do where it cannot.

    In InfluxDB it writes one point of its own (measurement fleetmark_probe) and reads it back.
    Exit code 0 when all is well (warnings included), 1 when something is missing.
    """
    from dataclasses import asdict

    from fleetmark_collector.findings import Finding
    from fleetmark_collector.sinks.stores import examine
    from fleetmark_protocol import logs

    settings = settings_from(config, data_dir)
    # What the checks find is printed below; what they log on the way would only repeat it.
    logs.configure("error", settings.log_format)
    found: list[Finding] = []
    for finding in examine(settings):
        found.append(finding)
        if not as_json:
            print_finding(console(), finding)
    if as_json:
        print_json([asdict(finding) for finding in found])
    raise typer.Exit(1 if any(finding.level == "missing" for finding in found) else 0)


def copy(
    source: Annotated[Kind, typer.Argument(help="Where records are copied from.")],
    target: Annotated[Kind, typer.Argument(help="Where they are copied to.")],
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Copy all records of the embedded store into InfluxDB, or back.

    The settings must name the InfluxDB store (kind = "influxdb", url, bucket). It may be stopped
    at any moment (Ctrl-C) and goes on from there when it is started again; records that are there
    already are not doubled. At the end the numbers of records are compared. Exit code 0 when the
    target has all of them, 1 when it has not.
    """
    from fleetmark_collector.sinks.copying import Positions
    from fleetmark_collector.sinks.copying import copy as run
    from fleetmark_protocol.errors import ConfigError

    settings = settings_from(config, data_dir)
    if source is target:
        raise ConfigError("the source and the target are the same store")
    if settings.store.kind != "influxdb":
        raise ConfigError(
            "the settings name no InfluxDB",
            hint='they need [store] with kind = "influxdb", url and bucket (--config)',
        )
    where = f"{settings.store.url} {settings.store.bucket}"
    positions = Positions(
        settings.data_dir / f"copy-{source}-{target}.json", f"{source} {target} {where}"
    )
    with _opened(settings, target) as (origin, there, writer), _progress() as tell:
        try:
            done = run(origin, there, writer, positions, tell)
        except KeyboardInterrupt:
            typer.echo("stopped; the same command goes on from here", err=True)
            raise
    raise typer.Exit(0 if _print_result(done, target) else 1)


@contextmanager
def _opened(settings: "CollectorSettings", target: Kind) -> "Iterator[tuple[Parts, Parts, Writer]]":
    """Open the stores: what is read from, what is counted in, and what is written to."""
    from contextlib import ExitStack, closing

    from fleetmark_collector.sinks.influxdb.lines import Lines
    from fleetmark_collector.sinks.influxdb.parts import InfluxParts
    from fleetmark_collector.sinks.influxdb.series import SeriesBudget
    from fleetmark_collector.sinks.influxdb.writing import InfluxSink
    from fleetmark_collector.sinks.sqlite import SqliteSink
    from fleetmark_collector.sinks.sqlite_parts import SqliteParts

    with ExitStack() as opened:
        influxdb = opened.enter_context(closing(InfluxParts(settings.store.influxdb())))
        writer: Writer
        if target is Kind.SQLITE:
            writer = SqliteSink(settings.store_file)
        else:
            # What is in a store of ours was let in before: no device is behind it.
            trusted = Lines(SeriesBudget(limit=None))
            sink = writer = InfluxSink(settings.store.influxdb(), trusted)
        opened.enter_context(closing(writer))
        sqlite = opened.enter_context(closing(SqliteParts(settings.store_file)))
        if target is Kind.SQLITE:
            yield influxdb, sqlite, writer
        else:
            sink.connect()
            yield sqlite, influxdb, writer


@contextmanager
def _progress() -> "Iterator[Callable[[Copied], None]]":
    """Yield what shows how a copy stands: a bar on a terminal, a line now and then elsewhere."""
    out = console()
    if not out.is_terminal:
        yield _lines()
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("records"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=out) as bar:
        task = bar.add_task("copying")
        yield lambda state: bar.update(
            task, description=state.kind or "comparing", total=state.total, completed=state.done
        )


def _lines() -> "Callable[[Copied], None]":
    told = -1.0

    def tell(state: "Copied") -> None:
        nonlocal told
        share = state.done / state.total if state.total else 1.0
        if share >= told + STEP or (not state.kind and told < 1):
            told = share
            typer.echo(f"{state.done} of {state.total} records ({share:.0%})")

    return tell


def _print_result(done: "Copied", target: Kind) -> bool:
    """Say how a copy went; return whether the target has all."""
    for text in done.refusals:
        typer.echo(f"refused: {text}", err=True)
    if done.refused:
        typer.echo(f"{done.refused} records can never be written to {target}", err=True)
    for part, lacking in done.missing:
        typer.echo(
            f"missing: {lacking} of {part.records} {part.kind} records of "
            f"{part.fleet}/{part.device}",
            err=True,
        )
    if done.missing:
        typer.echo(
            "records of one device, kind and time take each other's place in InfluxDB; otherwise "
            "run it again: it begins anew and doubles nothing",
            err=True,
        )
    if done.complete:
        typer.echo(f"all {done.total} records are in {target}; the numbers were compared")
    return done.complete


def _retention_s(text: str | None) -> int | None:
    """Return a retention in seconds, 0 for ever, None where nothing is said.

    Raises:
        ConfigError: it is no such time.
    """
    from fleetmark_protocol.errors import ConfigError

    if text is None:
        return None
    if text == FOR_EVER:
        return 0
    match = _RETENTION.fullmatch(text)
    if match is None:
        raise ConfigError(f"--retention: {text!r} is no time such as 90d, 52w, 12h or {FOR_EVER}")
    return int(match[1]) * _UNIT_S[match[2]]
