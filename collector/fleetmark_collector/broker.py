"""`fleetmark broker`: Mosquitto with our configuration where it is installed, else amqtt."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from fleetmark_collector.enrolment.running import hold_pid_file
from fleetmark_protocol.errors import BrokerFailed, ConfigError
from fleetmark_protocol.messages import MAX_PAYLOAD_BYTES
from fleetmark_protocol.settings import is_loopback

TEMPLATE = Path(__file__).parent / "mosquitto" / "mosquitto.conf"
"""Our configuration, for generated files and for those who run Mosquitto as a service."""

ACL = TEMPLATE.with_name("acl")
"""Keeps each device to its own topics; used where passwords tell devices apart."""

_SBIN = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")
"""Debian puts Mosquitto where an ordinary user's PATH does not look."""


@dataclass(frozen=True)
class BrokerOptions:
    """What a broker is started with.

    Attributes:
        data_dir: where it keeps its configuration and its retained messages.
        password_file: users and hashed passwords, made with `mosquitto_passwd`.
        acl_file: who may read and write which topics; None takes ours where there are passwords.
        cert_file: the server's certificate; turns TLS on, together with `key_file`.
        ca_file: the CA of client certificates; turns a second listener on, which asks for them.
        revoked_file: which of them count no more.
        certificates_port: of the second listener.
        pid_file: who wants the broker to read its files again finds it by this.
    """

    host: str
    port: int
    data_dir: Path
    password_file: Path | None = None
    acl_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    ca_file: Path | None = None
    revoked_file: Path | None = None
    certificates_port: int | None = None
    pid_file: Path | None = None


@dataclass(frozen=True)
class Mosquitto:
    """An installed Mosquitto."""

    program: Path
    version: str


def find_mosquitto() -> Mosquitto | None:
    """Return the Mosquitto of this machine, or None: none is installed, or it does not run."""
    search = os.pathsep.join((os.environ.get("PATH", os.defpath), *_SBIN))
    program = shutil.which("mosquitto", path=search)
    if program is None:
        return None
    try:
        # It has no --version; its help says the version first and exits with an error.
        said = subprocess.run([program, "-h"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = said.stdout.split()
    return Mosquitto(Path(program), words[2] if words[1:2] == ["version"] else "unknown")


def check(options: BrokerOptions) -> None:
    """Refuse what would be unsafe or cannot work, before anything is started.

    Raises:
        ConfigError: open to the network without passwords, a file is missing, or half of TLS.
        BrokerFailed: the address cannot be listened on.
    """
    for name in ("password_file", "acl_file", "cert_file", "key_file", "ca_file", "revoked_file"):
        file = getattr(options, name)
        if file is not None and not os.access(file, os.R_OK):
            raise ConfigError(f"--{name.replace('_', '-')}: {file} cannot be read")
        # The file becomes a line of the configuration.
        if file is not None and any(char in str(file) for char in "\r\n"):
            raise ConfigError(f"--{name.replace('_', '-')}: a line break in {str(file)!r}")
    if (options.cert_file is None) != (options.key_file is None):
        raise ConfigError("--cert-file and --key-file go together")
    if not is_loopback(options.host) and options.password_file is None:
        raise ConfigError(
            f"a broker on {options.host} would be open to everybody who reaches this machine",
            hint="`fleetmark enroll DEVICE --host NAME` makes certificates and passwords, which "
            "`fleetmark broker` finds; or pass --password-file, --cert-file and --key-file; or "
            "listen on 127.0.0.1",
        )
    if not is_loopback(options.host) and options.cert_file is None:
        raise ConfigError(
            f"a broker on {options.host} without TLS would have passwords sent in clear",
            hint="pass --cert-file and --key-file; `fleetmark enroll` makes both for a broker of "
            "its own; or listen on 127.0.0.1",
        )
    _check_port(options.host, options.port)
    if options.certificates_port is not None:
        _check_port(options.host, options.certificates_port)


def _check_port(host: str, port: int) -> None:
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise ConfigError(f"--host: {host}: {error.strerror or error}") from error
    family, kind, _, _, address = found[0]
    with socket.socket(family, kind) as probe:
        # As brokers do it: a port whose last connections still linger is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise BrokerFailed(
                f"cannot listen on {host} port {port}: {error.strerror or error}",
                hint=f"is a broker running already (`ss -ltnp 'sport = :{port}'`)? Choose another "
                f"port with --port {port + 1 if port < 65535 else port - 1}, and set broker.port "
                "of the collector and the agents to it",
            ) from error


def mosquitto_config(options: BrokerOptions) -> str:
    """Return the configuration that Mosquitto is run with."""
    directory = broker_dir(options)
    acl_file = options.acl_file or (ACL if options.password_file else None)
    lines = [
        f"listener {options.port} {options.host}".rstrip(),
        f"allow_anonymous {'false' if options.password_file else 'true'}",
        "persistence true",
        f"persistence_location {directory}/",
    ]
    server = (("certfile", options.cert_file), ("keyfile", options.key_file))
    lines += _files(("password_file", options.password_file), ("acl_file", acl_file), *server)
    if options.certificates_port is not None:
        # Mosquitto asks all clients of a listener for the same: a password, or a certificate.
        lines += [
            f"listener {options.certificates_port} {options.host}".rstrip(),
            *_files(*server, ("cafile", options.ca_file), ("crlfile", options.revoked_file)),
            "require_certificate true",
            "use_identity_as_username true",
        ]
    if os.geteuid() == 0:
        # As root it would become the user `mosquitto`, who may not write to our directory.
        lines.append(f"user {pwd.getpwuid(0).pw_name}")
    common = TEMPLATE.read_text("utf-8").replace("@MAX_PAYLOAD_BYTES@", str(MAX_PAYLOAD_BYTES))
    return "\n".join(("# Made by `fleetmark broker` at each start.", *lines, "", common))


def _files(*named: tuple[str, Path | None]) -> list[str]:
    return [f"{key} {file.absolute()}" for key, file in named if file is not None]


def broker_dir(options: BrokerOptions) -> Path:
    """Return the broker's own directory: one for each port, so that two never share a file."""
    return options.data_dir / f"broker-{options.port}"


def become_mosquitto(mosquitto: Mosquitto, options: BrokerOptions) -> NoReturn:
    """Replace this process by Mosquitto, so that no child can ever be left behind.

    Raises:
        BrokerFailed: its files cannot be written, or it cannot be run.
    """
    directory = broker_dir(options)
    config = directory / "mosquitto.conf"
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        config.write_text(mosquitto_config(options), "utf-8")
        if options.pid_file is not None:
            hold_pid_file(options.pid_file)
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(mosquitto.program, ["mosquitto", "-c", str(config)])  # noqa: S606 - the point
    except OSError as error:
        raise BrokerFailed(
            f"{error.filename or mosquitto.program}: {error.strerror or error}",
            hint="`fleetmark broker --embedded` needs no Mosquitto",
        ) from error
