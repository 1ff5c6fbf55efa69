"""The reader's role on InfluxDB: records come back exactly as they were written."""

from collections import defaultdict
from collections.abc import Collection
from typing import TypeVar

from fleetmark_collector.config import InfluxSettings
from fleetmark_collector.sinks.base import Stored
from fleetmark_collector.sinks.influxdb.query import InfluxQL, identifier, literal
from fleetmark_collector.sinks.influxdb.rows import records
from fleetmark_collector.sinks.influxdb.schema import MAX_TIME_NS, MEASUREMENTS, MIN_TIME_NS
from fleetmark_collector.sinks.influxdb.server import detect
from fleetmark_protocol.errors import StoreError
from fleetmark_protocol.ids import device_of_job
from fleetmark_protocol.records import (
    EventRecord,
    JobRecord,
    LoadRecord,
    TelemetryRecord,
    TrialRecord,
)

COUNT_TIMEOUT_S = 600.0
"""How long counting all there is may take: years of samples are billions."""

FEW_JOBS = 16
"""Up to so many jobs are asked for one by one; for more the campaign is read once."""

FEW_DEVICES = 16
"""Likewise of devices that have new trials."""

MAX_CAMPAIGNS = 50
"""Campaigns of which is remembered what was read last; those not asked for longest go first."""

RECENT = "1h"
"""How far back the newest samples are looked for in one go; whoever sent none is asked for."""

Device = tuple[str, str]
T = TypeVar("T")
R = TypeVar("R", TrialRecord, LoadRecord, JobRecord, EventRecord)


