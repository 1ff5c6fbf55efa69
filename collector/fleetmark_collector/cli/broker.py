"""`fleetmark broker`: the post office between agents and collector."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetmark_collector.cli.common import ConfigOption, DataDirOption, settings_from

if TYPE_CHECKING:
    from fleetmark_collector.broker import BrokerOptions
    from fleetmark_collector.config import CollectorSettings


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
    certificates_port: Annotated[
        int,
        typer.Option(
            min=1,
            max=65535,
            metavar="PORT",
            help="Port for devices with a certificate, once `fleetmark enroll` has made some.",
        ),
    ] = 8884,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Run an MQTT broker for agents and collector, until Ctrl-C.

    Where `fleetmark enroll` has let somebody in, it listens on the network, with TLS, and lets in
    nobody else; else on this machine alone.

    It is Mosquitto with fleetmark's configuration where Mosquitto is installed (apt install
    mosquitto), else an embedded broker in pure Python, good for a few devices on one machine. The
    first line says which. A broker you run already will do as well: then you don't need this
    command.
    """
    from fleetmark_collector import broker as brokers
    from fleetmark_collector.enrolment.directories import broker_directory

    settings = settings_from(config, data_dir)
    enrolled = broker_directory(settings.data_dir)
    if enrolled and not embedded and password_file is None:
        options = _for_enrolled(settings, enrolled, host, port, certificates_port)
        _become_mosquitto(options)
        return
    options = brokers.BrokerOptions(
        host=host or settings.broker.host,
        port=port or settings.broker.port,
        data_dir=settings.data_dir,
        password_file=password_file,
        acl_file=acl_file,
        cert_file=cert_file,
        key_file=key_file,
    )
    if embedded or brokers.find_mosquitto() is None:
        _embedded(options, chosen=embedded)
        return
    _become_mosquitto(options)


def _for_enrolled(
    settings: "CollectorSettings", directory: Path, host: str | None, port: int | None, second: int
) -> "BrokerOptions":
    """Return how to serve those whom `fleetmark enroll` has let in; who has ended is out first."""
    from fleetmark_collector.broker import BrokerOptions
    from fleetmark_collector.enrolment.enrolling import Enrolment
    from fleetmark_collector.enrolment.running import PID_FILE
    from fleetmark_protocol.settings import TLS_PORT

    enrolment = Enrolment.open(
        settings.data_dir, directory, lambda text: typer.echo(text, err=True)
    )
    enrolment.prepare()
    if gone := enrolment.expired():
        enrolment.revoke(gone)
        typer.echo(f"ended, and let in no more: {', '.join(gone)}", err=True)
    path = enrolment.keep.path
    return BrokerOptions(
        host=host or "",
        port=port or TLS_PORT,
        data_dir=settings.data_dir,
        password_file=path("broker/passwords"),
        acl_file=path("broker/acl"),
        cert_file=path("broker/server.crt"),
        key_file=path("broker/server.key"),
        ca_file=path("broker/ca.crt"),
        revoked_file=path("broker/revoked.crl"),
        certificates_port=second,
        pid_file=path(PID_FILE),
    )


def _become_mosquitto(options: "BrokerOptions") -> None:
    from fleetmark_collector import broker as brokers
    from fleetmark_protocol.errors import BrokerFailed

    mosquitto = brokers.find_mosquitto()
    if mosquitto is None:
        raise BrokerFailed(
            "there is no mosquitto here, and no other broker of ours knows passwords and TLS",
            hint="apt install mosquitto",
        )
    brokers.check(options)
    where = f"{options.host or 'all addresses'}:{options.port}"
    if options.certificates_port is not None:
        where += f" (TLS, passwords) and :{options.certificates_port} (TLS, client certificates)"
    typer.echo(f"mosquitto {mosquitto.version} on {where}; Ctrl-C stops it")
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
