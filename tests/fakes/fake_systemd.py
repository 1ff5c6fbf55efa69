"""systemd and the users of a machine in a directory, as far as an installation asks for them."""

from pathlib import Path

SYSTEMCTL = """\
known={root}/run/fake-systemd
case $* in
daemon-reload) ;;
*is-enabled*) test -e $known/enabled ;;
*is-active*) test -e $known/active ;;
enable*) touch $known/enabled ;;
disable*) rm -f $known/enabled $known/active ;;
restart*)
    rm -f $known/active
    agent={root}/opt/fleetmark-agent/current/bin/fleetmark-agent
    $agent run && $agent --version >$known/active
    ;;
*) echo "systemctl $*: not known here" >&2; exit 99 ;;
esac
"""

PROGRAMS = {
    "systemctl": SYSTEMCTL,
    "systemd-sysusers": "touch {root}/run/fake-systemd/user",
    "getent": "test -e {root}/run/fake-systemd/user",
    "userdel": "rm {root}/run/fake-systemd/user",
    "chgrp": ":",
    "id": "echo 0",
    "journalctl": "echo last words",
}


class FakeSystemd:
    """Programs in a directory for PATH; `booted=False` is a system in a chroot."""

    def __init__(self, root: Path, programs: Path, *, booted: bool = True) -> None:
        self._known = root / "run" / "fake-systemd"
        self._known.mkdir(parents=True)
        if booted:
            (root / "run/systemd/system").mkdir(parents=True)
        for name, body in PROGRAMS.items():
            file = programs / name
            file.write_text(f"#!/bin/sh\n{body.format(root=root)}\n", "utf-8")
            file.chmod(0o755)

    @property
    def running(self) -> str | None:
        """What the running service says of its version; None: none runs."""
        file = self._known / "active"
        return file.read_text("utf-8").split()[-1] if file.exists() else None

    @property
    def enabled(self) -> bool:
        return (self._known / "enabled").exists()

    @property
    def user_exists(self) -> bool:
        return (self._known / "user").exists()

    def start(self, version: str) -> None:
        """Have the service run and enabled."""
        (self._known / "enabled").touch()
        (self._known / "active").write_text(f"fleetmark-agent {version}\n", "utf-8")

    def disable(self) -> None:
        """As an operator does who wants the service off."""
        for name in ("enabled", "active"):
            (self._known / name).unlink(missing_ok=True)
