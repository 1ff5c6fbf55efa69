"""Finds the process that listens on a TCP port: an engine that somebody else started."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

_LISTEN = "0A"
_INIT = 1
_FORWARDERS = ("docker-proxy", "rootlessport", "slirp4netns", "pasta", "passt")
"""They listen for a server in another network namespace and do none of its work."""


@dataclass(frozen=True)
class _Socket:
    inode: str
    uid: int


@dataclass(frozen=True)
class _Process:
    pid: int
    parent: int
    command: tuple[str, ...]


def listener_pid(port: int, proc: Path = Path("/proc")) -> int | None:
    """Return the process that listens on a TCP port of this machine.

    Found by the socket among the open files of a process. Where those cannot be read, because it
    belongs to another user, it is the one process of the socket's owner that can be meant: the one
    whose command line says that it serves, or the owner's only one.

    Args:
        port: TCP port.
        proc: root of the process files; another one in tests.

    Returns:
        The process, or of several that share the socket their common parent; None where nobody
        listens, or where it cannot be told who does the work.
    """
    sockets = _listening(port, proc)
    if not sockets:
        return None
    holders = _holders({socket.inode for socket in sockets}, proc)
    # Where systemd opened the socket for its service, it holds it too.
    holders = [process for process in holders if process.pid != _INIT]
    found = _first(holders) if holders else _only_one_meant(sockets[0].uid, proc)
    if found is None or Path(found.command[0] if found.command else "").name in _FORWARDERS:
        return None
    return found.pid


def _listening(port: int, proc: Path) -> list[_Socket]:
    """Return sockets that listen on the port."""
    found = []
    for table in ("tcp", "tcp6"):
        for line in _read(proc / "net" / table).splitlines()[1:]:
            fields = line.split()
            if len(fields) < 10 or fields[3] != _LISTEN:
                continue
            if int(fields[1].rpartition(":")[2], 16) == port:
                found.append(_Socket(inode=fields[9], uid=int(fields[7])))
    return found


def _holders(inodes: set[str], proc: Path) -> list[_Process]:
    """Return processes that have one of the sockets open, as far as their files can be read."""
    links = {f"socket:[{inode}]" for inode in inodes}
    return [_process(pid, proc) for pid in _pids(proc) if links & _open_files(pid, proc)]


def _open_files(pid: int, proc: Path) -> set[str]:
    found = set()
    folder = proc / str(pid) / "fd"
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):  # noqa: PTH208 - names are all it takes
            with contextlib.suppress(OSError):
                found.add(os.readlink(folder / name))  # noqa: PTH115 - no path, only its text
    return found


def _only_one_meant(uid: int, proc: Path) -> _Process | None:
    """Return the one process of a user that can be a server; None if there are more, or none."""
    theirs = [_process(pid, proc) for pid in _pids(proc) if _owner(pid, proc) == uid]
    # Threads of the kernel have no command line.
    theirs = [process for process in theirs if process.command and process.pid != _INIT]
    serving = [process for process in theirs if _serves(process)]
    tops = _tops(serving or theirs)
    return tops[0] if len(tops) == 1 else None


def _serves(process: _Process) -> bool:
    words = [Path(word).name for word in process.command[:2]]
    return any(word in ("serve", "server") or word.endswith("-server") for word in words)


def _first(processes: list[_Process]) -> _Process | None:
    """Return the one from which the others inherited, the oldest if there are several such."""
    return min(_tops(processes), key=lambda process: process.pid, default=None)


def _tops(processes: list[_Process]) -> list[_Process]:
    """Return those whose parent is not among them."""
    pids = {process.pid for process in processes}
    return [process for process in processes if process.parent not in pids]


def _process(pid: int, proc: Path) -> _Process:
    # The name stands in parentheses and may hold spaces and parentheses itself.
    stat = _read(proc / str(pid) / "stat").rpartition(")")[2].split()
    command = _read(proc / str(pid) / "cmdline").rstrip("\0").split("\0")
    return _Process(
        pid=pid,
        parent=int(stat[1]) if len(stat) > 1 else 0,
        command=tuple(word for word in command if word),
    )


def _owner(pid: int, proc: Path) -> int | None:
    # By what the process itself says: the owner of its folder is root where it must not be traced.
    for line in _read(proc / str(pid) / "status").splitlines():
        if line.startswith("Uid:"):
            return int(line.split()[2])
    return None


def _pids(proc: Path) -> list[int]:
    names = os.listdir(proc)  # noqa: PTH208 - names are all it takes
    return sorted(int(name) for name in names if name.isdigit())


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8", "replace")
    except OSError:
        return ""
