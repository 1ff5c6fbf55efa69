"""A device as ssh finds it: real shell, tar, users and sudo in a directory of its own.

Stand-ins are apt, dpkg, systemd and the agent; what they did is told by `said`.
"""

import shutil
import stat
import textwrap
from pathlib import Path

ENTER = """\
#!/bin/sh
# enter DIR USER: run what ssh was given with DIR as the root of all files.
set -eu
[ -n "${SSH_ORIGINAL_COMMAND:-}" ]
exec unshare --mount --uts sh -c '
    for each in usr dev proc; do mount --bind /$each "$1/$each"; done
    mount --bind "$1/local" "$1/usr/local"
    hostname "$(cat "$1/etc/hostname")"
    exec env -i PATH=/usr/local/bin:/usr/bin:/bin HOME=/ \\
        /usr/sbin/chroot --userspec="$2:$2" "$1" /bin/sh -c "$SSH_ORIGINAL_COMMAND"
' enter "$1" "$2"
"""

COMMANDS = {
    "uname": "case $1 in -m) cat /etc/machine ;; -n) cat /etc/hostname ;; esac",
    "dpkg-query": "cat /var/lib/fake/package 2>/dev/null || exit 1",
    "systemctl": """\
        case $1 in
        is-active) cat /var/lib/fake/service 2>/dev/null || { echo inactive; exit 3; } ;;
        restart) echo "restart" >>/var/lib/fake/said; echo active >/var/lib/fake/service ;;
        esac
        """,
    "apt-get": """\
        for deb do :; done
        if [ -e /etc/apt-fails ]; then cat /etc/apt-fails; exit 100; fi
        version=$(dpkg-deb --field "$deb" Version)
        echo "install $version with $(ls /etc/fleetmark | tr '\\n' ' ')" >>/var/lib/fake/said
        echo "ii  $version" >/var/lib/fake/package
        echo active >/var/lib/fake/service
        cp /usr/local/agent /usr/local/bin/fleetmark-agent
        """,
}

AGENT = """\
    [ "$1 $2" = "status --json" ] || exit 2
    if [ "$(cat /var/lib/fake/service)" != active ]; then echo "error: no agent runs"; exit 1; fi
    id=$(sed -n 's/^device_id = "\\(.*\\)"/\\1/p' /etc/fleetmark/agent.toml)
    if [ -e /etc/offline ]; then
        why=$(cat /etc/offline)
        printf '{"device": "%s", "connected": false, "last_problem": "%s"}\\n' "$id" "$why"
        exit 1
    fi
    printf '{"device": "%s", "connected": true, "last_problem": null}\\n' "$id"
    """

SUDOERS = """\
Defaults secure_path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
root ALL=(ALL:ALL) ALL
"""


PAM = """\
auth required pam_deny.so
account required pam_permit.so
session required pam_permit.so
"""
"""What sudo asks: no password is ever right."""


class FakeDevice:
    """The files of one device."""

    def __init__(self, root: Path, node: str, machine: str = "x86_64", user: str = "root") -> None:
        self.root = root
        self.user = user
        for name in ("usr", "dev", "proc", "local/bin", "etc/pam.d", "root", "home", "tmp"):
            (root / name).mkdir(parents=True)
        for name in ("run/systemd/system", "var/lib/fake", "var/tmp"):
            (root / name).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            (root / name).symlink_to(f"usr/{name}")
        for name in ("tmp", "var/tmp"):
            (root / name).chmod(0o1777)
        self.write("etc/hostname", node + "\n")
        self.write("etc/hosts", f"127.0.0.1 localhost {node}\n")
        self.write("etc/machine", machine + "\n")
        self.write("etc/passwd", "root:x:0:0::/root:/bin/sh\npi:x:1000:1000::/home:/bin/sh\n")
        self.write("etc/group", "root:x:0:\npi:x:1000:\n")
        self.write("etc/shadow", "root:*:1:0:99999:7:::\npi:*:1:0:99999:7:::\n")
        self.write("etc/sudoers", SUDOERS).chmod(0o440)
        self.write("etc/pam.d/sudo", PAM)
        for name, text in COMMANDS.items():
            self.command(name, text)
        self._program(root / "local" / "agent", AGENT)

    def write(self, name: str, text: str) -> Path:
        """Write a file of it."""
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
        return file

    def command(self, name: str, text: str) -> None:
        """Give it a command of its own."""
        self._program(self.root / "local" / "bin" / name, text)

    def let_sudo(self) -> None:
        """Let the user pi become root without a password."""
        file = self.root / "etc" / "sudoers"
        file.chmod(0o640)
        file.write_text(SUDOERS + "pi ALL=(ALL) NOPASSWD: ALL\n", "utf-8")
        file.chmod(0o440)

    def read(self, name: str) -> str:
        """Read a file of it."""
        return (self.root / name).read_text("utf-8")

    def modes(self) -> dict[str, tuple[str, int, int]]:
        """Return mode, owner and group of what is in /etc/fleetmark."""
        found = {}
        for file in (self.root / "etc" / "fleetmark").iterdir():
            status = file.stat()
            found[file.name] = (stat.filemode(status.st_mode), status.st_uid, status.st_gid)
        return found

    def group(self, name: str) -> int:
        """Return the number of a group that was made there."""
        lines = (line.split(":") for line in self.read("etc/group").splitlines())
        return next(int(line[2]) for line in lines if line[0] == name)

    @property
    def said(self) -> list[str]:
        """What was installed and started, in order."""
        file = self.root / "var" / "lib" / "fake" / "said"
        return file.read_text("utf-8").splitlines() if file.exists() else []

    def remove(self) -> None:
        """Take it away; nothing is mounted in it outside of a session."""
        shutil.rmtree(self.root)

    def _program(self, file: Path, text: str) -> None:
        file.write_text("#!/bin/sh\n" + textwrap.dedent(text), "utf-8")
        file.chmod(0o755)
