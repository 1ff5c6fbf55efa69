"""`fleetmark-agent`: composes the commands of a device and turns errors into messages."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fleetmark_agent.cli import doctor, model, simulate, status
from fleetmark_agent.cli.options import ConfigOption, settings_from
from fleetmark_protocol.errors import ConfigError, FleetmarkError
from fleetmark_protocol.version import __version__

app = typer.Typer(
    name="fleetmark-agent",
    help="Measure LLM inference on this device and deliver the results over MQTT.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(model.app, name="model")
app.command("doctor")(doctor.doctor)
app.command("status")(status.status)
app.command("reload")(status.reload)
app.command("simulate", hidden=True)(simulate.simulate)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"fleetmark-agent {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Say the version."),
    ] = False,
) -> None:
    """Measure LLM inference on this device and deliver the results over MQTT."""


@app.command()
def run(
    config: ConfigOption = None,
    device_id: Annotated[
        str | None, typer.Option(help="This device's name in the fleet. Default: its host name.")
    ] = None,
    fleet: Annotated[str | None, typer.Option(help="The fleet it belongs to.")] = None,
    broker_host: Annotated[str | None, typer.Option(help="Where the MQTT broker is.")] = None,
    broker_port: Annotated[int | None, typer.Option(help="The broker's port.")] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="Where the outbox, models and logs are kept.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Run the agent until it is told to stop (SIGTERM, Ctrl-C).

    It samples the device, waits for jobs, and keeps what the broker does not take. SIGHUP makes it
    read its settings again.
    """
    from fleetmark_agent.service import run_agent
    from fleetmark_protocol import logs

    flags = {
        "device_id": device_id,
        "fleet": fleet,
        "broker": {"host": broker_host, "port": broker_port},
        "state_dir": state_dir,
        "log_level": log_level,
    }
    settings = settings_from(config, flags)
    logs.configure(settings.log_level, settings.log_format)
    logs.log_uncaught()
    run_agent(settings, lambda: settings_from(config, flags))


def main() -> None:
    """Run the command line; exit 0 done, 1 the run failed, 2 the input is wrong."""
    try:
        app()
    except ConfigError as error:
        _fail(error, 2)
    except FleetmarkError as error:
        _fail(error, 1)
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(error: FleetmarkError, code: int) -> None:
    typer.echo(f"fleetmark-agent: {error}", err=True)
    sys.exit(code)
