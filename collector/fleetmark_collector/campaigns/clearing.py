"""Finds the jobs that have ended and whose assignments may still be on the broker."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from fleetmark_collector.campaigns.statefile import StateFile
from fleetmark_collector.campaigns.tables import TO_CLEAR


@dataclass(frozen=True)
class Sent:
    """Where the assignment of a job is."""

    fleet: str
    device: str
    job_id: str


_COLUMNS = ", ".join(field.name for field in fields(Sent))


def to_clear(file: StateFile, again_since_ns: int | None = None) -> list[Sent]:
    """Return jobs, of any campaign, whose assignments are to be taken off the broker.

    Args:
        file: has the jobs.
        again_since_ns: return those, too, that were first cleared at or after this time.
    """
    rows = file.rows(
        f"SELECT {_COLUMNS} FROM jobs INDEXED BY jobs_to_clear WHERE {TO_CLEAR} "  # noqa: S608
        "ORDER BY campaign_id, position"
    )
    if again_since_ns is not None:
        again = f"SELECT {_COLUMNS} FROM jobs INDEXED BY jobs_cleared WHERE cleared_ns >= ?"  # noqa: S608
        rows += file.rows(again, (again_since_ns,))
    return [Sent(*row) for row in rows]


def mark_cleared(file: StateFile, jobs: Sequence[Sent], now_ns: int) -> None:
    """Note that assignments were taken off the broker; when that was first, stays."""
    if not jobs:
        return
    with file.transaction() as db:
        db.executemany(
            "UPDATE jobs SET cleared_ns = ? WHERE job_id = ? AND cleared_ns IS NULL",
            [(now_ns, job.job_id) for job in jobs],
        )
