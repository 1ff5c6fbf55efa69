"""The devices of one process from start to end: prepare, run, drain, say goodbye, settle up."""

import gc
import resource
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from fleetmark_agent.backends import registry
from fleetmark_agent.config import AgentSettings
from fleetmark_agent.simulation.connection import Network
from fleetmark_agent.simulation.device import Device, Shared
from fleetmark_agent.simulation.ledger import Tally
from fleetmark_agent.simulation.loop import Loop
from fleetmark_agent.simulation.plan import Plan

CONNECTORS = 8
"""Threads that wait for connections being made."""

GOODBYE_S = 5.0
REPORT_S = 1.0

Phase = Literal["prepare", "run", "drain", "end"]


@dataclass(frozen=True)
class Progress:
    """Where one process of the simulation stands; what it prints, once a second.

    Attributes:
        devices: that are there so far.
        made: records put into outboxes, the outboxes' own events included.
        carried: records that an earlier simulation left.
        backlog: records that wait, by the outboxes' own counts; at the end, by their files'.
        oldest_s: age of the oldest record that waits; None for none.
        late_s: by how much the simulation was behind its own clock at most, since the last report;
            at the end, at any time while devices sampled.
        unaccounted: at the end, what was made (or carried) and is neither acknowledged, nor
            waiting, nor thinned; None before.
        cpu_s: of this process, since its start.
        delays: at the end, from record to acknowledgement: longest of a class in seconds -> how
            many (see `ledger.Delays`).
    """

    phase: Phase
    elapsed_s: float
    devices: int
    connected: int
    connects: int
    made: int
    samples: int
    carried: int
    sent: int
    resent: int
    acked: int
    backlog: int
    thinned: int
    refused: int
    skipped: int
    trials: int
    jobs: int
    oldest_s: float | None
    late_s: float
    cpu_s: float
    rss_bytes: int
    unaccounted: int | None = None
    delays: dict[str, int] = field(default_factory=dict)
    delay_max_s: float = 0.0


class Fleet:
    """Everything happens in the thread that calls `run`; `stop` may be called from anywhere."""

    def __init__(
        self, plan: Plan, settings: AgentSettings, report: Callable[[Progress], None]
    ) -> None:
        """Prepare; nothing is opened before `run`.

        Args:
            plan: checked.
            settings: of all devices; see `Plan.device_settings`.
            report: called with the progress, once a second and at the end.
        """
        self._plan = plan
        self._settings = settings
        self._report = report
        self._tally = Tally()
        self._loop = Loop()
        self._executor = ThreadPoolExecutor(CONNECTORS, "connect")
        self._network = Network(self._loop, self._executor)
        self._devices: list[Device] = []
        self._begin_s = time.monotonic()
        self._phase: Phase = "prepare"
        self._stops = 0
        self._late_s = 0.0
        self._connected_at_end = 0

    def stop(self) -> None:
        """End the sampling; asked again, do not wait for acknowledgements either."""
        self._stops += 1
        self._loop.from_thread(lambda: None)

    def run(self) -> Progress:
        """Simulate; return how it came out.

        Raises:
            ConfigError: a certificate or password file cannot be read.
            StoreError: an outbox cannot be opened.
        """
        try:
            self._prepare()
            self._run()
            self._drain()
            self._say_goodbye()
            last = self._progress(final=True)
        finally:
            self._executor.shutdown(wait=False, cancel_futures=True)
            for device in self._devices:
                device.box.close()
            self._loop.close()
        self._report(last)
        return last

    def _prepare(self) -> None:
        shared = Shared(self._plan, self._settings, self._network, self._tally, registry.names())
        self._report(self._progress())
        told_s = time.monotonic()
        for number in self._plan.numbers:
            if self._stops:
                break
            self._devices.append(Device(shared, number))
            if time.monotonic() - told_s >= REPORT_S:
                told_s = time.monotonic()
                self._report(self._progress())
        # What lives as long as the process need not be looked through again and again.
        gc.freeze()

    def _run(self) -> None:
        self._phase = "run"
        self._begin_s = self._loop.clock_s()
        for device in self._devices:
            device.start(self._begin_s)
        self._loop.after(REPORT_S, self._report_now)
        self._loop.run_until(
            lambda: self._stops > 0 or not any(device.sampling for device in self._devices)
        )
        self._late_s = max(self._late_s, self._loop.late_s)

    def _drain(self) -> None:
        self._phase = "drain"
        for device in self._devices:
            device.drain()
        stops = self._stops
        deadline_s = self._loop.clock_s() + self._plan.drain_s
        self._loop.run_until(
            lambda: (
                self._stops > stops
                or self._loop.clock_s() >= deadline_s
                or not any(one.box.outbox.backlog().records for one in self._devices)
            )
        )

    def _say_goodbye(self) -> None:
        self._phase = "end"
        deadline_s = self._loop.clock_s() + GOODBYE_S
        for device in self._devices:
            device.say_goodbye()
        self._loop.run_until(
            lambda: self._loop.clock_s() >= deadline_s or all(one.quiet for one in self._devices)
        )
        self._connected_at_end = self._connected()
        for device in self._devices:
            device.disconnect()
        self._loop.run_until(
            lambda: self._loop.clock_s() >= deadline_s or all(one.closed for one in self._devices)
        )

    def _report_now(self) -> None:
        self._report(self._progress())
        self._loop.after(REPORT_S, self._report_now)

    def _connected(self) -> int:
        return sum(device.connected for device in self._devices)

    def _progress(self, *, final: bool = False) -> Progress:
        tally, boxes = self._tally, [device.box for device in self._devices]
        now_s = self._loop.clock_s()
        if self._phase == "run":
            self._late_s = max(self._late_s, self._loop.late_s)
        late_s, self._loop.late_s = self._loop.late_s, 0.0
        made = tally.samples + tally.results + sum(box.outbox.own_events for box in boxes)
        carried = sum(box.carried for box in boxes)
        thinned = sum(box.outbox.thinned for box in boxes)
        backlog = sum(box.count_left() if final else box.outbox.backlog().records for box in boxes)
        oldest_s = min(
            (box.ledger.oldest_s for box in boxes if box.ledger.oldest_s is not None), default=None
        )
        used = resource.getrusage(resource.RUSAGE_SELF)
        return Progress(
            phase=self._phase,
            elapsed_s=now_s - self._begin_s,
            devices=len(boxes),
            connected=self._connected_at_end if final else self._connected(),
            connects=self._network.accepted,
            made=made,
            samples=tally.samples,
            carried=carried,
            sent=tally.sent,
            resent=tally.resent,
            acked=tally.acked,
            backlog=backlog,
            thinned=thinned,
            refused=tally.refused,
            skipped=tally.skipped,
            trials=tally.trials,
            jobs=tally.jobs,
            oldest_s=None if oldest_s is None else now_s - oldest_s,
            late_s=self._late_s if final else late_s,
            cpu_s=used.ru_utime + used.ru_stime,
            rss_bytes=used.ru_maxrss * 1024,
            unaccounted=made + carried - tally.acked - backlog - thinned if final else None,
            delays=tally.delays.by_length() if final else {},
            delay_max_s=tally.delays.max_s,
        )
