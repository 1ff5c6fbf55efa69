"""Puts campaigns into the state file, and takes them out again: all of one, or nothing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fleetmark_collector.campaigns.plan import Plan
from fleetmark_collector.campaigns.policy import Policy
from fleetmark_collector.campaigns.selection import Selection
from fleetmark_collector.campaigns.statefile import Connection, StateFile
from fleetmark_collector.campaigns.tables import CampaignState
from fleetmark_protocol.errors import ConfigError
from fleetmark_protocol.jobs import JobState


class About(Protocol):
    """What is kept of a campaign beside its jobs; `file.Campaign` has it."""

    @property
    def name(self) -> str:
        """Start of its id."""

    @property
    def description(self) -> str:
        """For people."""

    @property
    def file(self) -> Path:
        """Where its file was."""

    @property
    def text(self) -> str:
        """The file."""

    @property
    def campaign_s(self) -> float:
        """Time limit for all of it."""

    @property
    def policy(self) -> Policy:
        """How it is carried out."""


@dataclass(frozen=True)
class Kept:
    """What is kept of a campaign for the dispatcher alone.

    Attributes:
        selection: whether devices that join later take part.
        inlined: the file, complete in itself; needed where they do.
    """

    selection: Selection = "snapshot"
    inlined: str | None = None


def insert_campaign(
    file: StateFile,
    about: About,
    plan: Plan,
    now_ns: int,
    retry_of: str | None,
    kept: Kept | None = None,
) -> None:
    """Keep a campaign and its jobs, all QUEUED.

    Raises:
        ConfigError: the plan has problems or no jobs, or the id is taken.
        StoreError: the file cannot be used.
    """
    with file.transaction() as db:
        put_campaign(db, about, plan, now_ns, retry_of=retry_of, kept=kept)


def put_campaign(
    db: Connection,
    about: About,
    plan: Plan,
    now_ns: int,
    *,
    retry_of: str | None = None,
    schedule: str | None = None,
    kept: Kept | None = None,
) -> None:
    """Keep a campaign and its jobs, all QUEUED, as part of a transaction.

    Args:
        db: in a transaction.
        about: the campaign.
        plan: its jobs.
        now_ns: the centre's clock.
        retry_of: the campaign whose jobs it runs again, if it is a retry.
        schedule: what starts it, if a schedule does.
        kept: what else the dispatcher needs.

    Raises:
        ConfigError: the plan has problems or no jobs, or the id is taken.
    """
    plan.check()
    kept = kept or Kept()
    if not plan.jobs and kept.selection == "snapshot":
        raise ConfigError(f"{about.file}: no job to run")
    taken = db.execute(
        "SELECT 1 FROM campaigns WHERE campaign_id = ?", (plan.campaign_id,)
    ).fetchone()
    if taken:
        raise ConfigError(f"campaign {plan.campaign_id} exists already")
    _check_retried_once(db, plan)
    db.execute(
        "INSERT INTO campaigns (campaign_id, name, description, file_name, file_text, "
        "campaign_s, created_ns, state, retry_of, policy, selection, inlined, schedule) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            plan.campaign_id,
            about.name,
            about.description,
            str(about.file),
            about.text,
            about.campaign_s,
            now_ns,
            CampaignState.RUNNING,
            retry_of,
            about.policy.model_dump_json(exclude_none=True),
            kept.selection,
            kept.inlined,
            schedule,
        ),
    )
    put_jobs(db, plan, now_ns, first=0)


def put_jobs(db: Connection, plan: Plan, now_ns: int, *, first: int) -> None:
    """Keep the jobs of a plan, all QUEUED, as part of a transaction.

    Args:
        db: in a transaction.
        plan: has the jobs.
        now_ns: the centre's clock.
        first: place of the first of them in the order of the campaign.
    """
    db.executemany(
        "INSERT INTO jobs (job_id, campaign_id, position, fleet, device, cell, job_s, "
        "trials_planned, spec, state, attempt, updated_ns, retry_of, estimate_s) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?)",
        [
            (
                job.spec.job_id,
                plan.campaign_id,
                position,
                job.fleet,
                job.device,
                str(job.cell),
                job.spec.timeouts.job_s,
                job.trials,
                job.spec.model_dump_json(),
                JobState.QUEUED,
                now_ns,
                job.retry_of,
                job.estimate_s,
            )
            for position, job in enumerate(plan.jobs, first)
        ],
    )


def _check_retried_once(db: Connection, plan: Plan) -> None:
    """Refuse a second retry that another process has begun at the same moment.

    Raises:
        ConfigError: a job of the plan runs already, or succeeded, in another retry.
    """
    mine = {job.retry_of for job in plan.jobs if job.retry_of is not None}
    if not mine:
        return
    rows = db.execute("SELECT retry_of, job_id, state FROM jobs WHERE retry_of IS NOT NULL")
    for retry_of, job_id, state in rows:
        open_or_good = not JobState(state).terminal or state == JobState.SUCCEEDED
        if retry_of in mine and open_or_good:
            raise ConfigError(f"{job_id} runs {retry_of} again already")


def delete_campaign(file: StateFile, campaign_id: str) -> None:
    """Forget a campaign that has ended, with its jobs, their history and late reports.

    Raises:
        ConfigError: it has not ended, or assignments of it may still be on the broker, where only
            its rows here would have them taken off.
        StoreError: the file cannot be used.
    """
    with file.transaction() as db:
        row = db.execute(
            "SELECT state FROM campaigns WHERE campaign_id = ?", (campaign_id,)
        ).fetchone()
        if row is None:
            return
        if not CampaignState(row[0]).terminal:
            raise ConfigError(
                f"campaign {campaign_id} is running",
                hint=f"cancel it first: `fleetmark campaign cancel {campaign_id}`",
            )
        (left,) = db.execute(
            "SELECT count(*) FROM jobs WHERE campaign_id = ? "
            "AND (assigned_ns IS NOT NULL OR recalls > 0) AND cleared_ns IS NULL",
            (campaign_id,),
        ).fetchone()
        if left:
            raise ConfigError(
                f"the broker may still hold {left} assignment(s) of campaign {campaign_id}",
                hint="let the collector run: it takes them off within seconds",
            )
        ours = "job_id IN (SELECT job_id FROM jobs WHERE campaign_id = ?)"
        db.execute(f"DELETE FROM job_moves WHERE {ours}", (campaign_id,))  # noqa: S608
        db.execute(f"DELETE FROM late_reports WHERE {ours}", (campaign_id,))  # noqa: S608
        db.execute("DELETE FROM jobs WHERE campaign_id = ?", (campaign_id,))
        db.execute("DELETE FROM campaigns WHERE campaign_id = ?", (campaign_id,))
