"""What a device is and has already: one look at it, which changes nothing there."""

import base64
import binascii
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fleetmark_collector.fleet.kits import CREDENTIALS, ON_DEVICE, SETTINGS
from fleetmark_protocol.errors import FleetmarkError
from fleetmark_protocol.ids import is_name

PACKAGE = "fleetmark-agent"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""What the kernel calls a processor, and what Debian does; no others are served."""
OLDEST_PYTHON = (3, 11)
_BEGIN = "fleetmark-facts"

# A login shell may say something of its own first, hence the line to begin at.
PROBE = f"""\
echo {_BEGIN}
echo "machine=$(uname -m)"
echo "node=$(uname -n)"
python3 -c 'import sys; print("python=%d.%d" % sys.version_info[:2])' 2>/dev/null
[ -d /run/systemd/system ] && echo systemd=yes
command -v apt-get >/dev/null && echo apt=yes
echo "package=$(dpkg-query -W -f '${{db:Status-Abbrev}} ${{Version}}' {PACKAGE} 2>/dev/null)"
command -v fleetmark-agent >/dev/null && echo agent=yes
echo "service=$(systemctl is-active {PACKAGE}.service 2>/dev/null)"
cd {ON_DEVICE} 2>/dev/null || exit 0
for file in {" ".join(CREDENTIALS)}; do
    if [ -f $file ]; then echo "$file=$(sha256sum <$file | cut -c1-64)"; fi
done
if [ -f {SETTINGS} ]; then echo "settings=$(head -c 65536 {SETTINGS} | base64 | tr -d '\\n')"; fi
exit 0
"""


@dataclass(frozen=True)
class Facts:
    """A device as it was found."""

    machine: str
    node: str
    python: tuple[int, int] | None
    systemd: bool
    apt: bool
    package: str | None
    """Version of the installed package; None: there is none, or only half of one."""
    agent: bool
    """Whether there is an agent at all, from a package or not."""
    active: bool
    """Whether its service runs."""
    settings: str | None = None
    """The text of its settings; None: there are none."""
    credentials: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of each, by file name."""

    @property
    def device(self) -> str | None:
        """The id that its settings give it; None: they leave it to the host name, or are none."""
        device = self._parsed().get("device_id")
        return device if isinstance(device, str) else None

    @property
    def settings_readable(self) -> bool:
        """Whether its settings, if any, can be understood."""
        return self.settings is None or bool(self._parsed() or not self.settings.strip())

    @property
    def host_device(self) -> str | None:
        """The id that the agent would take from the host name."""
        name = re.sub(r"[^a-z0-9_-]+", "-", self.node.lower()).strip("-_")[:63]
        return name if is_name(name) else None

    def _parsed(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self.settings or "")
        except tomllib.TOMLDecodeError:
            return {}


def read_facts(said: str) -> Facts:
    """Return what the probe said.

    Raises:
        FleetmarkError: something else answered.
    """
    _, begun, rest = said.rpartition(f"{_BEGIN}\n")
    if not begun:
        raise FleetmarkError(
            "it answers, but not with a shell", hint="is this user's shell sh-like?"
        )
    values = dict(line.split("=", 1) for line in rest.splitlines() if "=" in line)
    status, _, version = values.get("package", "").strip().partition(" ")
    return Facts(
        machine=values.get("machine", ""),
        node=values.get("node", ""),
        python=_version(values.get("python", "")),
        systemd="systemd" in values,
        apt="apt" in values,
        package=version.strip() if status == "ii" else None,
        agent="agent" in values,
        active=values.get("service") == "active",
        settings=_text(values.get("settings")),
        credentials={name: values[name] for name in CREDENTIALS if name in values},
    )


def check(facts: Facts) -> str:
    """Return the device's architecture as Debian calls it.

    Raises:
        FleetmarkError: no agent can run there.
    """
    architecture = ARCHITECTURES.get(facts.machine)
    if architecture is None:
        raise FleetmarkError(
            f"{facts.machine or 'its processor'} is not supported",
            hint="fleetmark needs a 64-bit x86 or ARM system; on a Raspberry Pi the "
            "64-bit Raspberry Pi OS",
        )
    if facts.python is None or facts.python < OLDEST_PYTHON:
        found = "none" if facts.python is None else "{}.{}".format(*facts.python)
        raise FleetmarkError(
            f"Python 3.11 or newer is needed; it has {found}",
            hint="Debian 12, Ubuntu 24.04, Raspberry Pi OS of 2023, or newer",
        )
    if not facts.systemd:
        raise FleetmarkError("it is not run by systemd", hint="docs/install.md, a device by hand")
    return architecture


def _version(text: str) -> tuple[int, int] | None:
    found = re.fullmatch(r"(\d{1,3})\.(\d{1,3})", text)
    return None if found is None else (int(found[1]), int(found[2]))


def _text(coded: str | None) -> str | None:
    if coded is None:
        return None
    try:
        return base64.b64decode(coded, validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return "\0"  # Not TOML, whatever it was.
