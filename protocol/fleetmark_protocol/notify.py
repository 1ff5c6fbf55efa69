"""Tells systemd how a service of ours is doing, where it asked to be told.

Source: sd_notify(3). A datagram of KEY=value lines to the socket named in the environment; without
that socket nobody listens, and nothing is said.
"""

import os
import socket
from collections.abc import Mapping

WATCHDOG_SHARE = 3
"""Signs of life for each interval of the watchdog, so that a late one costs nothing."""
SAY_S = 5.0
"""How long systemd may take to listen: while it hangs, the service works."""


class Notifier:
    """Any thread may use it."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """Read where to speak to, and how often; opens nothing.

        Args:
            environment: of this process, as systemd made it.
        """
        self._address = environment.get("NOTIFY_SOCKET")
        self.interval_s = _interval_s(environment)
        """Between two signs of life; None where no watchdog waits for them."""

    def say(self, **assignments: object) -> bool:
        """Send assignments such as READY=1; return whether somebody was there to hear them."""
        if not self._address:
            return False
        # A leading @ stands for the NUL of an abstract address.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        text = "\n".join(f"{key}={_one_line(value)}" for key, value in assignments.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
                to.settimeout(SAY_S)
                to.connect(address)
                to.sendall(text.encode())
        except OSError:
            # The service does its work, whether or not anybody is told.
            return False
        return True


def _interval_s(environment: Mapping[str, str]) -> float | None:
    wanted, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID")
    if not wanted.isdecimal() or int(wanted) == 0 or pid not in (None, str(os.getpid())):
        return None
    return int(wanted) / 1e6 / WATCHDOG_SHARE


def _one_line(value: object) -> str:
    return " ".join(str(value).split())
