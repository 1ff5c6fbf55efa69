"""What a centre must have before the first device comes: names, CA, the broker's files, a user."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime

from fleetmark_collector.enrolment import brokerusers
from fleetmark_collector.enrolment.authority import Authority
from fleetmark_collector.enrolment.directories import COLLECTOR_SETTINGS, NAMES, set_up_by_script
from fleetmark_collector.enrolment.keep import Keep
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.settings import TLS_PORT, is_address

COLLECTOR_PASSWORD = "collector-password"  # noqa: S105 - a file's name
THIS_MACHINE = ("localhost", "127.0.0.1", "::1")

_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9-]+)*\.?")

_SCOPE = "%"
"""Behind it an IPv6 address says by which of this machine's networks; older versions took it."""

_COLLECTOR_TOML = """\
# Made by `fleetmark enroll`: how the collector reaches its broker. `fleetmark collect` reads it
# where no --config names another file; then copy this table into that.
[broker]
host = "localhost"
port = {port}
username = "{user}"
password_file = "{directory}/{password}"
ca_file = "{directory}/ca.crt"
"""


def check_hosts(hosts: Sequence[str]) -> None:
    """Refuse what devices cannot reach a broker by.

    Raises:
        ConfigError: neither a host name nor an address, or one that counts on this machine alone.
    """
    for host in hosts:
        if is_address(host) and _SCOPE in host:
            raise ConfigError(
                f"--host: {host!r}: what stands behind {_SCOPE} counts on one machine alone, and a "
                "certificate cannot name it",
                hint="give a name, or an address that devices reach without it",
            )
        if not is_address(host) and not _HOST_NAME.fullmatch(host):
            raise ConfigError(f"--host: {host!r} is neither a host name nor an address")


def prepare(
    keep: Keep, authority: Authority, hosts: Sequence[str], revoked: Mapping[str, datetime]
) -> list[str]:
    """Make what is missing, and return the names of the centre, the first one that was given first.

    Args:
        keep: the directory of secrets.
        authority: its CA.
        hosts: names or addresses that devices reach the broker by; none for those of before.
        revoked: serial number -> when it was revoked.

    Raises:
        ConfigError: no name is known, one is none, or the CA's key is missing.
        OSError: the directory cannot be written.
    """
    check_hosts(hosts)
    known = keep.read(NAMES).split() if keep.has(NAMES) else []
    # New ones go last: what one command says of its kits must not become what all later ones get.
    names = [one for one in dict.fromkeys([*known, *hosts]) if _SCOPE not in one]
    if not names:
        raise ConfigError(
            "how do devices reach this machine? Nobody has said it yet",
            hint="`fleetmark enroll DEVICE --host NAME`: a name or address that they can resolve",
        )
    if set_up_by_script(keep.directory):
        if new := set(hosts) - set(known):
            raise ConfigError(
                f"--host: {', '.join(sorted(new))}: not among the names of this centre",
                hint=f"`setup_centre.py init {' '.join(names)}` (docs/operate.md) adds it",
            )
        authority.prepare_broker([*names, *THIS_MACHINE, "mosquitto"], revoked)
        return names
    for name in ("broker", "devices"):
        keep.make_directory(name, 0o700)
    authority.make()
    authority.prepare_broker([*names, *THIS_MACHINE], revoked)
    if names != known:
        keep.write(NAMES, "\n".join(names) + "\n")
    brokerusers.set_user(keep, brokerusers.COLLECTOR, keep.secret(COLLECTOR_PASSWORD))
    if not keep.has(COLLECTOR_SETTINGS):
        keep.write(
            COLLECTOR_SETTINGS,
            _COLLECTOR_TOML.format(
                port=TLS_PORT,
                user=brokerusers.COLLECTOR,
                directory=keep.directory,
                password=COLLECTOR_PASSWORD,
            ),
        )
    return names
