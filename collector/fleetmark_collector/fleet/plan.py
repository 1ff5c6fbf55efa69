"""Decides what is to be done to a device that was looked at; changes nothing."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fleetmark_collector.enrolment.brokeracl import SIMULATOR
from fleetmark_collector.enrolment.brokerusers import COLLECTOR
from fleetmark_collector.enrolment.wish import DEFAULT_FLEET
from fleetmark_collector.fleet.hosts import Target
from fleetmark_collector.fleet.kits import ON_DEVICE, SETTINGS, Kit, Kits, broker_of, fleet_of
from fleetmark_collector.fleet.probe import PACKAGE, Facts, check
from fleetmark_protocol.errors import ConfigError, FleetmarkError
from fleetmark_protocol.ids import is_name
from fleetmark_protocol.settings import is_loopback

_FILE = re.compile(rf"{PACKAGE}_([0-9][A-Za-z0-9.+~-]*)_(amd64|arm64)\.deb")
_HOST = re.compile(r"(?:ssh://)?(?:[^@:/]+@)?([^@:/]+)(?::[0-9]+)?")


@dataclass(frozen=True)
class Package:
    """A file of `make deb`."""

    version: str
    file: Path


@dataclass(frozen=True)
class Plan:
    """What one device still needs; nothing of it where it has all."""

    target: Target
    device: str
    enroll: bool
    """Make it an identity first, or a new one."""
    kit: Kit | None
    """What it shall have; None: it is made, or the device has it."""
    put_kit: bool
    put_settings: bool
    """Of the kit not only the credentials."""
    package: Package | None
    start: bool

    @property
    def steps(self) -> tuple[str, ...]:
        """What will be done, in words."""
        return (
            *(("enroll",) if self.enroll else ()),
            *(("identity",) if self.put_kit else ()),
            *((f"package {self.package.version}",) if self.package else ()),
            *(("start",) if self.start else ()),
        )


def read_packages(files: Iterable[Path]) -> dict[str, Package]:
    """Return the packages by architecture.

    Raises:
        ConfigError: a file cannot be read, is none of `make deb`, or two are for the same machines.
    """
    packages: dict[str, Package] = {}
    for file in files:
        named = _FILE.fullmatch(file.name)
        if named is None:
            raise ConfigError(
                f"--package: {file.name} is no package of the agent",
                hint=f"`make deb` calls them dist/{PACKAGE}_VERSION_amd64.deb and ..._arm64.deb",
            )
        try:
            file.open("rb").close()
        except OSError as error:
            raise ConfigError(f"--package: {error}") from error
        version, architecture = named.groups()
        if architecture in packages:
            raise ConfigError(
                f"--package: {packages[architecture].file} and {file} are both for {architecture}"
            )
        packages[architecture] = Package(version, file)
    return packages


def name_device(target: Target, facts: Facts) -> str:
    """Return the id the device shall have: as listed, else as it has it, else its host name.

    Raises:
        FleetmarkError: it has another one, or what it says, or its host name, is none or not its.
    """
    if facts.device is not None and not is_name(facts.device):
        raise FleetmarkError(
            f"its {ON_DEVICE}/{SETTINGS} gives it no device id",
            hint="correct device_id there: small letters, digits, - and _, at most 63",
        )
    if target.device is not None and facts.device not in (None, target.device):
        raise FleetmarkError(
            f"it is {facts.device} already, not {target.device}",
            hint=f"correct the list, or remove {ON_DEVICE}/{SETTINGS} on it",
        )
    device = target.device or facts.device or facts.host_device
    if device is None:
        raise FleetmarkError("its host name makes no device id", hint="give it an id in a @FILE")
    if device in (COLLECTOR, SIMULATOR) and target.device is None and facts.device is None:
        # The broker lets that user do what no device may.
        raise FleetmarkError(
            f"its host name is that of the centre's own user {device}",
            hint="give it an id in a @FILE",
        )
    return device


def make_plan(
    target: Target, device: str, facts: Facts, kits: Kits, packages: Mapping[str, Package]
) -> Plan:
    """Return what the device needs.

    Raises:
        FleetmarkError: it cannot be had, or would overwrite what somebody has set there.
    """
    architecture = check(facts)
    package = packages.get(architecture)
    if package is None and not facts.agent:
        raise FleetmarkError(
            f"there is no agent on it, and no --package for {architecture}",
            hint=f"`make deb` makes dist/{PACKAGE}_VERSION_{architecture}.deb",
        )
    if package is not None and facts.package == package.version:
        package = None
    if package is not None and not facts.apt:
        raise FleetmarkError("it has no apt", hint="docs/install.md, a device by hand")
    fresh = _is_fresh(facts)
    kit = kits.find(device)
    if not fresh:
        _respect(facts, device, kit, kits)
    due = kits.due(device)
    keeps = not fresh and not due and (kit is None or facts.credentials == kit.digests())
    if not keeps and (kit is not None or kits.taken(device)):
        _check_claim(target, device, facts, kit, kits.taken(device))
    return Plan(
        target,
        device,
        enroll=not keeps and (kit is None or due),
        kit=None if keeps else kit,
        put_kit=not keeps,
        put_settings=fresh,
        package=package,
        # A package starts it.
        start=package is None and not (keeps and facts.active),
    )


def _check_claim(target: Target, device: str, facts: Facts, kit: Kit | None, taken: bool) -> None:
    """Check that a device that is to get an identity that exists is the one that it says it is.

    What a device says of itself, in its settings or by its host name, proves nothing: the secret
    does, or the user's word: a list, and for kits that the user brings, the destination as well.

    Raises:
        FleetmarkError: nothing says so but the device.
    """
    host = _HOST.fullmatch(target.destination)
    if device == target.device or (not taken and host is not None and device == host[1]):
        return
    if kit is not None and kit.secret and facts.credentials == kit.digests():
        return
    lacks = "does not have its credentials" if facts.credentials else "has no identity"
    raise FleetmarkError(
        f"{device} {'is enrolled already' if taken else 'has a kit'}, and this device {lacks}",
        hint=f"if it is that one, say so in a @FILE: `{target.destination} {device}`; if it is "
        "another, give it another id there",
    )


def _is_fresh(facts: Facts) -> bool:
    """Whether nobody has set the device up: no settings, or those that came with a package."""
    if facts.settings is None:
        return True
    if not facts.settings_readable:
        raise FleetmarkError(
            f"its {ON_DEVICE}/{SETTINGS} cannot be read as TOML", hint="mend or remove it there"
        )
    host = broker_of(facts.settings).get("host", "127.0.0.1")
    return facts.device is None and is_loopback(str(host))


def _respect(facts: Facts, device: str, kit: Kit | None, kits: Kits) -> None:
    """Check that the settings that are there, and stay, go with the kit.

    Raises:
        FleetmarkError: they do not.
    """
    theirs = broker_of(facts.settings or "")
    fleet = fleet_of(facts.settings or "") or DEFAULT_FLEET
    hint = f"to begin anew, remove {ON_DEVICE}/{SETTINGS} on it"
    if kit is None and not (kits.taken(device) and facts.credentials):
        problem = f"it was set up by other means, for the broker {theirs.get('host')}"
    elif kit is not None and any(theirs.get(key) != kit.broker[key] for key in kit.broker):
        problem = f"its settings of [broker] (host {theirs.get('host')}) are not those of its kit"
    elif kit is not None and kit.fleet not in (None, fleet):
        problem = f"its settings say fleet {fleet}, its identity is for {kit.fleet}"
        hint = f'set fleet = "{kit.fleet}" there, in {ON_DEVICE}/{SETTINGS}; {hint}'
    else:
        return
    raise FleetmarkError(problem, hint=hint)
