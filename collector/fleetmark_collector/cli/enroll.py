"""`fleetmark enroll`, `identities`, `revoke`: who may talk to the broker, and until when."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleetmark_collector.cli.common import (
    ConfigOption,
    DataDirOption,
    JsonOption,
    console,
    print_json,
    settings_from,
)

if TYPE_CHECKING:
    from datetime import datetime

    from fleetmark_collector.config import CollectorSettings
    from fleetmark_collector.enrolment.enrolling import Enrolment
    from fleetmark_collector.enrolment.kit import Kit
    from fleetmark_collector.enrolment.registry import Identity

IdentitiesOption = Annotated[
    Path | None,
    typer.Option(
        "--identities",
        metavar="DIR",
        help="Directory of the centre's secrets (default: /etc/fleetmark where a centre is "
        "installed, else `identities` in the data directory).",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(enroll)
    app.command()(identities)
    app.command()(revoke)


def enroll(
    devices: Annotated[
        list[str], typer.Argument(metavar="DEVICE...", help="Device ids.", show_default=False)
    ],
    password: Annotated[
        bool,
        typer.Option(
            "--password/--certificate",
            help="What the device proves itself with (default: a certificate).",
            show_default=False,
        ),
    ] = False,
    days: Annotated[
        int, typer.Option(min=1, max=3650, metavar="N", help="When it ends: in so many days.")
    ] = 365,
    host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Name or address that devices reach the broker by; needed the first time, may be "
            "given several times. The first one goes into the kits that are made now; later ones "
            "get the very first name again.",
        ),
    ] = None,
    fleet: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The only fleet that the device may speak in (default: `default`; for a renewal "
            "the one that it has).",
            show_default=False,
        ),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(metavar="TAG", help="Tag for the device's settings; may be repeated."),
    ] = None,
    renew: Annotated[
        bool,
        typer.Option(
            "--renew",
            help="Give an enrolled device a new identity. Its old certificate stays good until "
            "its own end; an old password ends at once.",
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to put the kits instead: DIR/DEVICE.")
    ] = None,
    show_secret: Annotated[
        bool, typer.Option("--show-secret", help="Print the password or the private key, too.")
    ] = False,
    directory: IdentitiesOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Let devices in: make each an identity, rules at the broker, and a kit of files to copy to it.

    The first time on a machine that has no centre yet, this also makes what broker and collector
    need; `fleetmark broker` and `fleetmark collect` find it.
    """
    from fleetmark_collector.enrolment.enrolling import Wish

    enrolment = _open(config, data_dir, directory)
    wish = Wish(
        kind="password" if password else "certificate",
        days=days,
        tags=tuple(tag or ()),
        host=host[0] if host else None,
        fleet=fleet,
    )
    devices = list(dict.fromkeys(devices))
    enrolment.check(devices, renew, wish, host or ())
    enrolment.prepare(host or ())
    kits: list[Kit] = []
    try:
        for device in devices:
            kits.append(enrolment.enroll(device, wish, renew, out))  # noqa: PERF401 - one may fail
    finally:
        # Also of those that came before one that failed.
        told = _tell(enrolment)
        if kits:
            _say_kits(enrolment, kits, renew, show_secret, told, as_json)
        if kits and renew and fleet is not None:
            _say_offline(settings_from(config, data_dir), [one.device for one in kits], fleet)


def _say_kits(
    enrolment: "Enrolment",
    kits: Sequence["Kit"],
    renewed: bool,
    show_secret: bool,
    told: bool,
    as_json: bool,
) -> None:
    found = {one.device: one for one in enrolment.identities()}
    if as_json:
        print_json(
            {
                "devices": [_kit_fields(one, found[one.device], show_secret) for one in kits],
                "broker_told": told,
            }
        )
        return
    for one in kits:
        _say_kit(one, found[one.device], renewed)
        if show_secret:
            typer.echo(one.files[one.secret_name].rstrip())