class InfluxReader:
    """Asks the server each time; used by one thread.

    What a campaign's jobs reported and which trials it has is asked once a second by whoever
    watches it. Records never change, so while their number is the same they are the same: then
    what was read last is what there is. One that is just being written is counted, but not read
    yet, so that the numbers differ and it is read the next time.
    """

    def __init__(self, settings: InfluxSettings) -> None:
        """Nothing is sent before the first query."""
        self._settings = settings
        self._open: InfluxQL | None = None
        # Campaign -> number of its job records when they were read, and these.
        self._jobs: dict[str, tuple[int, list[Stored[JobRecord]]]] = {}
        # Campaign -> device -> number of its trials when they were read, and job -> trial ids.
        self._trials: dict[str, dict[Device, tuple[int, dict[str, set[str]]]]] = {}

    def trials(self, campaign_id: str) -> list[Stored[TrialRecord]]:
        """Return all trials of a campaign, warm-ups and failures included, in order of time."""
        return self._of_campaign(TrialRecord, campaign_id)

    def loads(self, campaign_id: str) -> list[Stored[LoadRecord]]:
        """Return all model loads of a campaign, in order of time."""
        return self._of_campaign(LoadRecord, campaign_id)

    def job_records(self, campaign_id: str) -> list[Stored[JobRecord]]:
        """Return all job state changes of a campaign, in order of (device, seq).

        Where a device's outbox was made anew, the records of the older one come first.
        """
        there = self._count("job", campaign_id)
        known = self._jobs.get(campaign_id)
        if known is None or known[0] != there:
            found = self._of_campaign(JobRecord, campaign_id)
            began: dict[tuple[str, str, str], int] = {}
            for one in found:
                began.setdefault((one.fleet, one.device, one.epoch), one.record.time_ns)
            found.sort(
                key=lambda one: (
                    *(one.fleet, one.device, began[one.fleet, one.device, one.epoch]),
                    *(one.epoch, one.seq),
                )
            )
            known = (len(found), found)
        _remember(self._jobs, campaign_id, known)
        return list(known[1])

    def trial_counts(self, campaign_id: str, jobs: Collection[str] | None = None) -> dict[str, int]:
        """Return job id -> number of distinct trials (`trial_id`) of its device in the store.

        Args:
            campaign_id: whose.
            jobs: only these; None for all.
        """
        if jobs is not None and len(jobs) <= FEW_JOBS:
            counts = {job: self._trials_of(campaign_id, job) for job in jobs}
            return {job: count for job, count in counts.items() if count}
        ids: defaultdict[str, set[str]] = defaultdict(set)
        for (_, device), (_, by_job) in self._trial_ids(campaign_id).items():
            for job, trials in by_job.items():
                if device_of_job(job) in (None, device):
                    ids[job] |= trials
        return {job: len(trials) for job, trials in ids.items() if jobs is None or job in jobs}

    def trials_since(self, campaign_id: str, job_id: str, attempt: int) -> int:
        """Return the number of distinct trials of a job that this attempt or later ones made."""
        return self._trials_of(campaign_id, job_id, f" AND attempt >= {attempt:d}")

    def latest_telemetry(self) -> dict[Device, TelemetryRecord]:
        """Return (fleet, device) -> newest sample.

        Whole samples are looked for in recent time only, where nearly all are; of all time, which
        may be years in as many files, one field is.
        """
        # Two, for the newest may be one that is just being written.
        newest = "GROUP BY fleet, device ORDER BY time DESC LIMIT 2"
        latest = self._samples(f"WHERE time > now() - {RECENT} {newest}")
        last = self._influxql.rows('SELECT last(seq) FROM "telemetry" GROUP BY fleet, device')
        for row in list(last):
            key = (row["fleet"], row["device"])
            if key not in latest:
                latest |= self._samples(f"WHERE {of_device(*key)} AND time = {row['time']}")
        return latest

    def telemetry(
        self, fleet: str, device: str, start_ns: int, end_ns: int
    ) -> list[TelemetryRecord]:
        """Return the samples of a device with start_ns <= time_ns < end_ns, in order of time."""
        start_ns, end_ns = max(start_ns, MIN_TIME_NS), min(end_ns, MAX_TIME_NS + 1)
        if start_ns >= end_ns:
            return []
        chunks = self._influxql.chunks(
            f'SELECT * FROM "telemetry" WHERE {of_device(fleet, device)} '  # noqa: S608
            f"AND time >= {start_ns} AND time < {end_ns}"
        )
        return [one.record for one in records(TelemetryRecord, chunks)]

    def events(self, since_ns: int = 0, limit: int = 1000) -> list[Stored[EventRecord]]:
        """Return the newest events at or after a time, oldest first."""
        if limit <= 0 or since_ns > MAX_TIME_NS:
            return []
        chunks = self._influxql.chunks(
            f'SELECT * FROM "event" WHERE time >= {max(since_ns, MIN_TIME_NS)} '  # noqa: S608
            f"ORDER BY time DESC LIMIT {limit}"
        )
        return sorted(records(EventRecord, chunks), key=_in_time)

    def counts(self) -> dict[str, int]:
        """Return kind -> number of records in the store; slow where there are very many."""
        patient = InfluxQL(self._settings, COUNT_TIMEOUT_S)
        try:
            counts = dict.fromkeys(MEASUREMENTS, 0)
            for kind in MEASUREMENTS:
                for row in patient.rows(f"SELECT count(seq) AS n FROM {identifier(kind)}"):  # noqa: S608
                    counts[kind] += int(row["n"])
            return counts
        finally:
            patient.close()

    def close(self) -> None:
        """Release the connections; a later query makes new ones."""
        if self._open is not None:
            self._open.close()
            self._open = None

    @property
    def _influxql(self) -> InfluxQL:
        if self._open is None:
            check_readable(self._settings)
            self._open = InfluxQL(self._settings)
        return self._open

    def _of_campaign(self, kind: type[R], campaign_id: str) -> list[Stored[R]]:
        """Return all records of a kind and a campaign, in order of time."""
        name = identifier(kind.model_fields["kind"].default)
        chunks = self._influxql.chunks(
            f"SELECT * FROM {name} WHERE campaign_id = {literal(campaign_id)}"  # noqa: S608
        )
        return sorted(records(kind, chunks), key=_in_time)

    def _count(self, kind: str, campaign_id: str) -> int:
        rows = self._influxql.rows(
            f"SELECT count(seq) AS n FROM {identifier(kind)} "  # noqa: S608
            f"WHERE campaign_id = {literal(campaign_id)}"
        )
        return sum(int(row["n"]) for row in rows)

    def _trials_of(self, campaign_id: str, job_id: str, more: str = "") -> int:
        device = device_of_job(job_id)
        if device is not None:
            more += f" AND device = {literal(device)}"
        rows = self._influxql.rows(
            f'SELECT distinct(trial_id) FROM "trial" WHERE campaign_id = {literal(campaign_id)} '  # noqa: S608
            f"AND job_id = {literal(job_id)}{more}"
        )
        return sum(1 for _ in rows)

    def _trial_ids(self, campaign_id: str) -> dict[Device, tuple[int, dict[str, set[str]]]]:
        """Bring what is known of a campaign's trials up to date, reading what has changed."""
        where = f"WHERE campaign_id = {literal(campaign_id)}"
        rows = self._influxql.rows(
            f'SELECT count(seq) AS n FROM "trial" {where} GROUP BY fleet, device'  # noqa: S608
        )
        there = {(row["fleet"], row["device"]): int(row["n"]) for row in rows}
        known = self._trials.get(campaign_id, {})
        _remember(self._trials, campaign_id, known)
        for gone in known.keys() - there.keys():
            del known[gone]
        changed = [
            device for device, number in there.items() if known.get(device, (0,))[0] != number
        ]
        if len(changed) > FEW_DEVICES:
            known.update(self._read_trial_ids(where))
        else:
            for device in changed:
                known.update(self._read_trial_ids(f"{where} AND {of_device(*device)}"))
        return known

    def _read_trial_ids(self, where: str) -> dict[Device, tuple[int, dict[str, set[str]]]]:
        numbers: defaultdict[Device, int] = defaultdict(int)
        ids: defaultdict[Device, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for row in self._influxql.rows(
            f'SELECT job_id, trial_id FROM "trial" {where} GROUP BY fleet, device'  # noqa: S608
        ):
            if row["job_id"] is None or row["trial_id"] is None:
                continue  # just being written
            device = (row["fleet"], row["device"])
            numbers[device] += 1
            ids[device][row["job_id"]].add(row["trial_id"])
        return {device: (numbers[device], by_job) for device, by_job in ids.items()}

    def _samples(self, rest: str) -> dict[Device, TelemetryRecord]:
        """Return the first sample of each device in an answer."""
        chunks = self._influxql.chunks(f'SELECT * FROM "telemetry" {rest}')  # noqa: S608
        samples: dict[Device, TelemetryRecord] = {}
        for one in records(TelemetryRecord, chunks):
            samples.setdefault((one.fleet, one.device), one.record)
        return samples


def _remember(known: dict[str, T], campaign_id: str, value: T) -> None:
    """Put a campaign last, and forget the first where there are too many."""
    known.pop(campaign_id, None)
    known[campaign_id] = value
    if len(known) > MAX_CAMPAIGNS:
        del known[next(iter(known))]


def check_readable(settings: InfluxSettings) -> None:
    """Let a server pass that what was written can be read back from.

    Raises:
        StoreUnavailable: it does not answer.
        ConfigError: it refuses us.
        StoreError: it cannot be read from.
    """
    server = detect(settings)
    if not server.answers_influxql:
        raise StoreError(
            f"{settings.url}: {server} does not answer InfluxQL: what is written there can be "
            "drawn, but not read back",
            hint="campaigns and reports need InfluxDB 1, 2 or 3, or the embedded store",
        )


def of_device(fleet: str, device: str) -> str:
    """Return the condition that picks a device."""
    return f"fleet = {literal(fleet)} AND device = {literal(device)}"


def _in_time(one: Stored[R]) -> tuple[int, str, str, str, int]:
    return (one.record.time_ns, one.fleet, one.device, one.epoch, one.seq)
