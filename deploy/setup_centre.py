#!/usr/bin/env python3
"""Makes what a centre keeps secret: a small CA, certificates, passwords, tokens, users.

    deploy/setup_centre.py init NAME...          all of it; NAME: a name or address of this machine
                                                 that devices connect to, the best one first
    deploy/setup_centre.py device DEVICE_ID...   a password for each, and what to copy to it
    deploy/setup_centre.py forget DEVICE_ID...   lets them in no more
    deploy/setup_centre.py influxdb1             the users of an InfluxDB 1.x on this machine

Safe to run again: what is there stays, and a certificate is made anew a month before it ends, or
when the names change. Prints names of files, never what is in them. Needs openssl and Python 3.9,
nothing of fleetmark, so that a host of containers can run it.
"""

from __future__ import annotations

import argparse
import grp
import os
import re
import shutil
import sys
from pathlib import Path

from centre import brokerusers, certificates, influxdb1
from centre.keep import Keep, Wrong, say

HERE = Path(__file__).resolve().parent

DEVICE_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9-]+)*\.?")

SECRETS = (
    "collector-password",
    "grafana-password",
    "grafana-influxdb-password",
    "influxdb-password",
    "influxdb-token",
)

AGENT_TOML = """\
# Copy this directory to /etc/fleetmark-agent on the device.
device_id = "{device}"

[broker]
host = "{host}"
port = 8883
username = "{device}"
password_file = "/etc/fleetmark-agent/password"
ca_file = "/etc/fleetmark-agent/ca.crt"
"""


def init(keep: Keep, names: list[str]) -> None:
    """Make everything that is missing."""
    for name in names:
        if not certificates.is_address(name) and not HOST_NAME.fullmatch(name):
            raise Wrong(f"{name!r}: neither a host name nor an address")
    if not names and not keep.has("names"):
        raise Wrong("init NAME...: how do devices reach this machine? A name or an address")
    for directory, mode in ((".", 0o750), ("broker", 0o750), ("influxdb", 0o750)):
        keep.make_directory(directory, mode)
    keep.make_directory("devices", 0o700)
    if names:
        keep.write("names", "\n".join(names) + "\n")
    names = keep.read("names").split()
    certificates.make_ca(keep)
    # The last names are for clients on this machine and in the compose project.
    here = ["localhost", "127.0.0.1", "::1"]
    certificates.make_server(keep, "broker", [*names, *here, "mosquitto"])
    certificates.make_server(keep, "influxdb", [*here, "influxdb"])
    for name in SECRETS:
        keep.secret(name)
    if not keep.has("grafana-influxdb-token"):
        # Grafana begins with the one token that InfluxDB 2 is set up with.
        keep.write("grafana-influxdb-token", keep.read("influxdb-token") + "\n")
    brokerusers.set_user(keep, brokerusers.COLLECTOR, keep.read("collector-password"))
    if keep.directory == HERE / "secrets":
        _tell_compose(keep.group)


def device(keep: Keep, ids: list[str]) -> None:
    """Give each device a password and make what is to be copied to it."""
    if not keep.has("names"):
        raise Wrong(f"{keep.directory}: nothing there yet; run `init NAME...` first")
    host = keep.read("names").split()[0]
    for one in ids:
        keep.make_directory(f"devices/{one}", 0o700)
        password = keep.secret(f"devices/{one}/password")
        brokerusers.set_user(keep, one, password)
        for name, text in (
            ("password", password + "\n"),
            ("ca.crt", keep.read("ca.crt") + "\n"),
            ("agent.toml", AGENT_TOML.format(device=one, host=host)),
        ):
            keep.write(f"devices/{one}/{name}", text, 0o600)
        say(f"copy {keep.path(f'devices/{one}')} to the device as /etc/fleetmark-agent")
    _say_reload()


def forget(keep: Keep, ids: list[str]) -> None:
    """Let devices in no more."""
    for one in ids:
        if not brokerusers.drop_user(keep, one):
            say(f"{one}: not among the broker's users")
        shutil.rmtree(keep.path(f"devices/{one}"), ignore_errors=True)
    _say_reload()


def _say_reload() -> None:
    say(
        "now let the broker read its users again: `docker compose kill -s HUP mosquitto` in "
        "deploy/, or `systemctl reload fleetmark-broker`"
    )


def _tell_compose(group: int) -> None:
    """Let the containers' users into the group that may read the secrets."""
    file = HERE / ".env"
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    if not any(line.startswith("FLEETMARK_SECRETS_GID=") for line in lines):
        lines.append(f"FLEETMARK_SECRETS_GID={group}")
        file.write_text("\n".join(lines) + "\n", "utf-8")
        say(f"noted in {file}: group {group} may read the secrets")


def _check_devices(ids: list[str]) -> None:
    if not ids:
        raise Wrong("which device? DEVICE_ID...")
    for one in ids:
        if one == brokerusers.COLLECTOR:
            raise Wrong(f"{one} is the collector's own name")
        if not DEVICE_ID.fullmatch(one):
            raise Wrong(f"{one!r}: no device id: small letters, digits, - and _, at most 63")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dir", type=Path, default=HERE / "secrets", help="where to keep it all (%(default)s)")
    add("--group", help="who may read what servers need (default: your own group)")
    add("--influxdb-url", default="http://127.0.0.1:8086", help="(%(default)s)")
    add("--database", default="fleetmark", help="(%(default)s)")
    add("command", choices=("init", "device", "forget", "influxdb1"))
    add("names", nargs="*", metavar="NAME")
    return parser.parse_args()


def _group(name: str | None) -> int:
    if name is None:
        return os.getgid()
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError as error:
        raise Wrong(f"--group: there is no group {name}") from error


def _run(arguments: argparse.Namespace) -> None:
    keep = Keep(arguments.dir.resolve(), _group(arguments.group))
    if arguments.command == "init":
        init(keep, arguments.names)
    elif arguments.command == "influxdb1":
        influxdb1.make_users(keep, arguments.influxdb_url.rstrip("/"), arguments.database)
    else:
        _check_devices(arguments.names)
        {"device": device, "forget": forget}[arguments.command](keep, arguments.names)


def main() -> int:
    """Run one command; 0 done, 2 something must be mended first."""
    os.umask(0o077)
    try:
        _run(_parse())
    except Wrong as problem:
        say(f"error: {problem}")
        return 2
    except OSError as error:
        say(f"error: {error.filename or ''}: {error.strerror or error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
