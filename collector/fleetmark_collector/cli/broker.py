"""`fleetmark broker`: the post office between agents and collector."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetmark_collector.cli.common import ConfigOption, DataDirOption, settings_from

if TYPE_CHECKING:
    from fleetmark_collector.broker import BrokerOptions


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(broker)


def broker(
    host: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Address to listen on (default: broker.host)."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, metavar="PORT", help="Port to listen on (default: broker.port, 1883)."
        ),
    ] = None,
    embedded: Annotated[
        bool,
        typer.Option(
            "--embedded", help="Use the pure-Python broker even where Mosquitto is installed."
        ),
    ] = False,
    password_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Users and their hashed passwords, made with mosquitto_passwd; needed to listen "
            "on anything but this machine's own loopback address. A device's user is its device "
            "id, the collector's is fleetmark-collector.",
        ),
    ] = None,
    acl_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Mosquitto ACL: who may read and write which topics (default, where there are "
            "passwords: each device its own).",
        ),
    ] = None,
    cert_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The server's certificate; turns TLS on.")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The certificate's private key.")
    ] = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Run an MQTT broker for agents and collector, until Ctrl-C.

    It is Mosquitto with fleetmark's configuration where Mosquitto is installed (apt install
    mosquitto), else an embedded broker in pure Python, good for a few devices on one machine. The
    first line says which. A broker you run already will do as well: then you don't need this
    command.
    """
    from fleetmark_collector import broker as brokers
    from fleetmark_protocol.settings import is_loopback

    settings = settings_from(config, data_dir)
    options = brokers.BrokerOptions(
        host=host or settings.broker.host,
        port=port or settings.broker.port,
        data_dir=settings.data_dir,
        password_file=password_file,
        acl_file=acl_file,
        cert_file=cert_file,
        key_file=key_file,
    )
    mosquitto = None if embedded else brokers.find_mosquitto()
    if mosquitto is None:
        _embedded(options, chosen=embedded)
        return
    brokers.check(options)
    if not is_loopback(options.host) and options.cert_file is None:
        typer.echo("warning: without TLS, agents refuse to send their passwords", err=True)
    typer.echo(f"mosquitto {mosquitto.version} on {options.host}:{options.port}; Ctrl-C stops it")
    brokers.become_mosquitto(mosquitto, options)


def _embedded(options: "BrokerOptions", *, chosen: bool) -> None:
    from fleetmark_collector import broker as brokers
    from fleetmark_collector import broker_amqtt

    broker_amqtt.check_embedded(options)
    brokers.check(options)
    why = "" if chosen else " (no mosquitto here: `apt install mosquitto` for more than a demo)"
    typer.echo(
        f"embedded amqtt {broker_amqtt.version()} on {options.host}:{options.port}{why}; "
        "Ctrl-C stops it"
    )
    broker_amqtt.run_embedded(options)
