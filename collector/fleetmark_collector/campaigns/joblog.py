"""What happened to a job, in order of time: the centre's decisions and the device's own words."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.campaigns.tables import JobRow
from fleetmark_collector.sinks.base import Reader, Stored
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.records import EventRecord, Failure, TrialRecord

NS = 1_000_000_000
MARGIN_NS = 600 * NS
"""An event of a job may come so long before the first record of it: it waited for its machine."""
DAY_NS = 86_400 * NS
MAX_EVENTS = 10_000
"""Newest events that are looked through."""


@dataclass(frozen=True)
class Entry:
    """One thing that happened.

    Attributes:
        time_ns: on the clock of who says it.
        source: the centre, or the device.
        what: a state, ASSIGNED, or an event's code.
        attempt: None where it belongs to none.
        text: more about it; may be empty.
        late: whether it came after the job had ended here, and changed nothing.
    """

    time_ns: int
    source: Literal["centre", "device"]
    what: str
    attempt: int | None
    text: str = ""
    late: bool = False


def read_log(store: CampaignStore, reader: Reader | None, job: JobRow) -> list[Entry]:
    """Return all that is known to have happened to a job, in order of time.

    Centre and device have clocks of their own: where these differ, so does the order.

    Args:
        store: has the job.
        reader: the store of records; without one the centre alone speaks.
        job: which.

    Raises:
        StoreError: state file or store cannot be read.
    """
    campaign = store.campaign(job.campaign_id)
    entries = list(_of_centre(store, job, campaign.created_ns))
    if reader is not None:
        entries += _of_device(store, reader, job, campaign.created_ns)
    return sorted(entries, key=lambda entry: entry.time_ns)


def read_trials(reader: Reader, job: JobRow) -> list[TrialRecord]:
    """Return the trials of a job, those that were measured again included, in order of time.

    Raises:
        StoreError: the store cannot be read.
    """
    return [
        one.record
        for one in reader.trials(job.campaign_id)
        if (one.fleet, one.device, one.record.job_id) == (job.fleet, job.device, job.job_id)
    ]


def _of_device(
    store: CampaignStore, reader: Reader, job: JobRow, created_ns: int
) -> Iterator[Entry]:
    own: list[Stored[Any]] = [
        one
        for one in reader.job_records(job.campaign_id)
        if (one.fleet, one.device, one.record.job_id) == (job.fleet, job.device, job.job_id)
    ]
    late = {one.record for one in store.late_reports(job.campaign_id) if one.job_id == job.job_id}
    for one in own:
        record = one.record
        text = f"{record.trials_recorded} of {record.trials_planned} trials recorded"
        if record.failure is not None:
            text = f"{failure_text(record.failure)}; {text}"
        yield Entry(
            record.time_ns,
            "device",
            str(record.state),
            record.attempt,
            text if record.state.terminal else "",
            late=record in late,
        )
    for event in events_of(reader, {job.job_id}, own, created_ns):
        said = event.record
        attempt = said.data.get("attempt")
        yield Entry(
            said.time_ns,
            "device",
            said.code,
            attempt if isinstance(attempt, int) else None,
            said.message,
        )


def events_of(
    reader: Reader, job_ids: Collection[str], known: Sequence[Stored[Any]], created_ns: int
) -> list[Stored[EventRecord]]:
    """Return the events that tell of one of these jobs, in order of time.

    Args:
        reader: the store.
        job_ids: the jobs.
        known: other records of theirs: devices' clocks may be far off the centre's.
        created_ns: when their campaign began, on the centre's clock.
    """
    first = min((item.record.time_ns for item in known), default=created_ns - DAY_NS)
    found = reader.events(max(0, first - MARGIN_NS), MAX_EVENTS)
    return [item for item in found if item.record.job_id in job_ids]


def failure_text(failure: Failure) -> str:
    """Return a failure in one line that is safe to print: devices may say anything."""
    text = f"{failure.code}: {failure.message}"
    return "".join(char if char.isprintable() else " " for char in text)


def _of_centre(store: CampaignStore, job: JobRow, created_ns: int) -> Iterator[Entry]:
    before = store.job(job.retry_of) if job.retry_of is not None else None
    if before is not None and before.superseded_by == job.job_id:
        created_ns = before.updated_ns
        yield Entry(created_ns, "centre", str(JobState.QUEUED), None, f"runs {before.job_id} again")
    else:
        yield Entry(created_ns, "centre", str(JobState.QUEUED), None)
    if job.assigned_ns is not None:
        yield Entry(job.assigned_ns, "centre", "ASSIGNED", None, f"to {job.device}")
    moves = [move for move in store.moves(job.campaign_id) if move.job_id == job.job_id]
    for move in moves:
        text = failure_text(move.failure) if move.failure is not None else ""
        yield Entry(move.time_ns, "centre", str(move.state), move.attempt, text)
    if job.superseded_by is not None:
        yield Entry(job.updated_ns, "centre", "RUN AGAIN", None, f"as {job.superseded_by}")
    if job.stop_ns is not None:
        why = {"window": "its window closed", "cancel": "somebody canceled it"}
        text = why.get(str(job.stop_reason), "")
        yield Entry(job.stop_ns, "centre", "ASKED TO STOP", None, text)
    if not moves and job.state is not JobState.QUEUED:
        # A job from before changes were kept one by one: only the last of them is known.
        text = failure_text(job.failure) if job.failure is not None else ""
        yield Entry(job.updated_ns, "centre", str(job.state), job.attempt, text)
