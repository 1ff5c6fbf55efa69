"""Reads all sensors again and again: slowly while idle, faster and silently during a trial."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fleetmark_agent.telemetry.base import Sensor, Value
from fleetmark_agent.telemetry.counters import CounterReader, ReadCounters
from fleetmark_agent.telemetry.process import ProcessTree
from fleetmark_agent.telemetry.sample import Sample
from fleetmark_agent.telemetry.watch import SensorHealth, Watched
from fleetmark_agent.telemetry.window import OpenWindow, Window
from fleetmark_protocol import logs
from fleetmark_protocol.messages import SensorInfo

__all__ = ["Emit", "Sample", "Sampler", "Window", "next_due_ns"]

Emit = Callable[[Sample, str | None, str | None], None]
"""Takes a sample with the ids of its job and trial, where it belongs to any."""
STOP_S = 2.0
"""How long a stop waits for a sensor that is being read."""


class Sampler:
    """Owns the sampler thread; every method may be called from any thread.

    Two locks: one for what is read and known, held for a few milliseconds, and one for handing
    samples on, which may wait for a disk. Whoever takes both takes the second one first.
    """

    def __init__(
        self,
        sensors: Iterable[Sensor],
        emit: Emit,
        interval_s: float,
        trial_interval_s: float,
        counters: ReadCounters | None = None,
        mono_ns: Callable[[], int] = time.monotonic_ns,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Prepare; nothing is sampled before `start`, but windows can be used without it.

        Args:
            sensors: probed here.
            emit: called in time order, never inside a window; what it raises is logged.
            interval_s: between two samples.
            trial_interval_s: the same inside a window.
            counters: read at both ends of a window; default: this machine's.
            mono_ns: monotonic clock.
            wall_ns: clock since the Unix epoch.
        """
        self._sensors = tuple(Watched(sensor) for sensor in sensors)
        self._energy_source = next(
            (one.status.energy_source for one in self._sensors if one.status.energy_source), None
        )
        self._emit = emit
        self._interval_ns = round(interval_s * 1e9)
        self._trial_interval_ns = round(trial_interval_s * 1e9)
        self._counters = counters or CounterReader(mono_ns=mono_ns, wall_ns=wall_ns).read
        self._mono_ns = mono_ns
        self._wall_ns = wall_ns
        self._emitting = threading.Lock()
        self._changed = threading.Condition()
        self._window: OpenWindow | None = None
        self._tree: ProcessTree | None = None
        self._job_id: str | None = None
        self._latest: Sample | None = None
        self._stopping = False
        self._refused = False
        self._log = logs.get("telemetry")
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; one that a sensor holds up is left to itself. May be called twice."""
        self._stopping = True
        if self._changed.acquire(timeout=STOP_S):
            self._changed.notify_all()
            self._changed.release()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    @property
    def alive(self) -> bool:
        """Whether its thread still samples."""
        return self._thread.is_alive()

    def latest(self) -> Sample | None:
        """Return the newest sample, taken in a window or not; None before the first."""
        return self._latest

    def set_job(self, job_id: str | None) -> None:
        """Say which job the samples outside windows belong to."""
        with self._changed:
            self._job_id = job_id

    def follow(self, pid: int | None, also: Iterable[int] = ()) -> None:
        """Let samples, and later windows of `pid`, observe its process tree; or none.

        Args:
            pid: the first process.
            also: see `ProcessTree`.
        """
        others = tuple(also)
        with self._changed:
            if pid is None:
                self._tree = None
            elif others:
                self._tree = ProcessTree(pid, self._mono_ns, also=others)
            else:
                self._tree = self._tree_of(pid)

    def open_window(self, pid: int, job_id: str | None, trial_id: str | None) -> None:
        """Start to watch a trial or load (`trial_id` None) of the process tree of `pid`.

        Returns when no sample is being handed on any more. Until `close_window` samples come at
        the interval of trials and are kept.

        Raises:
            RuntimeError: a window is open.
        """
        with self._emitting, self._changed:
            if self._window is not None:
                raise RuntimeError("a window is open")
            tree = self._tree_of(pid)
            # Rates of the first sample inside begin here, not at the last one before.
            before = self._read(tree, pss=False)
            opened = self._counters(tree)
            self._window = OpenWindow(job_id, trial_id, tree, before, opened, self._energy_source)
            self._changed.notify_all()

    def close_window(self) -> Window:
        """End the window, hand its samples on, and return it.

        Raises:
            RuntimeError: no window is open.
        """
        with self._emitting:
            with self._changed:
                window = self._window
                if window is None:
                    raise RuntimeError("no window is open")
                closed = self._counters(window.tree)
                window.add(self._read(window.tree, pss=True))
                self._window = None
                self._changed.notify_all()
            for sample in window.held:
                self._hand_on(sample, window.job_id, window.trial_id)
        return window.close(closed)

    def sensor_infos(self) -> tuple[SensorInfo, ...]:
        """Return what the inventory says of the sensors."""
        return tuple(sensor.info() for sensor in self._sensors)

    def sensor_health(self) -> tuple[SensorHealth, ...]:
        """Return how each sensor has done so far."""
        with self._changed:
            return tuple(sensor.health() for sensor in self._sensors)

    def sample(self) -> Sample:
        """Take one sample now: kept inside a window, handed on otherwise."""
        with self._changed:
            if self._window is not None:
                taken = self._read(self._window.tree, pss=False)
                self._window.add(taken)
                return taken
        with self._emitting:
            # The window may have changed while another sample was handed on.
            with self._changed:
                window, job_id = self._window, self._job_id
                taken = self._read(window.tree if window else self._tree, pss=False)
                if window is not None:
                    window.add(taken)
            if window is None:
                self._hand_on(taken, job_id, None)
        return taken

    def _run(self) -> None:
        schedule = _Schedule(self._mono_ns(), None)
        while self._wait(schedule):
            self.sample()
            interval_ns = self._interval_now_ns(schedule.window)
            schedule.due_ns = next_due_ns(schedule.due_ns, self._mono_ns(), interval_ns)

    def _wait(self, schedule: "_Schedule") -> bool:
        """Wait until the next sample is due; False at the end."""
        with self._changed:
            while not self._stopping:
                if self._window is not schedule.window:
                    # Opened or closed meanwhile: another pace from now on.
                    schedule.window = self._window
                    interval_ns = self._interval_now_ns(schedule.window)
                    schedule.due_ns = self._mono_ns() + interval_ns
                left_ns = schedule.due_ns - self._mono_ns()
                if left_ns <= 0:
                    return True
                self._changed.wait(left_ns / 1e9)
            return False

    def _interval_now_ns(self, window: OpenWindow | None) -> int:
        return self._interval_ns if window is None else self._trial_interval_ns

    def _tree_of(self, pid: int) -> ProcessTree:
        if self._tree is not None and self._tree.pid == pid:
            return self._tree
        return ProcessTree(pid, self._mono_ns)

    def _read(self, tree: ProcessTree | None, *, pss: bool) -> Sample:
        mono_ns, time_ns = self._mono_ns(), self._wall_ns()
        values: dict[str, Value] = {}
        for sensor in self._sensors:
            values.update(sensor.read())
        if tree is not None:
            values.update(tree.read(pss=pss).as_fields())
        self._latest = Sample(mono_ns, time_ns, values)
        return self._latest

    def _hand_on(self, sample: Sample, job_id: str | None, trial_id: str | None) -> None:
        try:
            self._emit(sample, job_id, trial_id)
        except Exception as error:  # noqa: BLE001 - sampling goes on whatever becomes of a sample
            if not self._refused:
                self._log.error("sample_refused", error=repr(error))
            self._refused = True
        else:
            self._refused = False


@dataclass
class _Schedule:
    """When the next sample is due, and the window that this was reckoned for."""

    due_ns: int
    window: OpenWindow | None


def next_due_ns(due_ns: int, now_ns: int, interval_ns: int) -> int:
    """Return when to sample next: on the grid of `due_ns`, so that it doesn't drift, but ahead.

    After a stall the places that went by are left out, not made up for.
    """
    passed = max(0, now_ns - due_ns) // interval_ns
    return due_ns + (passed + 1) * interval_ns
