"""A clock that all processes of a machine share and that nobody can set: time since it started."""

import time
from dataclasses import dataclass
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class BootTime:
    """A moment; two of different boots cannot be compared.

    Attributes:
        boot_id: of this start of the machine.
        ns: nanoseconds since it, time asleep included.
    """

    boot_id: str
    ns: int


def boot_time() -> BootTime:
    """Return now."""
    return BootTime(_boot_id(), time.clock_gettime_ns(time.CLOCK_BOOTTIME))


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        # No Linux of the usual kind: the lease counts on its lock file alone after a restart.
        return "unknown"
