"""`fleetmark collect`: the collector itself."""

from typing import Annotated

import typer

from fleetmark_collector.cli.common import ConfigOption, DataDirOption, settings_from


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(collect)


def collect(
    broker_host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="The broker (default: broker.host).")
    ] = None,
    broker_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, metavar="PORT", help="Its port (default: broker.port)."),
    ] = None,
    http_listen: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS:PORT",
            help="Where to answer /healthz and /metrics (default: http.listen, which is "
            "127.0.0.1:9108); an empty text for nowhere.",
        ),
    ] = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Collect from the whole fleet and dispatch campaigns, until Ctrl-C.

    Writes what the agents send to the store, tells them what is safely written, and gives them
    the jobs of the campaigns that `fleetmark campaign run` puts in the same data directory. A
    broker that is down is waited for. A second collector on the same data directory waits, and
    takes over when the first ends or hangs.
    """
    from fleetmark_collector.service import run_collector
    from fleetmark_protocol import logs

    settings = settings_from(
        config,
        data_dir,
        broker={"host": broker_host, "port": broker_port},
        http={"listen": http_listen},
    )
    logs.log_uncaught()
    run_collector(settings)
