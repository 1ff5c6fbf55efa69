"""What is copied to a device, once: its settings, the CA, and its password or certificate."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fleetmark_collector.enrolment.keep import Keep
from fleetmark_protocol.settings import TLS_PORT

CERTIFICATES_PORT = 8884
"""Where the broker asks for a client certificate; Mosquitto wants a listener of its own for it."""

ON_DEVICE = "/etc/fleetmark"
"""Where the files of a kit go."""

CA, PASSWORD, CERTIFICATE, KEY = "agent-ca.crt", "agent-password", "agent.crt", "agent.key"
SETTINGS = "agent.toml"

_TOML = """\
# Made by `fleetmark enroll`; this identity ends on {ends}. On the device, in a copy of this
# directory: sudo install -m 640 -g fleetmark-agent * {there}/
device_id = "{device}"
{fleet}{tags}state_dir = "/var/lib/fleetmark-agent"

[broker]
host = "{host}"
port = {port}
ca_file = "{there}/{ca}"
"""


@dataclass(frozen=True)
class Settings:
    """What stands in a device's settings.

    Attributes:
        host: that it reaches the broker by.
        ends: when its identity ends.
        fleet: None leaves it to the agent.
    """

    device: str
    host: str
    ends: datetime
    fleet: str | None = None
    tags: Sequence[str] = ()


@dataclass(frozen=True)
class Kit:
    """The files of one device.

    Attributes:
        files: name -> text; among them secrets.
        secret_name: the one that holds the secret.
        directory: where they lie.
    """

    device: str
    files: dict[str, str]
    secret_name: str
    directory: Path


def with_password(settings: Settings, ca: str, password: str) -> dict[str, str]:
    """Return the files of a device that has a password."""
    text = _text(settings, TLS_PORT)
    text += f'username = "{settings.device}"\npassword_file = "{ON_DEVICE}/{PASSWORD}"\n'
    return {SETTINGS: text, CA: ca + "\n", PASSWORD: password + "\n"}


def with_certificate(settings: Settings, ca: str, certificate: str, key: str) -> dict[str, str]:
    """Return the files of a device that has a certificate."""
    text = _text(settings, CERTIFICATES_PORT)
    text += f'cert_file = "{ON_DEVICE}/{CERTIFICATE}"\nkey_file = "{ON_DEVICE}/{KEY}"\n'
    return {SETTINGS: text, CA: ca + "\n", CERTIFICATE: certificate, KEY: key}


def write(there: Keep, device: str, files: dict[str, str]) -> None:
    """Put the files of a kit into a directory of the device's own."""
    there.make_directory(device, 0o700)
    for name, text in files.items():
        there.write(f"{device}/{name}", text, 0o600)
    for name in (PASSWORD, CERTIFICATE, KEY):
        if name not in files:
            # Of the kind that it was before.
            there.path(f"{device}/{name}").unlink(missing_ok=True)


def _text(settings: Settings, port: int) -> str:
    return _TOML.format(
        device=settings.device,
        ends=f"{settings.ends:%Y-%m-%d}",
        fleet=f'fleet = "{settings.fleet}"\n' if settings.fleet is not None else "",
        # A list of plain names looks the same in TOML.
        tags=f"tags = {json.dumps(list(settings.tags))}\n" if settings.tags else "",
        host=settings.host,
        port=port,
        there=ON_DEVICE,
        ca=CA,
    )
