"""Real servers for tests: a Mosquitto of our own on a free port, started and stopped here."""

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """A broker that can be killed and started again on the same port."""

    def __init__(self, directory: Path, port: int | None = None) -> None:
        self.port = port or free_port()
        self._config = directory / f"mosquitto-{self.port}.conf"
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\n"
            "allow_anonymous true\n"
            "max_queued_messages 0\n"
            "max_inflight_messages 0\n"
            "persistence false\n"
            "user root\n",
            "utf-8",
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Mosquitto":
        """Start it and wait until it listens."""
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self._config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline_s = time.monotonic() + 10
        while time.monotonic() < deadline_s:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.02)
        raise RuntimeError(f"mosquitto does not listen on {self.port}")

    def signal(self, number: int) -> None:
        """Send it a signal that it survives, such as SIGSTOP and SIGCONT."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it (-9); what it held is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def wait_for(condition, timeout_s: float = 20.0, what: str = "the condition") -> None:
    """Wait until `condition()` is true; fail the test if it never is."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"{what} did not come true within {timeout_s:g} s")
        time.sleep(0.05)


@contextmanager
def each_closed(make: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Yield a `make` whose products, such as connections, are closed at the end."""
    with ExitStack() as made:

        def make_one(*args: Any, **more: Any) -> Any:
            one = make(*args, **more)
            made.callback(one.close)
            return one

        yield make_one
