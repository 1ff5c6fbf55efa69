"""Reads one process from /proc in as few steps as it takes, because it is read during trials.

psutil searches all processes of the machine for children and gives no file-backed memory; both
stand in files of the process itself. Nothing here raises for a process that is gone.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import psutil

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_KIB = 1024


@dataclass(frozen=True)
class Stat:
    """What stands in /proc/PID/stat.

    Attributes:
        started_ticks: since boot; with the pid it names a process for good.
        zombie: ended, and not yet waited for.
        cpu_s: user and system time of the process and of all children it has waited for.
    """

    started_ticks: int
    zombie: bool
    cpu_s: float


@dataclass(frozen=True)
class Resident:
    """Resident memory of a process; `file_bytes` is the part that is mapped from files."""

    bytes: int
    file_bytes: int | None


class ProcessFiles:
    """The files of one process, by pid alone: whether it is still the same one says `Stat`."""

    def __init__(self, pid: int, proc: Path = Path("/proc")) -> None:
        """Prepare; `proc` is another one in tests."""
        self.pid = pid
        folder = proc / str(pid)
        self._stat = folder / "stat"
        self._status = folder / "status"
        self._rollup = folder / "smaps_rollup"
        self._tasks = folder / "task"

    def stat(self) -> Stat | None:
        """Return times and state; None when the process is gone."""
        text = _read(self._stat)
        # The name stands in parentheses and may hold spaces and parentheses itself.
        fields = text.rpartition(b")")[2].split()
        if len(fields) < 20:
            return None
        cpu_ticks = sum(int(field) for field in fields[11:15])
        return Stat(int(fields[19]), fields[0] in b"ZX", cpu_ticks / _TICKS_PER_S)

    def resident(self) -> Resident | None:
        """Return resident memory; None when the process is gone or a zombie."""
        text = _read(self._status)
        resident = _kib(text, b"\nVmRSS:")
        return None if resident is None else Resident(resident, _kib(text, b"\nRssFile:"))

    def pss_bytes(self) -> int | None:
        """Return resident memory with shared pages divided by their users.

        The kernel walks every page for it: about 10 ms per GiB. None when the process is gone.

        Raises:
            PermissionError: this process belongs to somebody else.
        """
        try:
            return _kib(self._rollup.read_bytes(), b"\nPss:")
        except PermissionError:
            raise
        except OSError:
            return None

    def children(self) -> list[int]:
        """Return the pids of its children; none when the process is gone."""
        found: list[int] = []
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for task in os.listdir(self._tasks):  # noqa: PTH208 - names are all it takes
                with contextlib.suppress(ProcessLookupError):
                    found += map(int, (self._tasks / task / "children").read_bytes().split())
            return found
        # A thread that ended meanwhile, or a kernel without these files.
        with contextlib.suppress(psutil.Error):
            return [child.pid for child in psutil.Process(self.pid).children()]
        return []


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def _kib(text: bytes, label: bytes) -> int | None:
    _, found, rest = text.partition(label)
    return int(rest.split(maxsplit=1)[0]) * _KIB if found else None
