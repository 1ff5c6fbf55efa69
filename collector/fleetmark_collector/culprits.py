"""Bounds what a device's nonsense may cost: time to read it, letters, lines of the log.

A message that is wrong may cost a hundred times what a right one does. Who sends many is not
listened to for a while, so that the others keep their time and room; what it says meanwhile is not
acknowledged, so an honest device that makes mistakes sends it again and loses nothing.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from fleetmark_protocol import logs

ALLOWED_BYTES = 4_000_000
"""Of messages in which something was wrong; more within the time below, and nobody listens."""

PAUSE_S = 60.0
"""How long nobody listens then; and the time in which what was counted is forgotten."""

LEAST_BYTES = 40_000
"""What the smallest wrong message counts for: each is a line of the log and a write to the disk."""

MAX_FLEETS = 8
"""New fleets in an hour in which one device name may turn up. A broker that holds a device to its
own name may still let it name any fleet, and each would be rows and series of its own."""

FLEETS_S = 3600.0
"""How long a new fleet counts among them, and how often it is told that there were more."""

MAX_KNOWN = 100_000
"""Devices remembered; beyond it all are forgotten, and begin anew."""

Key = tuple[str, str]
Channel = Literal["data", "self"]
"""Records, or what a device says of itself: statuses and inventories. Those come once for each
connect: nonsense among the records must not cost them, and what is ignored is asked for again."""


@dataclass
class _Account:
    """What a device has run up since a time, and until when it is ignored."""

    since_s: float
    bytes: int = 0
    ignored_until_s: float = 0.0


@dataclass
class _NewFleets:
    """When a device name turned up in fleets it had not been in, and when that was told."""

    since_s: list[float] = field(default_factory=list)
    told_s: float | None = None


class Culprits:
    """Counts per (fleet, device) and channel; any thread may use it."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        """Know nothing ill of anybody.

        Args:
            clock_s: monotonic.
        """
        self._clock_s = clock_s
        self._log = logs.get("culprits")
        self._lock = threading.Lock()
        self._accounts: dict[tuple[Key, Channel], _Account] = {}
        self._known: frozenset[Key] = frozenset()
        self._missed_s: float | None = None
        self._admitted: set[Key] = set()
        self._new: dict[str, _NewFleets] = {}

    def ignored(self, device: Key, channel: Channel = "data") -> bool:
        """Whether a device's messages of a channel are not to be read now."""
        now_s = self._clock_s()
        account = self._accounts.get((device, channel))
        if not (account is not None and now_s < account.ignored_until_s) and (
            device in self._known or device in self._admitted or self._admit(device)
        ):
            return False
        if channel == "self":
            with self._lock:
                self._missed_s = now_s if self._missed_s is None else self._missed_s
        return True

    def learn(self, known: Iterable[Key]) -> None:
        """Take note of the devices that are in the registry: their fleets are not new."""
        self._known = frozenset(known)
        with self._lock:
            if self._missed_s is not None:
                # Some of those may be among them.
                self._missed_s = self._clock_s() - FLEETS_S

    def ask_again(self) -> bool:
        """Whether devices' words of themselves are to be had again, as some were not listened to.

        At the earliest when those may be listened to, so once an hour at most; then it is noted as
        done. Whoever is ignored even then is noted anew.
        """
        with self._lock:
            if self._missed_s is None or self._clock_s() - self._missed_s < FLEETS_S:
                return False
            self._missed_s = None
            return True

    def _admit(self, device: Key) -> bool:
        """Take a device up whose name was not in this fleet before, unless that happens often."""
        fleet, name = device
        with self._lock:
            now_s = self._clock_s()
            if len(self._admitted) >= MAX_KNOWN or len(self._new) >= MAX_KNOWN:
                self._admitted.clear()
                self._new.clear()
            new = self._new.setdefault(name, _NewFleets())
            new.since_s = [one for one in new.since_s if now_s - one < FLEETS_S]
            if len(new.since_s) < MAX_FLEETS:
                new.since_s.append(now_s)
                self._admitted.add(device)
                return True
            if new.told_s is not None and now_s - new.told_s < FLEETS_S:
                return False
            new.told_s = now_s
        self._log.warning(
            "too_many_fleets",
            device=name,
            fleet=fleet,
            most_per_hour=MAX_FLEETS,
            hint="in others it is listened to later, some each hour; who sends it?",
        )
        return False

    def charge(self, device: Key, size_bytes: int, channel: Channel = "data") -> None:
        """Count a message in which something was wrong.

        Args:
            device: who sent it.
            size_bytes: of the message.
            channel: which it came on; each has an account of its own.
        """
        with self._lock:
            now_s = self._clock_s()
            account = self._accounts.get((device, channel))
            if account is None or now_s - account.since_s >= PAUSE_S:
                if account is None and len(self._accounts) >= MAX_KNOWN:
                    self._accounts.clear()
                account = self._accounts[device, channel] = _Account(now_s)
            account.bytes += max(size_bytes, LEAST_BYTES)
            if account.bytes <= ALLOWED_BYTES or now_s < account.ignored_until_s:
                return
            account.since_s = now_s
            account.ignored_until_s = now_s + PAUSE_S
        self._log.warning(
            "device_ignored",
            fleet=device[0],
            device=device[1],
            channel=channel,
            seconds=PAUSE_S,
            reason="too much of what it sends is not understood",
            hint="see the dead letters; `fleetmark revoke` shuts it out",
        )


def sender(topic: str) -> Key:
    """Return whose topic it is; of one that is none of ours anything."""
    levels = topic[:300].split("/")
    return (levels[2], levels[3]) if len(levels) > 3 else ("", topic[:100])
