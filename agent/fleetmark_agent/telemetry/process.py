"""What a process and all its descendants use: CPU, also of those that ended, and memory."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from fleetmark_agent.telemetry.base import MIN_RATE_NS, Value
from fleetmark_agent.telemetry.procfs import ProcessFiles

DISCOVER_NS = 1_000_000_000
"""How often new descendants are looked for. What one that comes and goes in between used is not
lost: its parent inherits it when it waits for it."""

PSS_SHARE = 0.005
"""Part of one core that reading PSS may cost. The kernel walks all pages for it (measured: 1.7 ms
for 150 MB of mapped weights, 6.8 ms for 650 MB), so large models have theirs read less often."""

_MAX_PASSES = 3


@dataclass(frozen=True)
class TreeReading:
    """One reading of a process tree; a field is None where it could not be observed.

    Attributes:
        cpu_percent: since the reading before, 100 = one core; None at the first.
        rss_bytes: resident memory.
        rss_file_bytes: the part of it that is mapped from files.
        pss_bytes: with shared pages divided by their users; not read every time.
    """

    cpu_percent: float | None = None
    rss_bytes: int | None = None
    rss_file_bytes: int | None = None
    pss_bytes: int | None = None

    def as_fields(self) -> dict[str, Value]:
        """Return what was observed, under the names of a telemetry record."""
        named = {
            "backend_cpu_percent": self.cpu_percent,
            "rss_bytes": self.rss_bytes,
            "rss_file_bytes": self.rss_file_bytes,
            "pss_bytes": self.pss_bytes,
        }
        return {name: value for name, value in named.items() if value is not None}


class ProcessTree:
    """Follows a process and its descendants, also those whose own parent has ended.

    Processes may vanish at any time; once the first one has ended, nothing is observed any more.
    Used by one thread at a time.
    """

    def __init__(
        self,
        pid: int,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        proc: Path = Path("/proc"),
        also: Iterable[int] = (),
    ) -> None:
        """Follow from now on; a process that is gone already gives readings without anything.

        Args:
            pid: the first process.
            clock_ns: monotonic.
            proc: where the kernel shows processes.
            also: processes outside of its tree that work for it (a running service); the tree of
                each is counted as part of this one.
        """
        self.pid = pid
        self._clock_ns = clock_ns
        self._proc = proc
        self._members: dict[int, tuple[ProcessFiles, int]] = {}
        self._cpu_s = 0.0
        self._counted_s = 0.0
        self._discover_due_ns = 0
        self._last_cpu: tuple[int, float] | None = None
        self._pss_due_ns = 0
        self._pss_allowed = True
        for one in (pid, *also):
            self._add(one)

    @property
    def alive(self) -> bool:
        """Whether the first process was there at the last reading."""
        return self.pid in self._members

    def cpu_s(self, *, discover: bool = True) -> float | None:
        """Return the CPU seconds of the tree so far; None once the first process has ended.

        Counted are the followed processes and every child that one of them waited for. A process
        that ends without being waited for takes with it what it used since the reading before.

        Args:
            discover: look for new descendants now, however lately that was done.
        """
        now_ns = self._clock_ns()
        if discover or now_ns >= self._discover_due_ns:
            self._discover()
            self._discover_due_ns = now_ns + DISCOVER_NS
        counted_s = 0.0
        for _ in range(_MAX_PASSES):
            before = len(self._members)
            counted_s = sum(self._each_cpu_s())
            if len(self._members) == before:
                break
            # A child that ended after its parent was read would be missing in both: read again.
        self._cpu_s += max(0.0, counted_s - self._counted_s)
        self._counted_s = counted_s
        return self._cpu_s if self.alive else None

    def read(self, *, pss: bool = False) -> TreeReading:
        """Observe the tree.

        Args:
            pss: read PSS now, whatever it costs; else only when its share of time allows.
        """
        now_ns = self._clock_ns()
        cpu_s = self.cpu_s(discover=pss)
        if cpu_s is None:
            return TreeReading()
        before, self._last_cpu = self._last_cpu, (now_ns, cpu_s)
        percent = None
        if before is not None and now_ns - before[0] >= MIN_RATE_NS:
            percent = round(100 * (cpu_s - before[1]) / ((now_ns - before[0]) / 1e9), 3)
        resident = [files.resident() for files, _ in self._members.values()]
        seen = [one for one in resident if one is not None]
        mapped = [one.file_bytes for one in seen if one.file_bytes is not None]
        return TreeReading(
            cpu_percent=percent,
            rss_bytes=sum(one.bytes for one in seen) if seen else None,
            rss_file_bytes=sum(mapped) if seen and len(mapped) == len(seen) else None,
            pss_bytes=self._pss_bytes() if pss or now_ns >= self._pss_due_ns else None,
        )

    def _each_cpu_s(self) -> list[float]:
        """Return the time of each member, and forget those that are gone."""
        times: list[float] = []
        for pid, (files, started_ticks) in list(self._members.items()):
            stat = files.stat()
            if stat is None or stat.started_ticks != started_ticks:
                del self._members[pid]
                continue
            times.append(stat.cpu_s)
            if pid == self.pid and stat.zombie:
                # Nobody waited for it yet, but it does not run any more.
                del self._members[pid]
        return times

    def _pss_bytes(self) -> int | None:
        if not self._pss_allowed:
            return None
        start_ns = self._clock_ns()
        try:
            parts = [files.pss_bytes() for files, _ in self._members.values()]
        except PermissionError:
            # A part of the tree would pass for all of it.
            self._pss_allowed = False
            return None
        end_ns = self._clock_ns()
        self._pss_due_ns = end_ns + int((end_ns - start_ns) / PSS_SHARE)
        seen = [part for part in parts if part is not None]
        return sum(seen) if seen else None

    def _discover(self) -> None:
        todo = list(self._members)
        while todo:
            children = self._members[todo.pop()][0].children()
            todo += [pid for pid in children if pid not in self._members and self._add(pid)]

    def _add(self, pid: int) -> bool:
        files = ProcessFiles(pid, self._proc)
        stat = files.stat()
        if stat is not None:
            self._members[pid] = (files, stat.started_ticks)
        return stat is not None
