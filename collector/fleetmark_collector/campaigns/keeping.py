"""Puts campaigns into the state file, and takes them out again: all of one, or nothing."""

from pathlib import Path
from typing import Any, Protocol

from fleetmark_collector.campaigns.plan import Plan
from fleetmark_collector.campaigns.statefile import StateFile
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


def insert_campaign(
    file: StateFile, about: About, plan: Plan, now_ns: int, retry_of: str | None
) -> None:
    """Keep a campaign and its jobs, all QUEUED.

    Raises:
        ConfigError: the plan has problems or no jobs, or the id is taken.
        StoreError: the file cannot be used.
    """
    plan.check()
    if not plan.jobs:
        raise ConfigError(f"{about.file}: no job to run")
    with file.transaction() as db:
        taken = db.execute(
            "SELECT 1 FROM campaigns WHERE campaign_id = ?", (plan.campaign_id,)
        ).fetchone()
        if taken:
            raise ConfigError(f"campaign {plan.campaign_id} exists already")
        _check_retried_once(db, plan)
        db.execute(
            "INSERT INTO campaigns (campaign_id, name, description, file_name, file_text, "
            "campaign_s, created_ns, state, retry_of) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
            ),
        )
        db.executemany(
            "INSERT INTO jobs (job_id, campaign_id, position, fleet, device, cell, job_s, "
            "trials_planned, spec, state, attempt, updated_ns, retry_of) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?)",
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
                )
                for position, job in enumerate(plan.jobs)
            ],
        )


def _check_retried_once(db: Any, plan: Plan) -> None:
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
            "SELECT count(*) FROM jobs WHERE campaign_id = ? AND assigned_ns IS NOT NULL "
            "AND cleared_ns IS NULL",
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
