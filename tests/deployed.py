"""The centre as deploy/ makes it, in a directory of a test: its secrets, its broker's own files."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from commands import Command, fleetmark, listens
from fleetmark_protocol.settings import BrokerSettings
from servers import MOSQUITTO, free_port, wait_for

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
COLLECTOR = "fleetmark-collector"


def setup_centre(keep: Path, *args: object) -> subprocess.CompletedProcess[str]:
    """Run deploy/setup_centre.py on a directory of secrets."""
    return subprocess.run(
        [sys.executable, DEPLOY / "setup_centre.py", "--dir", keep, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=60,
    )


def mosquitto_config(keep: Path, port: int, certificates_port: int) -> str:
    """Return deploy/mosquitto/mosquitto.conf with a test's own ports and places, else unchanged."""
    text = (DEPLOY / "mosquitto" / "mosquitto.conf").read_text("utf-8")
    for theirs, ours in (
        ("listener 8883\n", f"listener {port} 127.0.0.1\n"),
        ("listener 8884\n", f"listener {certificates_port} 127.0.0.1\n"),
        ("/etc/fleetmark/broker/", f"{keep}/broker/"),
    ):
        assert theirs in text
        text = text.replace(theirs, ours)
    # As root it would become the user `mosquitto`, who may not read a test's directory.
    return text + ("user root\n" if os.geteuid() == 0 else "")


class Centre:
    """Secrets made by the script, and a Mosquitto that runs with the deployment's configuration."""

    def __init__(self, directory: Path, secrets: Path | None = None) -> None:
        """Make the secrets, or take a copy of some that were made before."""
        self.keep = directory / "secrets"
        self.port = free_port()
        self.certificates_port = free_port()
        self.data_dir = directory / "broker"
        self.data_dir.mkdir()
        if secrets is None:
            made = self.setup("init", "centre.example")
            assert made.returncode == 0, made.stderr
        else:
            shutil.copytree(secrets, self.keep)
        self._config = directory / "mosquitto.conf"
        self._config.write_text(
            mosquitto_config(self.keep, self.port, self.certificates_port), "utf-8"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def setup(self, *args: object) -> subprocess.CompletedProcess[str]:
        return setup_centre(self.keep, *args)

    def enroll(self, *args: object) -> subprocess.CompletedProcess[str]:
        """Run `fleetmark enroll`; by passwords and in fleet `lab` unless `args` say otherwise."""
        kind = () if "--certificate" in args else ("--password",)
        fleet = () if "--fleet" in args else ("--fleet", "lab")
        return self.command("enroll", *args, *kind, *fleet)

    def command(self, *args: object) -> subprocess.CompletedProcess[str]:
        """Run a command of the collector on the secrets."""
        return subprocess.run(
            [
                *(sys.executable, "-m", "fleetmark_collector", *map(str, args)),
                *("--identities", self.keep, "--data-dir", self.data_dir),
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )

    def start(self, **env: str) -> "Centre":
        """Start the broker and wait until it listens."""
        with (self.data_dir / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [MOSQUITTO, "-c", self._config],
                stdout=log,
                stderr=log,
                cwd=self.data_dir,
                env={**os.environ, **env},
            )
        wait_for(lambda: listens(self.port), what="the broker")
        return self

    @property
    def memory_mb(self) -> int:
        """What the broker has of the machine's memory."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text("ascii")
        return int(status.partition("VmRSS:")[2].split()[0]) // 1024

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def reload(self) -> None:
        """Have the broker read users and ACL again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None

    def password_file(self, user: str) -> Path:
        name = "collector-password" if user == COLLECTOR else f"devices/{user}/agent-password"
        return self.keep / name

    def settings(self, user: str) -> BrokerSettings:
        """Return how a user of this centre connects."""
        return BrokerSettings(
            host="localhost",
            port=self.port,
            username=user,
            password_file=self.password_file(user),
            ca_file=self.keep / "ca.crt",
        )

    def start_agent(self, device: str, directory: Path, **env: str) -> Command:
        """Start an agent by the device's kit; places and port are this machine's."""
        kit = self.keep / "devices" / device
        secrets = {
            "FLEETMARK_BROKER__PASSWORD_FILE": kit / "agent-password",
            "FLEETMARK_BROKER__CERT_FILE": kit / "agent.crt",
            "FLEETMARK_BROKER__KEY_FILE": kit / "agent.key",
        }
        by_password = (kit / "agent-password").exists()
        here = {
            "FLEETMARK_BROKER__HOST": "localhost",
            "FLEETMARK_BROKER__PORT": str(self.port if by_password else self.certificates_port),
            "FLEETMARK_BROKER__CA_FILE": str(kit / "agent-ca.crt"),
            **{name: str(file) for name, file in secrets.items() if file.exists()},
            "FLEETMARK_LOG_LEVEL": "debug",
            "FLEETMARK_STATE_DIR": str(directory / f"state-{device}"),
            "FLEETMARK_RUNNER__LOCK_FILE": str(directory / "bench.lock"),
        }
        return Command(
            *("fleetmark_agent.cli.main", "run", "--config", kit / "agent.toml"),
            log=directory / f"{device}.log",
            env={**here, **env},
        )

    def collector_config(self, directory: Path, store: str = "") -> Path:
        """Return a collector's settings; `store` is its [store] table."""
        file = directory / "collector.toml"
        file.write_text(
            # What is logged in no case, a secret, must not be in this log either.
            "log_level = 'debug'\n"
            f"data_dir = '{directory}/data'\n[broker]\nhost = 'localhost'\nport = {self.port}\n"
            f"username = '{COLLECTOR}'\npassword_file = '{self.password_file(COLLECTOR)}'\n"
            f"ca_file = '{self.keep}/ca.crt'\n{store}",
            "utf-8",
        )
        return file

    def start_collector(self, config: Path) -> Command:
        return fleetmark("collect", "--config", config, log=config.with_name("collector.log"))
