"""Starts campaigns as their schedules say, tick by tick, each of them exactly once.

Starting a campaign and moving its schedule on are one transaction of the state file. A collector
that dies before it has started nothing, one that dies after it has started all of it, and of two
collectors the second finds the schedule moved on.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from fleetmark_collector.campaigns.apart import Apart
from fleetmark_collector.campaigns.due import Note, Step, next_step
from fleetmark_collector.campaigns.file import Campaign
from fleetmark_collector.campaigns.keeping import Kept
from fleetmark_collector.campaigns.plan import Plan, make_plan, new_campaign_id
from fleetmark_collector.campaigns.recurrence import NS, shown
from fleetmark_collector.campaigns.roles import Registry
from fleetmark_collector.campaigns.schedule_keys import read_keys
from fleetmark_collector.campaigns.schedule_tables import RunRow, ScheduleRow
from fleetmark_collector.campaigns.schedules import ScheduleStore
from fleetmark_collector.campaigns.selfcontained import load_text
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.sqlitefile import Fence
from fleetmark_protocol import logs
from fleetmark_protocol.errors import ConfigError

BACKWARDS_NS = 60 * NS
"""A clock that is put back by more is worth a word."""


class Scheduler:
    """Used by one thread."""

    def __init__(
        self,
        state_file: Path,
        registry: Registry,
        clock: Callable[[], int] = time.time_ns,
        fence: Fence | None = None,
    ) -> None:
        """Open the schedules.

        Args:
            state_file: with schedules and campaigns.
            registry: says which devices are there.
            clock: nanoseconds since the epoch, of the centre; no other clock matters.
            fence: see `sqlitefile.Fence`.

        Raises:
            StoreError: the state file cannot be used.
        """
        with ExitStack() as opened:
            self._schedules = ScheduleStore(state_file, fence)
            opened.callback(self._schedules.close)
            self._campaigns = CampaignStore(state_file, clock, fence)
            opened.pop_all()
        self._registry = registry
        self._clock = clock
        self._log = logs.get("schedule")
        self._newest_ns = 0
        self._apart = Apart("schedule")

    def tick(self) -> None:
        """Start what has come due.

        Raises:
            StoreError: the state file cannot be used now; the next tick does all of it.
            LeadershipLost: another collector does it.
        """
        now_ns = self._clock()
        if now_ns < self._newest_ns - BACKWARDS_NS:
            hint = "what has been started is not started again when its time comes again"
            self._log.warning("clock_put_back", to=shown(now_ns, None), hint=hint)
            self._newest_ns = now_ns
        self._newest_ns = max(self._newest_ns, now_ns)
        for row in self._schedules.due(now_ns):
            with self._apart.keep(f"schedule {row.name}"):
                keys = read_keys(row.name, row.keys)
                running = self._schedules.running(row.name)
                step = next_step(keys, row.next_ns, row.waiting_ns, running, now_ns)
                if step is not None:
                    self._take(row, step, running, now_ns)

    def close(self) -> None:
        """Release the state file."""
        self._campaigns.close()
        self._schedules.close()

    def _take(self, row: ScheduleRow, step: Step, running: list[str], now_ns: int) -> None:
        after = replace(row, next_ns=step.next_ns, waiting_ns=step.waiting_ns)
        notes = [_run(row, note, now_ns) for note in step.notes]
        if step.start_ns is None:
            if self._schedules.advance(row, after, notes, now_ns=now_ns):
                self._tell(notes)
            return
        try:
            campaign, plan = self._plan(row, now_ns)
        except ConfigError as error:
            failed = Note(step.start_ns, "failed", error.message)
            notes.append(_run(row, failed, now_ns))
            if self._schedules.advance(row, after, notes, now_ns=now_ns):
                self._tell(notes)
            return
        if self._campaigns.has(plan.campaign_id):
            return  # somebody began one by hand within this second; the next tick has another id
        selection = campaign.targets.selection
        kept = Kept(selection, row.file_text if selection == "continuous" else None)
        started = Note(step.start_ns, "started", step.reason)
        notes.append(replace(_run(row, started, now_ns), campaign_id=plan.campaign_id))
        made = (campaign, plan, kept)
        cancel = running if step.stop_first else ()
        if self._schedules.advance(row, after, notes, made, cancel=cancel, now_ns=now_ns):
            self._tell(notes)

    def _plan(self, row: ScheduleRow, now_ns: int) -> tuple[Campaign, Plan]:
        """Return what would be run now.

        Raises:
            ConfigError: it cannot be: a device or a tag is not there any more.
        """
        campaign = load_text(row.file_text, Path(row.file_name), kept=True)
        campaign_id = new_campaign_id(campaign.name, now_ns)
        plan = make_plan(campaign, campaign_id, self._registry.list())
        plan.check()
        return campaign, plan

    def _tell(self, notes: list[RunRow]) -> None:
        for note in notes:
            tell = self._log.warning if note.outcome in ("failed", "missed") else self._log.info
            tell(
                f"schedule_run_{note.outcome}",
                schedule=note.schedule,
                due=shown(note.due_ns, None),
                campaign_id=note.campaign_id,
                reason=note.reason,
            )


def _run(row: ScheduleRow, note: Note, now_ns: int) -> RunRow:
    return RunRow(row.name, note.due_ns, now_ns, note.outcome, None, note.reason)


class Work(Protocol):
    """A part of a tick."""

    def tick(self) -> None:
        """Do what is due."""

    def close(self) -> None:
        """Release what it has opened."""


class Dispatch(Work, Protocol):
    """The part that speaks to the broker."""

    def on_connect(self) -> None:
        """Publish everything again at the next tick; any thread may call it."""


class Together:
    """Schedules and dispatcher as one; trouble of the one does not stop the other."""

    def __init__(self, dispatcher: Dispatch, scheduler: Work) -> None:
        self._dispatcher = dispatcher
        self._scheduler = scheduler

    def tick(self) -> None:
        """Start what has come due, then dispatch.

        Raises:
            FleetmarkError: of either.
        """
        try:
            self._scheduler.tick()
        finally:
            self._dispatcher.tick()

    def on_connect(self) -> None:
        """Have the dispatcher publish everything again."""
        self._dispatcher.on_connect()

    def close(self) -> None:
        """Release the state file."""
        self._scheduler.close()
        self._dispatcher.close()
