"""A real sshd on a free port of loopback, whose every login is a device of its own."""

import os
import shutil
import subprocess
import time
from pathlib import Path

from fakes.fake_device import ENTER, FakeDevice
from servers import free_port

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
PRIVILEGE_SEPARATION = Path("/run/sshd")


def why_not() -> str | None:
    """Return why no device can be played here; None: one can."""
    if not Path(SSHD).exists() or shutil.which("ssh") is None or shutil.which("sudo") is None:
        return "ssh, sshd and sudo are not all installed (tools/setup.sh test does it)"
    if os.geteuid() != 0:
        return "a device's files of its own need root"
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return None if tried.returncode == 0 else "no mount namespace can be made here"


class SshServer:
    """Devices behind one sshd; each is a host of `config`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.config = directory / "ssh_config"
        self.devices: dict[str, FakeDevice] = {}
        self._keys = directory / "authorized_keys"
        self._keys.touch()
        self._known = directory / "known_hosts"
        self._log = directory / "sshd.log"
        self._enter = directory / "enter"
        self._enter.write_text(ENTER, "utf-8")
        self._enter.chmod(0o755)
        host_key = self._key("host")
        self._known.write_text(
            f"[127.0.0.1]:{self.port} {host_key.with_suffix('.pub').read_text('utf-8')}", "utf-8"
        )
        (directory / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {host_key}\nPidFile none\n"
            f"AuthorizedKeysFile {self._keys}\nStrictModes no\nUsePAM no\n"
            "PasswordAuthentication no\nPermitRootLogin forced-commands-only\n"
            "MaxStartups 100\nPrintMotd no\n",
            "utf-8",
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "SshServer":
        """Start it and wait until it listens."""
        PRIVILEGE_SEPARATION.mkdir(exist_ok=True)
        self._process = subprocess.Popen(
            [SSHD, "-D", "-f", self.directory / "sshd_config", "-E", self._log]
        )
        deadline_s = time.monotonic() + 10
        while not self._log.exists() or "listening" not in self._log.read_text("utf-8"):
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"no sshd: {self._log.read_text('utf-8')}")
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def device(self, host: str, **what: str) -> FakeDevice:
        """Return a new device that ssh reaches by this name."""
        made = FakeDevice(self.directory / f"device-{host}", what.pop("node", host), **what)
        key = self._key(host)
        line = f'command="{self._enter} {made.root} {made.user}" '
        with self._keys.open("a", encoding="utf-8") as keys:
            keys.write(line + key.with_suffix(".pub").read_text("utf-8"))
        self.host(host, identity=key)
        self.devices[host] = made
        return made

    def host(
        self,
        name: str,
        *,
        identity: Path | None = None,
        port: int | None = None,
        known: Path | None = None,
    ) -> None:
        """Add a host to the configuration; without more, one whose key nobody takes."""
        with self.config.open("a", encoding="utf-8") as config:
            config.write(
                f"Host {name}\n  HostName 127.0.0.1\n  User root\n  Port {port or self.port}\n"
                f"  IdentityFile {identity or self._key('stranger')}\n  IdentitiesOnly yes\n"
                f"  UserKnownHostsFile {known or self._known}\n  StrictHostKeyChecking ask\n"
            )

    def _key(self, name: str) -> Path:
        file = self.directory / f"key-{name}"
        if not file.exists():
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", file], check=True
            )
        return file