def identities(
    directory: IdentitiesOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """List who is enrolled, in which fleet, by what, and until when. No secret is shown."""
    from rich.table import Table

    from fleetmark_collector.enrolment.authority import now_utc

    now = now_utc()
    known = _open(config, data_dir, directory).identities()
    if as_json:
        print_json([_identity_fields(one, now) for one in known])
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("DEVICE", "FLEET", "BY", "SINCE", "ENDS", ""):
        table.add_column(heading)
    for one in known:
        state = one.state(now)
        table.add_row(
            one.device,
            one.fleet or "any",
            one.kind,
            f"{one.made:%Y-%m-%d}" if one.made else "-",
            f"{one.ends:%Y-%m-%d}" if one.ends else "never",
            "" if state == "ok" else state,
        )
    console().print(table)


def revoke(
    devices: Annotated[
        list[str] | None, typer.Argument(metavar="DEVICE...", help="Device ids.")
    ] = None,
    expired: Annotated[
        bool, typer.Option("--expired", help="Everybody whose identity has ended.")
    ] = False,
    directory: IdentitiesOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Let devices in no more, from now on: password, certificate, rules and kit are gone.

    A connection that is open is cut, or falls silent. What the devices have delivered stays.
    """
    from fleetmark_protocol.errors import ConfigError

    if not devices and not expired:
        raise ConfigError("whom? DEVICE..., or --expired")
    enrolment = _open(config, data_dir, directory)
    settings = settings_from(config, data_dir)
    gone = list(dict.fromkeys([*(devices or ()), *(enrolment.expired() if expired else ())]))
    signed, told = True, True
    if gone:
        signed = enrolment.revoke(gone)
        told = _tell(enrolment)
        _say_offline(settings, gone)
    if as_json:
        print_json({"revoked": gone, "broker_told": told, "list_signed": signed})
        return
    typer.echo(f"revoked: {', '.join(gone)}" if gone else "nobody to revoke")
    if not signed:
        typer.echo(
            "ca.key is not there to sign the list of revoked certificates: they may connect, but "
            "have no topics. Put the key back and run this again for another device",
            err=True,
        )


def _open(config: Path | None, data_dir: Path | None, directory: Path | None) -> "Enrolment":
    from fleetmark_collector.enrolment.enrolling import Enrolment

    settings = settings_from(config, data_dir)
    return Enrolment.open(settings.data_dir, directory, lambda text: typer.echo(text, err=True))


def _tell(enrolment: "Enrolment") -> bool:
    from fleetmark_collector.enrolment.running import tell_broker

    told = tell_broker(enrolment.keep)
    typer.echo(told.text, err=True)
    return told.done


def _say_offline(
    settings: "CollectorSettings", devices: Sequence[str], but_in: str | None = None
) -> None:
    from fleetmark_collector.enrolment.farewell import say_offline
    from fleetmark_protocol import logs
    from fleetmark_protocol.errors import ConfigError

    # What stands in the way is said below, in one line.
    logs.configure("error", settings.log_format)
    try:
        trouble = say_offline(settings.broker, devices, but_in)
    except ConfigError as error:
        trouble = error.message
    if trouble is not None:
        typer.echo(
            f"{trouble}: who was online stays so in `fleetmark devices`",
            err=True,
        )


def _say_kit(kit: "Kit", identity: "Identity", renewed: bool) -> None:
    from fleetmark_collector.enrolment.kit import ON_DEVICE, SETTINGS

    names: Sequence[str] = [name for name in kit.files if name != SETTINGS or not renewed]
    typer.echo(f"{kit.device}: {identity.kind} until {identity.ends:%Y-%m-%d}: {kit.directory}")
    typer.echo(
        f"  copy it to the device, and there: sudo install -m 640 -g fleetmark-agent "
        f"{'*' if not renewed else ' '.join(names)} {ON_DEVICE}/"
    )
    if renewed and identity.fleet is not None:
        typer.echo(f'  its agent.toml must say: fleet = "{identity.fleet}"')


def _kit_fields(kit: "Kit", identity: "Identity", show_secret: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "device": kit.device,
        "fleet": identity.fleet,
        "kind": identity.kind,
        "ends": identity.ends.isoformat() if identity.ends else None,
        "kit": str(kit.directory),
        "files": list(kit.files),
    }
    if show_secret:
        fields["secret"] = kit.files[kit.secret_name].strip()
    return fields


def _identity_fields(identity: "Identity", now: "datetime") -> dict[str, Any]:
    return {
        "device": identity.device,
        "fleet": identity.fleet,
        "kind": identity.kind,
        "made": identity.made.isoformat() if identity.made else None,
        "ends": identity.ends.isoformat() if identity.ends else None,
        "state": identity.state(now),
        "certificates": {one: end.isoformat() for one, end in identity.certificates.items()},
    }
