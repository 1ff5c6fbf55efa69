"""`fleetmark grafana`: dashboards, alert rules and datasource, to files or to a server."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetmark_collector.cli.common import ConfigOption, settings_from
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.extras import needed

if TYPE_CHECKING:
    from pydantic import SecretStr

    from fleetmark_collector.config import CollectorSettings
    from fleetmark_collector.grafana.datasource import Source
    from fleetmark_collector.grafana.push import Outcome

MAX_SHOWN = 5
"""Differences of one thing that a dry run lists."""


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(
        name="grafana",
        help="Dashboards, alert rules and datasource for Grafana: as files, or pushed to a server.",
        no_args_is_help=True,
    )
    group.command()(render)
    group.command()(push)
    app.add_typer(group)


def render(
    directory: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="Where the files are written.")
    ] = Path("deploy/grafana"),
    check: Annotated[
        bool,
        typer.Option("--check", help="Write nothing; exit with 1 if a file is not up to date."),
    ] = False,
    dashboards_at: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Where Grafana will find the dashboards' files."),
    ] = None,
    token_at: Annotated[
        str | None, typer.Option(metavar="FILE", help="Where Grafana will find InfluxDB's token.")
    ] = None,
    ca_at: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Where Grafana will find the CA of InfluxDB's certificate; '' for none.",
        ),
    ] = None,
) -> None:
    """Write the files that a Grafana reads at its start.

    Without --dashboards-at, --token-at and --ca-at they fit deploy/compose.yaml.
    """
    with needed("grafana"):
        from fleetmark_collector.grafana.render import Places, stale, write
    given = {"dashboards": dashboards_at, "token": token_at, "ca": ca_at}
    places = replace(Places(), **{key: at for key, at in given.items() if at is not None})
    changed = stale(directory, places) if check else write(directory, places)
    for path in changed:
        typer.echo(f"{'stale' if check else 'wrote'} {directory / path}")
    if not changed:
        typer.echo(f"{directory} is up to date")
    if changed and check:
        raise typer.Exit(1)


def push(
    url: Annotated[
        str, typer.Option(metavar="URL", help="Grafana's address, such as http://127.0.0.1:3000.")
    ],
    token_file: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="File with the token of a service account (role Admin), alone."
        ),
    ],
    ca_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The CA of Grafana's certificate, if unknown here."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would change, and where.")
    ] = False,
    no_datasource: Annotated[
        bool, typer.Option("--no-datasource", help="Leave Grafana's datasource as it is.")
    ] = False,
    influxdb_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="InfluxDB's address as Grafana reaches it (default: store.url)."
        ),
    ] = None,
    influxdb_database: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Its database (default: that of store.bucket)."),
    ] = None,
    influxdb_token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with a token that may only read (default: the collector's own).",
        ),
    ] = None,
    influxdb_username: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="InfluxDB 1.x, if it asks (default: store.username)."),
    ] = None,
    influxdb_password_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File with the password alone; goes with the username."),
    ] = None,
    influxdb_ca_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The CA of InfluxDB's certificate (default: store.ca_file)."
        ),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Bring a Grafana up to date: folders, datasource, dashboards, alert rules.

    May be run again at any time: it makes what is missing, mends what differs and leaves the rest
    alone. What somebody changed in Grafana on these dashboards is overwritten; save a copy first.
    """
    with needed("grafana"):
        from fleetmark_collector.grafana.api import Grafana
        from fleetmark_collector.grafana.push import check_datasource
        from fleetmark_collector.grafana.push import push as push_all
    settings = settings_from(config, None)
    source = None
    if not no_datasource:
        source = _source(
            settings,
            influxdb_url,
            influxdb_database,
            influxdb_token_file,
            influxdb_username,
            influxdb_password_file,
            influxdb_ca_file,
        )
    grafana = Grafana(url, _secret("--token-file", token_file), ca_file)
    version = grafana.check()
    typer.echo(f"Grafana {version or '(of a version it does not tell)'} at {grafana.url}")
    for outcome in push_all(grafana, source, dry_run=dry_run):
        _tell(outcome, dry_run)
    if source is not None and not dry_run:
        check_datasource(grafana)


def _tell(outcome: "Outcome", dry_run: bool) -> None:
    did: str = outcome.did
    if dry_run and did != "unchanged":
        did = f"would be {did}"
    typer.echo(f"{outcome.kind} {outcome.name}: {did}")
    if dry_run:
        for path in outcome.differences[:MAX_SHOWN]:
            typer.echo(f"  {path}")
        if len(outcome.differences) > MAX_SHOWN:
            typer.echo(f"  and {len(outcome.differences) - MAX_SHOWN} more")


def _source(
    settings: "CollectorSettings",
    url: str | None,
    database: str | None,
    token_file: Path | None,
    username: str | None,
    password_file: Path | None,
    ca_file: Path | None,
) -> "Source":
    """Return the datasource: what the command says, and for the rest what `[store]` says.

    Raises:
        ConfigError: neither says where InfluxDB is, a file cannot be read, or options do not fit.
    """
    from pydantic import SecretStr

    from fleetmark_collector.grafana.datasource import Source

    if token_file is not None and username is not None:
        raise ConfigError("--influxdb-token-file or --influxdb-username, not both")
    if (username is None) != (password_file is None):
        raise ConfigError("--influxdb-username and --influxdb-password-file go together")
    store = settings.store.influxdb() if settings.store.kind == "influxdb" else None
    if store is None and (url is None or database is None):
        raise ConfigError(
            "the settings name no InfluxDB for Grafana to ask",
            hint="--config with [store] kind = 'influxdb', or --influxdb-url and "
            "--influxdb-database, or --no-datasource",
        )
    found = (
        Source(url or store.url, database or store.database)
        if store
        else Source(url or "", database or "")
    )
    if store is not None and store.retention_policy:
        typer.echo(
            f"note: Grafana asks the database's default retention policy; is that "
            f"{store.retention_policy}?",
            err=True,
        )
    if token_file is not None:
        found = replace(found, token=_secret("--influxdb-token-file", token_file))
    elif username is not None and password_file is not None:
        password = _secret("--influxdb-password-file", password_file)
        found = replace(found, username=username, password=password)
    elif store is not None and (store.token or store.password):
        typer.echo("note: Grafana gets the collector's own credentials, which may write", err=True)
        found = replace(
            found, token=store.token, username=store.username or "", password=store.password
        )
    ca = ca_file or (store.ca_file if store else None)
    if ca is not None:
        found = replace(found, ca=SecretStr(_read("--influxdb-ca-file", ca)))
    return found


def _secret(option: str, file: Path) -> "SecretStr":
    from fleetmark_protocol.secretfile import read_secret

    return read_secret(option, file)


def _read(option: str, file: Path) -> str:
    try:
        text = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{option}: {error}") from error
    if not text:
        raise ConfigError(f"{option}: {file} is empty")
    return text
