"""Counts the trials of jobs in the embedded store: those of a job's own device, and no other's."""

from collections.abc import Callable, Collection, Iterable

from fleetmark_protocol.ids import device_of_job

Rows = Callable[[str, tuple[object, ...]], list[tuple[object, ...]]]
"""Answers a query."""

_COUNT = (
    "SELECT job_id, device, count(DISTINCT trial_id) FROM trial "
    "JOIN source ON source.id = trial.source WHERE campaign_id = ?"
)
# A device that has moved to another fleet is the same one.
_BY_DEVICE = " GROUP BY job_id, device"


def counts(rows: Rows, campaign_id: str, jobs: Collection[str] | None) -> dict[str, int]:
    """Return job id -> number of distinct trials; see `base.Reader.trial_counts`."""
    if jobs is None:
        return _own(rows(_COUNT + _BY_DEVICE, (campaign_id,)))
    found: dict[str, int] = {}
    for job in jobs:
        found |= _own(rows(f"{_COUNT} AND job_id = ? {_BY_DEVICE}", (campaign_id, job)))
    return found


def since(rows: Rows, campaign_id: str, job_id: str, attempt: int) -> int:
    """Return how many this attempt of a job or later ones made."""
    sql = f"{_COUNT} AND job_id = ? AND json_extract(body, '$.attempt') >= ? {_BY_DEVICE}"
    return _own(rows(sql, (campaign_id, job_id, attempt))).get(job_id, 0)


def _own(rows: Iterable[tuple[object, ...]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for job, device, count in rows:
        if device_of_job(str(job)) in (None, device):
            found[str(job)] = found.get(str(job), 0) + int(str(count))
    return found
