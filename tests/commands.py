"""Our own commands as a user runs them: separate processes on loopback, ended with the test."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from servers import free_port


class Command:
    """A running command whose output goes to a file."""

    def __init__(self, module: str, *args: object, log: Path, env: dict[str, str] | None = None):
        self.log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"from {module} import main; main()", *map(str, args)],
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(env or {})},
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def output(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def end(self, number: signal.Signals = signal.SIGINT, timeout_s: float = 30) -> int:
        """Send a signal, wait, return the exit code (negative: died of a signal)."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """Kill it (-9), if it still runs."""
        self.end(signal.SIGKILL)


def fleetmark(*args: object, log: Path, env: dict[str, str] | None = None) -> Command:
    """Start `fleetmark ARGS`."""
    return Command("fleetmark_collector.cli.main", *args, log=log, env=env)


def listens(port: int) -> bool:
    return any(
        connection.laddr.port == port and connection.status == psutil.CONN_LISTEN
        for connection in psutil.net_connections("tcp")
    )


class Broker:
    """`fleetmark broker` on a free port, and again on the same port."""

    def __init__(self, directory: Path, *, embedded: bool) -> None:
        self.port = free_port()
        self.directory = directory
        self._flags = ["--embedded"] if embedded else []
        self.command: Command | None = None

    def start(self) -> "Broker":
        self.command = fleetmark(
            *("broker", "--port", self.port, "--data-dir", self.directory, *self._flags),
            log=self.directory / "broker.log",
        )
        deadline_s = time.monotonic() + 30
        while not listens(self.port):
            if self.command.process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"no broker: {self.command.output()}")
            time.sleep(0.02)
        return self

    def kill(self) -> None:
        if self.command is not None:
            self.command.kill()
