#!/usr/bin/env python3
"""Makes what a centre keeps secret: a small CA, certificates, passwords, tokens, users.

    deploy/setup_centre.py init NAME...          all of it; NAME: a name or address of this machine
                                                 that devices connect to, the best one first
    deploy/setup_centre.py influxdb1             the users of an InfluxDB 1.x on this machine

Safe to run again: what is there stays, and a certificate is made anew a month before it ends, or
when the names change. Prints names of files, never what is in them. Needs openssl, Python 3.9 and
this checkout, nothing installed, so that a host of containers can run it. Devices are let in and
out by `fleetmark enroll` and `fleetmark revoke`.
"""

from __future__ import annotations

import argparse
import grp
import os
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# From the checkout: nothing of fleetmark need be installed, and these need nothing but Python.
sys.path.insert(0, str(HERE.parent / "collector"))

from centre import certificates, influxdb1  # noqa: E402
from centre.telling import Wrong, say  # noqa: E402
from fleetmark_collector.enrolment import brokeracl, brokerusers  # noqa: E402
from fleetmark_collector.enrolment.keep import Keep  # noqa: E402

HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9-]+)*\.?")

SECRETS = (
    "collector-password",
    "grafana-password",
    "grafana-influxdb-password",
    "influxdb-password",
    "influxdb-token",
)


def init(keep: Keep, names: list[str]) -> None:
    """Make everything that is missing."""
    for name in names:
        if certificates.is_address(name) and "%" in name:
            raise Wrong(f"{name!r}: what stands behind % counts on one machine alone")
        if not certificates.is_address(name) and not HOST_NAME.fullmatch(name):
            raise Wrong(f"{name!r}: neither a host name nor an address")
    if not names and not keep.has("names"):
        raise Wrong("init NAME...: how do devices reach this machine? A name or an address")
    # An agent on this machine has its settings here, too, and must get to them.
    keep.make_directory(".", 0o751)
    for directory in ("broker", "influxdb"):
        keep.make_directory(directory, 0o750)
    keep.make_directory("devices", 0o700)
    if names:
        keep.write("names", "\n".join(names) + "\n")
    names = keep.read("names").split()
    certificates.make_ca(keep)
    certificates.make_revocations(keep)
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
    brokeracl.write(keep, brokeracl.devices(keep) or _users(keep))
    if keep.directory == HERE / "secrets":
        _tell_compose(keep.group)


def _users(keep: Keep) -> dict[str, str | None]:
    """Return those whom an older fleetmark let in: it gave nobody rules of his own, nor a fleet."""
    return {user: None for user in brokerusers.users(keep) if user != brokerusers.COLLECTOR}


def _tell_compose(group: int) -> None:
    """Let the containers' users into the group that may read the secrets."""
    file = HERE / ".env"
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    if not any(line.startswith("FLEETMARK_SECRETS_GID=") for line in lines):
        lines.append(f"FLEETMARK_SECRETS_GID={group}")
        file.write_text("\n".join(lines) + "\n", "utf-8")
        say(f"noted in {file}: group {group} may read the secrets")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dir", type=Path, default=HERE / "secrets", help="where to keep it all (%(default)s)")
    add("--group", help="who may read what servers need (default: your own group)")
    add("--influxdb-url", default="http://127.0.0.1:8086", help="(%(default)s)")
    add("--database", default="fleetmark", help="(%(default)s)")
    add("command", choices=("init", "influxdb1"))
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
    keep = Keep(arguments.dir.resolve(), _group(arguments.group), say)
    if arguments.command == "init":
        init(keep, arguments.names)
    else:
        influxdb1.make_users(keep, arguments.influxdb_url.rstrip("/"), arguments.database)


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
