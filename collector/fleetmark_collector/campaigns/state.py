"""Keeps campaigns and jobs in a file, so that whoever restarts goes on where things stand."""

import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from fleetmark_collector.campaigns.apart import Apart, readable
from fleetmark_collector.campaigns.keeping import About, Kept, delete_campaign, insert_campaign
from fleetmark_collector.campaigns.plan import Plan
from fleetmark_collector.campaigns.statefile import StateFile
from fleetmark_collector.campaigns.tables import (
    CAMPAIGN_COLUMNS,
    JOB_COLUMNS,
    MOVE_COLUMNS,
    CampaignRow,
    JobRow,
    LateReport,
    Move,
    StopReason,
    campaign_row,
    job_row,
    move_row,
)
from fleetmark_collector.campaigns.transitions import assign_job, move_job, stop_campaign
from fleetmark_collector.sinks.base import Stored
from fleetmark_collector.sqlitefile import Fence
from fleetmark_protocol.errors import ConfigError, StoreError
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.messages import JobSpec
from fleetmark_protocol.records import Failure, JobRecord
from fleetmark_protocol.settings import suggestion

_SHOWN = 10


class CampaignStore:
    """Campaigns and jobs in a SQLite file, for any number of processes and threads at once.

    Attributes:
        file: for what changes campaigns and jobs elsewhere (`steering`, `newcomers`).
    """

    def __init__(
        self, file: Path, clock: Callable[[], int] = time.time_ns, fence: Fence | None = None
    ) -> None:
        """Open the file, and make it if need be.

        Args:
            file: shared with the registry of devices.
            clock: nanoseconds since the epoch.
            fence: see `sqlitefile.Fence`; commands have none.

        Raises:
            StoreUnavailable: it cannot be opened now.
            StoreError: it is no SQLite file, or of another version of fleetmark.
        """
        self._clock = clock
        self.file = StateFile(file, fence)
        # Asked for twice a tick, and very many: campaign id -> jobs, and the file's version then.
        self._known: dict[str, tuple[tuple[int, int], list[JobRow]]] = {}

    def close(self) -> None:
        """Release the file."""
        self.file.close()

    # --- what the operator asks ----------------------------------------------------------------

    def create(
        self, about: About, plan: Plan, retry_of: str | None = None, kept: Kept | None = None
    ) -> None:
        """Keep a campaign and its jobs, all QUEUED; the dispatcher takes it from here.

        Args:
            about: the campaign.
            plan: its jobs.
            retry_of: the campaign whose jobs it runs again, if it is a retry.
            kept: what else the dispatcher needs.

        Raises:
            ConfigError: the plan has problems or no jobs, or the id is taken.
        """
        insert_campaign(self.file, about, plan, self._clock(), retry_of, kept)

    def delete(self, campaign_id: str) -> None:
        """Forget a campaign that has ended.

        Raises:
            ConfigError: it has not, or the broker may still hold assignments of it.
        """
        delete_campaign(self.file, campaign_id)

    def request_cancel(self, campaign_id: str) -> CampaignRow:
        """Stop a campaign: jobs never sent are CANCELED now, the dispatcher asks for the others.

        A campaign that has ended stays as it is.

        Raises:
            ConfigError: there is no such campaign.
        """
        self.stop(campaign_id, "cancel")
        return self.campaign(campaign_id)

    def campaigns(self) -> list[CampaignRow]:
        """Return all campaigns, oldest first."""
        return self._campaigns("ORDER BY created_ns, campaign_id")

    def campaign(self, campaign_id: str) -> CampaignRow:
        """Return one campaign.

        Raises:
            ConfigError: there is no such campaign.
        """
        found = self._campaigns("WHERE campaign_id = ?", (campaign_id,))
        if not found:
            known = [row.campaign_id for row in self.campaigns()]
            raise ConfigError(
                f"no campaign {campaign_id!r}{nearest(campaign_id, known)}",
                hint="`fleetmark campaign list` lists all",
            )
        return found[0]

    def has(self, campaign_id: str) -> bool:
        """Whether there is such a campaign."""
        return bool(self.file.rows("SELECT 1 FROM campaigns WHERE campaign_id = ?", (campaign_id,)))

    def newest(self) -> CampaignRow | None:
        """Return the campaign begun last, if there is any."""
        found = self._campaigns("ORDER BY created_ns DESC, campaign_id DESC LIMIT 1")
        return found[0] if found else None

    def file_text(self, campaign_id: str) -> str:
        """Return the campaign file as it was when the campaign began.

        Raises:
            ConfigError: there is no such campaign.
        """
        rows = self.file.rows(
            "SELECT file_text FROM campaigns WHERE campaign_id = ?", (campaign_id,)
        )
        if not rows:
            raise ConfigError(f"no campaign {campaign_id!r}")
        return str(rows[0][0])

    def jobs(self, campaign_id: str) -> list[JobRow]:
        """Return the jobs of a campaign in the order of its plan."""
        version = self.file.version()
        known = self._known.get(campaign_id)
        if known is None or known[0] != version:
            rows = self.file.rows(
                f"SELECT {JOB_COLUMNS} FROM jobs WHERE campaign_id = ? ORDER BY position, job_id",  # noqa: S608
                (campaign_id,),
            )
            self._known = {key: one for key, one in self._known.items() if one[0] == version}
            known = self._known[campaign_id] = (version, [job_row(row) for row in rows])
        return list(known[1])

    def job(self, job_id: str) -> JobRow | None:
        """Return a job of any campaign, if there is such a job."""
        rows = self.file.rows(f"SELECT {JOB_COLUMNS} FROM jobs WHERE job_id = ?", (job_id,))  # noqa: S608
        return job_row(rows[0]) if rows else None

    def named_job(self, job_id: str) -> JobRow:
        """Return a job that somebody asks for by its id.

        Raises:
            ConfigError: there is no such job.
        """
        found = self.job(job_id)
        if found is None:
            known = self.file.rows("SELECT job_id FROM jobs ORDER BY updated_ns")
            raise ConfigError(
                f"no job {job_id!r}{nearest(job_id, [row[0] for row in known])}",
                hint="`fleetmark campaign show ID --json` lists a campaign's jobs",
            )
        return found

    def moves(self, campaign_id: str) -> list[Move]:
        """Return the changes of state of a campaign's jobs, in the order they were made."""
        rows = self.file.rows(
            f"SELECT {MOVE_COLUMNS} FROM job_moves WHERE job_id IN "  # noqa: S608
            "(SELECT job_id FROM jobs WHERE campaign_id = ?) ORDER BY rowid",
            (campaign_id,),
        )
        return [move_row(row) for row in rows]

    def retries(self, job_ids: Collection[str]) -> list[JobRow]:
        """Return the jobs, of any campaign, that run one of these again."""
        rows = self.file.rows(f"SELECT {JOB_COLUMNS} FROM jobs WHERE retry_of IS NOT NULL")  # noqa: S608
        return [job for job in map(job_row, rows) if job.retry_of in job_ids]

    def spec(self, job_id: str) -> JobSpec:
        """Return what a job asks for; apart from its row, because prompts may be large.

        Raises:
            StoreError: there is no such job, or this version cannot read it.
        """
        rows = self.file.rows("SELECT spec FROM jobs WHERE job_id = ?", (job_id,))
        if not rows:
            raise StoreError(f"{self.file.path}: no job {job_id!r}")
        with readable(f"job {job_id}"):
            return JobSpec.model_validate_json(rows[0][0])

    def late_reports(self, campaign_id: str) -> list[LateReport]:
        """Return what devices said too late, in the order it was noticed."""
        rows = self.file.rows(
            "SELECT job_id, noted_ns, record FROM late_reports JOIN jobs USING (job_id) "
            "WHERE campaign_id = ? ORDER BY noted_ns, seq",
            (campaign_id,),
        )
        return [LateReport(row[0], row[1], JobRecord.model_validate_json(row[2])) for row in rows]

    # --- what the dispatcher does --------------------------------------------------------------

    def recent(self, since_ns: int, apart: Apart) -> list[CampaignRow]:
        """Return campaigns that run, or ended at or after a time; oldest first.

        Args:
            since_ns: the time.
            apart: is told of those that this version cannot read.
        """
        found = []
        for row in self.file.rows(
            f"SELECT {CAMPAIGN_COLUMNS} FROM campaigns WHERE finished_ns IS NULL "  # noqa: S608
            "OR finished_ns >= ? ORDER BY created_ns, campaign_id",
            (since_ns,),
        ):
            with apart.keep(f"campaign {row[0]}"):
                found.append(campaign_row(row))
        return found

    def set_job_state(
        self,
        job_id: str,
        state: JobState,
        *,
        attempt: int | None = None,
        failure: Failure | None = None,
        trials_recorded: int | None = None,
    ) -> bool:
        """Move a job if the state machine lets it; return whether it moved.

        The attempt never goes back; the campaign ends with its last job.

        Raises:
            StoreError: there is no such job.
        """
        return move_job(
            self.file,
            job_id,
            state,
            self._clock(),
            attempt=attempt,
            failure=failure,
            trials_recorded=trials_recorded,
        )

    def assign(self, job_id: str) -> bool:
        """Mark a QUEUED job as sent; return False if it was canceled in the meantime."""
        return assign_job(self.file, job_id, self._clock())

    def stop(self, campaign_id: str, reason: StopReason, failure: Failure | None = None) -> None:
        """Let no more jobs be sent, and end those that never were; the first reason stays."""
        stop_campaign(self.file, campaign_id, reason, failure, self._clock())

    def note_late(self, report: Stored[JobRecord]) -> None:
        """Keep what a device said too late; the same report once."""
        with self.file.transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO late_reports VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    report.fleet,
                    report.device,
                    report.epoch,
                    report.seq,
                    report.record.job_id,
                    self._clock(),
                    report.record.model_dump_json(exclude_none=True),
                ),
            )

    # --- inside --------------------------------------------------------------------------------

    def _campaigns(self, rest: str, args: Sequence[object] = ()) -> list[CampaignRow]:
        rows = self.file.rows(f"SELECT {CAMPAIGN_COLUMNS} FROM campaigns {rest}", args)  # noqa: S608
        return [campaign_row(row) for row in rows]


def nearest(word: str, known: Sequence[str]) -> str:
    """Return ' (did you mean ...?)' of all that is known, else the newest few of it."""
    close = suggestion(word, list(known))
    return close if "did you mean" in close else suggestion(word, list(known[-_SHOWN:]))
