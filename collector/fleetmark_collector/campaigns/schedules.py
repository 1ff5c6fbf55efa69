"""Keeps schedules, and what became of each time they came due, in the state file."""

from collections.abc import Sequence
from pathlib import Path

from fleetmark_collector.campaigns.file import Campaign
from fleetmark_collector.campaigns.keeping import Kept, put_campaign
from fleetmark_collector.campaigns.plan import Plan
from fleetmark_collector.campaigns.schedule_tables import (
    RUN_COLUMNS,
    SCHEDULE_COLUMNS,
    RunRow,
    ScheduleRow,
)
from fleetmark_collector.campaigns.statefile import Connection, StateFile
from fleetmark_collector.campaigns.tables import CampaignState
from fleetmark_collector.campaigns.transitions import put_stop
from fleetmark_collector.sqlitefile import Fence
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.settings import suggestion

RUNS_KEPT = 1000
"""Of each schedule: the newest of them."""


class ScheduleStore:
    """Schedules in the state file, for any number of processes and threads at once."""

    def __init__(self, file: Path, fence: Fence | None = None) -> None:
        """Open the file, and make it if need be.

        Args:
            file: shared with campaigns.
            fence: see `sqlitefile.Fence`; commands have none.

        Raises:
            StoreUnavailable: it cannot be opened now.
            StoreError: it is no SQLite file, or of another version of fleetmark.
        """
        self._file = StateFile(file, fence)

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    # --- what the operator asks -----------------------------------------------------------------

    def add(self, row: ScheduleRow, *, replace: bool = False) -> bool:
        """Keep a schedule; return whether there was one of its name, which it replaces.

        Raises:
            ConfigError: there is one, and it shall not be replaced.
        """
        with self._file.transaction() as db:
            there = _one(db, row.name)
            if there is not None and not replace:
                raise ConfigError(
                    f"there is a schedule {row.name!r} already",
                    hint="--replace puts this one in its place; --name gives it another name",
                )
            if there is not None and there.waiting_ns is not None:
                reason = "the schedule was replaced while this run waited"
                noted_ns = row.created_ns
                _note(db, RunRow(row.name, there.waiting_ns, noted_ns, "skipped", None, reason))
            values = ", ".join("?" * len(SCHEDULE_COLUMNS.split(", ")))
            db.execute(
                f"INSERT OR REPLACE INTO schedules ({SCHEDULE_COLUMNS}) VALUES ({values})",  # noqa: S608
                (
                    row.name,
                    row.file_name,
                    row.file_text,
                    row.keys,
                    row.created_ns,
                    row.next_ns,
                    row.waiting_ns,
                ),
            )
            return there is not None

    def remove(self, name: str) -> ScheduleRow:
        """Forget a schedule and what is noted of it; campaigns it has started stay.

        Raises:
            ConfigError: there is none of that name.
        """
        with self._file.transaction() as db:
            there = _one(db, name)
            if there is not None:
                db.execute("DELETE FROM schedules WHERE name = ?", (name,))
                db.execute("DELETE FROM schedule_runs WHERE schedule = ?", (name,))
        return there or self.get(name)

    def all(self) -> list[ScheduleRow]:
        """Return all schedules, by name."""
        rows = self._file.rows(f"SELECT {SCHEDULE_COLUMNS} FROM schedules ORDER BY name")  # noqa: S608
        return [ScheduleRow(*row) for row in rows]

    def get(self, name: str) -> ScheduleRow:
        """Return one schedule.

        Raises:
            ConfigError: there is none of that name.
        """
        known = {row.name: row for row in self.all()}
        if name not in known:
            raise ConfigError(
                f"no schedule {name!r}{suggestion(name, list(known))}",
                hint="`fleetmark schedule list` lists all",
            )
        return known[name]

    def runs(self, name: str, limit: int) -> list[tuple[RunRow, CampaignState | None]]:
        """Return the newest runs with the states of their campaigns, the newest first.

        A campaign that was deleted has no state.
        """
        rows = self._file.rows(
            f"SELECT {RUN_COLUMNS}, (SELECT state FROM campaigns WHERE campaigns.campaign_id = "  # noqa: S608
            "schedule_runs.campaign_id) FROM schedule_runs WHERE schedule = ? "
            "ORDER BY rowid DESC LIMIT ?",
            (name, limit),
        )
        return [
            (RunRow(*row[:-1]), None if row[-1] is None else CampaignState(row[-1])) for row in rows
        ]

    # --- what the collector does ----------------------------------------------------------------

    def due(self, now_ns: int) -> list[ScheduleRow]:
        """Return schedules that have come due, or of which a run waits."""
        rows = self._file.rows(
            f"SELECT {SCHEDULE_COLUMNS} FROM schedules "  # noqa: S608
            "WHERE next_ns <= ? OR waiting_ns IS NOT NULL ORDER BY next_ns, name",
            (now_ns,),
        )
        return [ScheduleRow(*row) for row in rows]

    def running(self, name: str) -> list[str]:
        """Return the campaigns of a schedule that have not ended, oldest first."""
        rows = self._file.rows(
            "SELECT campaign_id FROM campaigns WHERE schedule = ? AND finished_ns IS NULL "
            "ORDER BY created_ns, campaign_id",
            (name,),
        )
        return [row[0] for row in rows]

    def advance(
        self,
        before: ScheduleRow,
        after: ScheduleRow,
        notes: list[RunRow],
        campaign: tuple[Campaign, Plan, Kept] | None = None,
        *,
        cancel: Sequence[str] = (),
        now_ns: int,
    ) -> bool:
        """Move a schedule on, note what became of its times, start a campaign: all or nothing.

        Args:
            before: the schedule as it was read.
            after: as it shall be.
            notes: what became of the times that are over.
            campaign: what is started, if anything is.
            cancel: campaigns that are canceled for it.
            now_ns: the centre's clock.

        Returns:
            False, with nothing changed, where the schedule is not what it was when it was read:
            somebody else has moved it on, replaced or removed it.

        Raises:
            ConfigError: the campaign cannot be kept; its id is taken.
        """
        with self._file.transaction() as db:
            if _one(db, before.name) != before:
                return False
            for campaign_id in cancel:
                put_stop(db, campaign_id, "cancel", None, now_ns)
            if campaign is not None:
                about, plan, kept = campaign
                put_campaign(db, about, plan, now_ns, schedule=before.name, kept=kept)
            for note in notes:
                _note(db, note)
            db.execute(
                "UPDATE schedules SET next_ns = ?, waiting_ns = ? WHERE name = ?",
                (after.next_ns, after.waiting_ns, after.name),
            )
            return True


def _one(db: Connection, name: str) -> ScheduleRow | None:
    row = db.execute(
        f"SELECT {SCHEDULE_COLUMNS} FROM schedules WHERE name = ?",  # noqa: S608
        (name,),
    ).fetchone()
    return None if row is None else ScheduleRow(*row)


def _note(db: Connection, run: RunRow) -> None:
    db.execute(
        f"INSERT INTO schedule_runs ({RUN_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608
        (run.schedule, run.due_ns, run.noted_ns, run.outcome, run.campaign_id, run.reason),
    )
    db.execute(
        "DELETE FROM schedule_runs WHERE schedule = ? AND rowid <= (SELECT rowid FROM "
        "schedule_runs WHERE schedule = ? ORDER BY rowid DESC LIMIT 1 OFFSET ?)",
        (run.schedule, run.schedule, RUNS_KEPT),
    )
