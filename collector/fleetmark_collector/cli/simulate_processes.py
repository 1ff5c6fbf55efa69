"""The processes of a simulation: started, listened to, told to end, and added up."""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from fleetmark_protocol.errors import ProcessFailed

MODULE = "fleetmark_agent"
KILL_S = 10.0
INTERRUPTED = 130

Report = dict[str, Any]
"""What a process prints a second: an object of JSON (`fleetmark_agent.simulation.fleet`)."""

SUMS = (
    "devices",
    "connected",
    "connects",
    "made",
    "samples",
    "carried",
    "sent",
    "resent",
    "acked",
    "backlog",
    "thinned",
    "refused",
    "skipped",
    "trials",
    "jobs",
    "cpu_s",
    "rss_bytes",
)
MAXIMA = ("elapsed_s", "oldest_s", "late_s", "delay_max_s")
PHASES = ("prepare", "run", "drain", "end")


def shares(devices: int, processes: int) -> list[tuple[int, int]]:
    """Return the first device and the number of devices of each process, as even as can be."""
    edges = [devices * number // processes for number in range(processes + 1)]
    return [(first, end - first) for first, end in pairwise(edges)]


def added_up(reports: Sequence[Mapping[str, Any]]) -> Report:
    """Return the reports of all processes as if one had made them."""
    total: Report = {name: sum(one[name] for one in reports) for name in SUMS}
    for name in MAXIMA:
        total[name] = max((one[name] for one in reports if one[name] is not None), default=None)
    total["phase"] = min((one["phase"] for one in reports), key=PHASES.index, default="prepare")
    delays: Counter[str] = Counter()
    for one in reports:
        delays.update(one["delays"])
    total["delays"] = dict(delays)
    known = [one["unaccounted"] for one in reports]
    total["unaccounted"] = None if None in known or not known else sum(known)
    return total


def percentile(delays: Mapping[str, int], percent: float) -> float | None:
    """Return a percentile of delays that were counted in classes: the end of its class."""
    wanted = sum(delays.values()) * percent / 100
    for length, count in sorted(((float(key), count) for key, count in delays.items())):
        wanted -= count
        if wanted <= 0:
            return length
    return None


@dataclass
class _Process:
    """A running process, and the last that it said."""

    name: str
    popen: "subprocess.Popen[bytes]"
    unread: bytes = b""
    said: Report | None = None
    ended: bool = False

    @property
    def settled(self) -> bool:
        """Whether it has settled up, which is the last that it says."""
        return self.said is not None and self.said["unaccounted"] is not None


@dataclass
class Processes:
    """Used by one thread; see `running`."""

    _all: list[_Process] = field(default_factory=list)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _ending: bool = False

    def start(self, arguments: Sequence[str]) -> None:
        """Start a process, unless all are to end; its errors go to our own standard error."""
        if self._ending:
            return
        popen = subprocess.Popen(
            [sys.executable, "-m", MODULE, "simulate", *arguments]
            + ["--parent-pid", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            # All that is set was resolved here; the agent's own settings are another matter.
            env={k: v for k, v in os.environ.items() if not k.startswith("FLEETMARK_")},
            # A Ctrl-C is for us: we tell them.
            start_new_session=True,
        )
        process = _Process(f"process {len(self._all) + 1}", popen)
        self._all.append(process)
        if popen.stdout is not None:
            os.set_blocking(popen.stdout.fileno(), False)
            self._selector.register(popen.stdout, selectors.EVENT_READ, process)

    def follow(self, tell: Callable[[Report], None], over: Callable[[], bool]) -> None:
        """Listen, and tell the sum whenever somebody has said something, until it is over.

        It is over, too, when all have ended, or when one has failed.
        """
        while not over() and any(not one.ended for one in self._all) and not self.failed():
            heard = False
            for key, _ in self._selector.select(0.5):
                heard = self._read(key.data) or heard
            if heard:
                tell(self.total())

    def heard(self) -> bool:
        """Whether all have said something."""
        return all(one.said is not None for one in self._all)

    def total(self) -> Report:
        """Return the sum of what all have said last."""
        return added_up([one.said for one in self._all if one.said is not None])

    def end(self) -> None:
        """Tell all to end; told again, they do not wait for acknowledgements."""
        self._ending = True
        for one in self._all:
            if one.popen.poll() is None:
                one.popen.send_signal(signal.SIGTERM)

    def failed(self) -> bool:
        """Whether one has ended before its time; it has said why, on our standard error."""
        return any(one.ended and not one.settled for one in self._all)

    def code(self) -> int:
        """Return the exit code that all together come to.

        Raises:
            ProcessFailed: one was killed.
        """
        for one in self._all:
            code = one.popen.returncode or 0
            if one.settled or not one.ended:
                continue
            if self._ending and code == -signal.SIGTERM:
                # It was told to end before it had begun.
                return INTERRUPTED
            if code < 0:
                raise ProcessFailed(
                    f"{one.name} of the simulation was killed (signal {-code})",
                    hint="what its devices had made is in --state-dir, if there is one",
                )
            return code or 1
        if not self._all:
            return INTERRUPTED
        return max(one.popen.returncode or 0 for one in self._all)

    def close(self) -> None:
        """End all that still run: asked first, then killed."""
        deadline_s = time.monotonic() + KILL_S
        for _ in range(2):
            self.end()
        for one in self._all:
            try:
                one.popen.wait(max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                one.popen.kill()
                one.popen.wait()
            if one.popen.stdout is not None:
                one.popen.stdout.close()
        self._selector.close()

    def _read(self, process: _Process) -> bool:
        """Take what a process has said; return whether that was a report."""
        out = process.popen.stdout
        chunk = out.read() if out is not None else b""
        if chunk is None:
            return False
        if not chunk:
            self._selector.unregister(out)  # type: ignore[arg-type]
            process.popen.wait()
            process.ended = True
            return False
        *lines, process.unread = (process.unread + chunk).split(b"\n")
        for line in lines:
            process.said = json.loads(line)
        return bool(lines)


@contextmanager
def running() -> Iterator[Processes]:
    """Give processes that never outlive the block, and that hear of Ctrl-C and SIGTERM."""
    processes = Processes()
    before = {
        number: signal.signal(number, lambda *_: processes.end())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield processes
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        processes.close()
