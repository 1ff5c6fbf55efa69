"""Looks around every ten seconds and writes down what it sees, in a thread of its own."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.campaigns.view import View
from fleetmark_collector.devices import Device, DeviceRegistry
from fleetmark_collector.monitoring.observations import (
    Reading,
    Snapshot,
    campaign_point,
    collector_point,
    device_points,
)
from fleetmark_collector.monitoring.rounds import Rounds
from fleetmark_collector.monitoring.summaries import Summaries
from fleetmark_collector.report.jobs import PlannedJob
from fleetmark_collector.sinks.base import Observer, Point, Reader
from fleetmark_protocol import logs
from fleetmark_protocol.errors import FleetmarkError
from fleetmark_protocol.messages import JobSpec

OBSERVE_S = 10.0
STOP_S = 5.0
"""How long a stop waits for the round under way; what it computes is lost, and computed again."""


@dataclass(frozen=True)
class Sources:
    """What is looked at.

    Attributes:
        registry: the devices.
        state_file: with the campaigns.
        open_reader: opens the store for this thread alone.
        read: how ingest and the broker stand; asked once a round.
    """

    registry: DeviceRegistry
    state_file: Path
    open_reader: Callable[[], Reader]
    read: Callable[[], Reading]


class Observing:
    """Hands what it sees to the store's observer, if it has one, and keeps a `snapshot`.

    Whatever goes wrong here is logged once and hurts nobody: neither ingest nor dispatcher wait
    for this thread.
    """

    def __init__(
        self,
        sources: Sources,
        observer: Observer | None,
        interval_s: float = OBSERVE_S,
        wall_ns: Callable[[], int] = time.time_ns,
        mono_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare.

        Args:
            sources: what is looked at.
            observer: takes the points; None for a store that takes none.
            interval_s: from one round to the next.
            wall_ns: nanoseconds since the epoch.
            mono_s: monotonic clock.
        """
        self._sources = sources
        self._observer = observer
        self._interval_s = interval_s
        self._wall_ns = wall_ns
        self._mono_s = mono_s
        self.snapshot: Snapshot | None = None
        """What was seen last; None before the first round."""
        self._log = logs.get("monitoring")
        self._host = socket.gethostname()
        self._rounds = Rounds()
        self._before: Reading | None = None
        self._devices: list[Device] = []
        self._store: CampaignStore | None = None
        self._reader: Reader | None = None
        self._summaries: Summaries | None = None
        self._specs: dict[str, dict[str, JobSpec]] = {}
        self._troubles: dict[str, str] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="observing", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; the state file and the store are released."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self.look()
                self._stopping.wait(self._interval_s)
        finally:
            for opened in (self._reader, self._store):
                if opened is not None:
                    opened.close()

    def look(self) -> None:
        """Make one round; raises nothing."""
        now_ns = self._wall_ns()
        points: list[Point] = []
        with self._guarded("devices"):
            self._devices = self._sources.registry.list()
            points += device_points(self._devices, now_ns)
        with self._guarded("collector"):
            reading = self._sources.read()
            points.append(collector_point(self._host, reading, self._before, self._devices, now_ns))
            self._before = reading
        with self._guarded("observer"):
            self._hand_over(points)
        with self._guarded("campaigns"):
            self._campaigns(now_ns)

    def _campaigns(self, now_ns: int) -> None:
        store = self._store = self._store or CampaignStore(self._sources.state_file)
        rows = store.campaigns()
        running = [row.campaign_id for row in rows if row.finished_ns is None]
        jobs = {campaign_id: store.jobs(campaign_id) for campaign_id in running}
        self.snapshot = Snapshot(
            devices_known=len(self._devices),
            devices_online=sum(one.online for one in self._devices),
            campaigns=Counter(row.state for row in rows),
            jobs=Counter(job.state for some in jobs.values() for job in some),
        )
        if self._observer is None:
            return
        reader = self._reader = self._reader or self._sources.open_reader()
        looked_at = []
        for row in self._rounds.next(rows, self._mono_s()):
            with self._guarded(f"campaign {row.campaign_id}"):
                mine = jobs.get(row.campaign_id) or store.jobs(row.campaign_id)
                stored = reader.trial_counts(row.campaign_id)
                looked_at.append(View(row, tuple(mine), (), stored, None, 0))
        self._hand_over([campaign_point(view, now_ns) for view in looked_at])
        for view in looked_at:
            with self._guarded(f"cells of {view.campaign.campaign_id}"):
                self._cells(store, reader, view, now_ns)
        self._forget({row.campaign_id for row in rows})

    def _cells(self, store: CampaignStore, reader: Reader, view: View, now_ns: int) -> None:
        row = view.campaign
        contents = (dict(view.stored), tuple((job.state, job.attempt) for job in view.jobs))
        started_s = self._mono_s()
        if self._rounds.summary_due(row, contents, started_s):
            points = []
            for point in self._sum_up(store, reader, view):
                if self._stopping.is_set():
                    return
                points.append(point)
            self._hand_over(points)
            self._rounds.summed_up(row, contents, started_s, self._mono_s())
        # What a store that is away did not take is told again when it is back.
        available = self._before is not None and self._before.stats.store_available
        if available and self._rounds.settle(row, contents, now_ns):
            self._specs.pop(row.campaign_id, None)
            if self._summaries is not None:
                self._summaries.forget(row.campaign_id)

    def _sum_up(self, store: CampaignStore, reader: Reader, view: View) -> Iterator[Point]:
        self._summaries = self._summaries or Summaries(reader)
        specs = self._specs.setdefault(view.campaign.campaign_id, {})
        for job in view.jobs:
            if job.job_id not in specs:
                specs[job.job_id] = store.spec(job.job_id)
        plan = [
            PlannedJob(job.fleet, job.device, specs[job.job_id], job.state, job.failure)
            for job in view.jobs
        ]
        return self._summaries.points(view.campaign, plan)

    def _forget(self, known: set[str]) -> None:
        """Let go of campaigns that somebody has deleted."""
        for campaign_id in self._rounds.forget_all_but(known):
            self._specs.pop(campaign_id, None)
            if self._summaries is not None:
                self._summaries.forget(campaign_id)

    def _hand_over(self, points: list[Point]) -> None:
        if self._observer is not None and points:
            self._observer.observe(points)

    @contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        """Log what goes wrong, once until it goes right again or goes wrong otherwise."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - nothing here may hurt what is observed
            message = error.message if isinstance(error, FleetmarkError) else repr(error)
            if self._troubles.get(what) != message:
                self._log.warning("observation_failed", what=what, reason=message)
            self._troubles[what] = message
        else:
            self._troubles.pop(what, None)
