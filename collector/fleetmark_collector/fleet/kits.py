"""What makes a device somebody: its kit of settings and credentials, checked, and as it travels."""

import hashlib
import io
import json
import re
import tarfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fleetmark_protocol.errors import ConfigError

SETTINGS = "agent.toml"
CREDENTIALS = ("agent-ca.crt", "agent-password", "agent.crt", "agent.key")
ON_DEVICE = "/etc/fleetmark"
_FILE_BYTES = 2**20


@dataclass(frozen=True)
class Kit:
    """The files for /etc/fleetmark of one device."""

    device: str
    files: Mapping[str, bytes] = field(repr=False)

    @property
    def broker(self) -> Mapping[str, Any]:
        """The table that says where the broker is, and who the device is there."""
        return broker_of(self.files[SETTINGS].decode("utf-8"))

    @property
    def fleet(self) -> str | None:
        """The only one that the device may speak in; None: any, as far as the kit says."""
        return fleet_of(self.files[SETTINGS].decode("utf-8"))

    @property
    def secret(self) -> bool:
        """Whether there is something in it that only this device may have."""
        return any(name in self.files for name in ("agent-password", "agent.key"))

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each credential, by file name."""
        return {
            name: hashlib.sha256(content).hexdigest()
            for name, content in self.files.items()
            if name in CREDENTIALS
        }

    def packed(self, *, settings: bool) -> bytes:
        """Return the files as a tar; without `settings` the credentials alone."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for name, content in sorted(self.files.items()):
                if name != SETTINGS or settings:
                    entry = tarfile.TarInfo(name)
                    entry.size, entry.mode = len(content), 0o600
                    tar.addfile(entry, io.BytesIO(content))
        return packed.getvalue()


class Kits(Protocol):
    """Where kits come from."""

    def taken(self, device: str) -> bool:
        """Whether this id has been given away, to this board or to another."""
        ...

    def due(self, device: str) -> bool:
        """Whether its identity has ended, or ends soon."""
        ...

    def find(self, device: str) -> Kit | None:
        """Return the device's kit; None where it would have to be made.

        Raises:
            ConfigError: it cannot be used, or there is none and none can be made.
        """
        ...

    def make(self, device: str, tags: tuple[str, ...]) -> Kit:
        """Make the device an identity; one that it had before counts no more.

        Raises:
            FleetmarkError: that cannot be done.
        """
        ...

    def publish(self) -> str | None:
        """Let the broker know who was made; what the operator has to do for that, if anything."""
        ...


@dataclass(frozen=True)
class KitDirectory:
    """Kits that were made before: a directory with one for each device, called by its id."""

    directory: Path

    def taken(self, device: str) -> bool:
        """See `Kits`: nobody is enrolled here; a kit is given to whom the user names."""
        del device
        return False

    def due(self, device: str) -> bool:
        """See `Kits`: it is not renewed here."""
        del device
        return False

    def find(self, device: str) -> Kit | None:
        """See `Kits`."""
        return read_kit(self.directory / device, device)

    def make(self, device: str, tags: tuple[str, ...]) -> Kit:
        """See `Kits`: there is nothing here to make one from, and `find` has said so."""
        del tags
        raise ConfigError(f"kit of {device}: there is none in {self.directory}")

    def publish(self) -> str | None:
        """See `Kits`."""
        return None


def read_kit(directory: Path, device: str) -> Kit:
    """Return the kit that lies in a directory.

    Raises:
        ConfigError: it is missing, not whole, or another device's.
    """
    files = {}
    for name in (SETTINGS, *CREDENTIALS):
        file = directory / name
        try:
            with file.open("rb") as opened:
                files[name] = opened.read(_FILE_BYTES + 1)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ConfigError(f"kit of {device}: {error}") from error
        if len(files[name]) > _FILE_BYTES:
            raise ConfigError(f"kit of {device}: {file} is larger than any settings or certificate")
    return checked(device, files, directory)


def checked(device: str, files: Mapping[str, bytes], place: object) -> Kit:
    """Return a kit of these files.

    Raises:
        ConfigError: it is not whole, or another device's.
    """
    if SETTINGS not in files:
        raise ConfigError(
            f"kit of {device}: there is no {SETTINGS} in {place}",
            hint=f"`fleetmark enroll {device}` makes one",
        )
    try:
        settings = tomllib.loads(files[SETTINGS].decode("utf-8"))
    except ValueError as error:
        raise ConfigError(f"kit of {device}: {SETTINGS} in {place}: {error}") from error
    if settings.get("device_id") != device:
        raise ConfigError(
            f"kit of {device}: {SETTINGS} in {place} is that of {settings.get('device_id')!r}"
        )
    broker = settings.get("broker")
    for key in ("ca_file", "password_file", "cert_file", "key_file"):
        named = broker.get(key) if isinstance(broker, dict) else None
        if named is None:
            continue
        missing = Path(str(named)).name not in files
        if missing or Path(str(named)).parent != Path(ON_DEVICE):
            raise ConfigError(
                f"kit of {device}: broker.{key} is {named}, which the kit does not bring",
                hint=f"it brings files of {ON_DEVICE}: {', '.join(CREDENTIALS)}",
            )
    return Kit(device, files)


def broker_of(settings: str) -> dict[str, Any]:
    """Return the table `broker` of an agent's settings; empty where it cannot be read."""
    try:
        table = tomllib.loads(settings).get("broker", {})
    except tomllib.TOMLDecodeError:
        return {}
    return table if isinstance(table, dict) else {}


def fleet_of(settings: str) -> str | None:
    """Return the fleet of an agent's settings; None where they name none, or cannot be read."""
    try:
        fleet = tomllib.loads(settings).get("fleet")
    except tomllib.TOMLDecodeError:
        return None
    return None if fleet is None else str(fleet)


def with_tags(kit: Kit, tags: tuple[str, ...]) -> Kit:
    """Return the kit with tags in its settings, in the place of those that were there.

    Raises:
        ConfigError: its settings say tags in a way that is not understood here.
    """
    if not tags:
        return kit
    text = kit.files[SETTINGS].decode("utf-8")
    found = re.search(r"^\[", text, flags=re.MULTILINE)
    tables_at = len(text) if found is None else found.start()
    head = re.sub(r"^tags\s*=.*$", "", text[:tables_at], flags=re.MULTILINE).rstrip("\n")
    # A list of plain words is written in JSON as in TOML.
    changed = f"{head}\ntags = {json.dumps(list(tags))}\n\n{text[tables_at:]}"
    return checked(kit.device, {**kit.files, SETTINGS: changed.encode()}, "the kit, with tags")
