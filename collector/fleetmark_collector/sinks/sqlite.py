"""The embedded store: one SQLite file that one collector writes and any number of readers read."""

import sqlite3
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from fleetmark_collector.plain import AnyRecord, PlainTelemetry
from fleetmark_collector.sinks import sqlite_trials
from fleetmark_collector.sinks.base import Stored
from fleetmark_collector.sinks.sqlite_schema import COLUMNS, INSERT, check_version, schema
from fleetmark_collector.sqlitefile import connect, transaction, translated
from fleetmark_protocol.errors import PartialWrite, StoreError, StoreUnavailable
from fleetmark_protocol.records import (
    EventRecord,
    JobRecord,
    LoadRecord,
    TelemetryRecord,
    TrialRecord,
)

_POISON = (
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    sqlite3.DataError,
    sqlite3.IntegrityError,
    OverflowError,
    UnicodeError,
)
"""What binding or inserting a value raises that no later try can help."""

MAX_REMEMBERED = 50_000
"""Outboxes whose numbers are remembered."""

R = TypeVar("R", TrialRecord, LoadRecord, JobRecord, EventRecord)
T = TypeVar("T")
Row = tuple[object, ...]


class SqliteSink:
    """The writer. Used by one thread at a time.

    `synchronous = FULL`, because an acknowledgement makes the device forget its copy: in
    write-ahead mode a commit under the default (NORMAL) can be undone by a power cut. One
    transaction a batch spreads the price of that fsync over thousands of records.
    """

    threads = 1

    def __init__(self, file: Path) -> None:
        """Open the store, or make it.

        Raises:
            StoreUnavailable: it cannot be opened now.
            StoreError: a newer fleetmark wrote it, or it is no store.
        """
        self._file = file
        self._sources: dict[tuple[str, str, str], int] = {}
        self._db = connect(file, "rwc")
        try:
            with translated(file):
                self._db.execute("PRAGMA synchronous = FULL")
                self._db.execute("PRAGMA cache_size = -16000")
                if check_version(self._db, file) == 0:
                    self._db.executescript(f"BEGIN IMMEDIATE;\n{schema()}\nCOMMIT;")
        except StoreError:
            self._db.close()
            raise

    def write(self, items: Sequence[Stored[AnyRecord]]) -> None:
        """Write durably and idempotently; on return a power cut loses nothing of it.

        Raises:
            StoreUnavailable: nothing was written; write the same again later.
            PartialWrite: names what is durable and what can never be written.
            StoreError: the file is damaged.
        """
        if not items:
            return
        try:
            with translated(self._file):
                rejected = self._write(items)
        except BaseException:
            # Sources that the rolled back transaction had added are gone again.
            self._sources.clear()
            raise
        if rejected:
            accepted = [at for at in range(len(items)) if at not in rejected]
            raise PartialWrite(
                f"{len(rejected)} of {len(items)} records cannot be written",
                accepted=accepted,
                rejected=rejected,
            )

    def _write(self, items: Sequence[Stored[AnyRecord]]) -> dict[int, str]:
        try:
            with transaction(self._db):
                rows: dict[str, list[Row]] = {kind: [] for kind in COLUMNS}
                for item in items:
                    rows[item.record.kind].append(self._row(item))
                for kind, some in rows.items():
                    if some:
                        self._db.executemany(INSERT[kind], some)
        except (*_POISON, ValueError):
            self._sources.clear()
            return self._write_one_by_one(items)
        return {}

    def _write_one_by_one(self, items: Sequence[Stored[AnyRecord]]) -> dict[int, str]:
        """Find the records that cannot be written and write the others."""
        rejected: dict[int, str] = {}
        with transaction(self._db):
            for at, item in enumerate(items):
                try:
                    self._db.execute(INSERT[item.record.kind], self._row(item))
                except (*_POISON, ValueError) as error:
                    rejected[at] = f"{type(error).__name__}: {error}"
        return rejected

    def _row(self, item: Stored[AnyRecord]) -> Row:
        record = item.record
        source = self._sources.get((item.fleet, item.device, item.epoch)) or self._source(item)
        if isinstance(record, PlainTelemetry):
            return (source, item.seq, record.time_ns, record.as_json().decode())
        return (
            source,
            item.seq,
            *(getattr(record, name) for name in COLUMNS[record.kind]),
            record.model_dump_json(exclude_none=True),
        )

    def _source(self, item: Stored[AnyRecord]) -> int:
        key = (item.fleet, item.device, item.epoch)
        self._db.execute(
            "INSERT INTO source (fleet, device, epoch) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", key
        )
        (number,) = self._db.execute(
            "SELECT id FROM source WHERE fleet = ? AND device = ? AND epoch = ?", key
        ).fetchone()
        if len(self._sources) >= MAX_REMEMBERED:
            # A device may name its outbox anew with every message.
            self._sources.clear()
        self._sources[key] = number
        return int(number)

    def close(self) -> None:
        """Release the store."""
        self._db.close()


class SqliteReader:
    """The reader: a read-only connection and one short query at a time, so it blocks nobody.

    The file may come later than the reader: until then every query raises `StoreUnavailable`
    ("no data yet"), which is also what a command with the wrong directory should say.
    """

    def __init__(self, file: Path) -> None:
        """Nothing is opened before the first query."""
        self._file = file
        self._db: sqlite3.Connection | None = None

    def _rows(self, sql: str, args: Row = ()) -> list[Row]:
        if self._db is None:
            if not self._file.exists():
                raise StoreUnavailable(
                    f"no data yet in {self._file.parent}",
                    hint="is this the collector's data_dir (--data-dir), and has `fleetmark "
                    "collect` run?",
                )
            db = connect(self._file, "ro")
            try:
                with translated(self._file):
                    if check_version(db, self._file) == 0:
                        raise StoreUnavailable(f"{self._file}: the collector is just making it")
            except StoreError:
                db.close()
                raise
            self._db = db
        with translated(self._file):
            return self._db.execute(sql, args).fetchall()

    def _stored(self, kind: type[R], table: str, rest: str, args: Row) -> list[Stored[R]]:
        rows = self._rows(
            f"SELECT fleet, device, epoch, seq, body FROM {table} "  # noqa: S608
            f"JOIN source ON source.id = {table}.source {rest}",
            args,
        )
        return [
            Stored(fleet, device, epoch, seq, _parsed(kind.model_validate_json, body))  # type: ignore[arg-type]
            for fleet, device, epoch, seq, body in rows
        ]

    def trials(self, campaign_id: str) -> list[Stored[TrialRecord]]:
        """Return all trials of a campaign, warm-ups and failures included, in order of time."""
        return self._stored(
            TrialRecord,
            "trial",
            "WHERE campaign_id = ? ORDER BY time_ns, source, seq",
            (campaign_id,),
        )

    def loads(self, campaign_id: str) -> list[Stored[LoadRecord]]:
        """Return all model loads of a campaign, in order of time."""
        return self._stored(
            LoadRecord,
            "load",
            "WHERE campaign_id = ? ORDER BY time_ns, source, seq",
            (campaign_id,),
        )

    def job_records(self, campaign_id: str) -> list[Stored[JobRecord]]:
        """Return all job state changes of a campaign, in order of (device, seq).

        Where a device's outbox was made anew, the records of the older one come first.
        """
        return self._stored(
            JobRecord,
            "job",
            "WHERE campaign_id = ? ORDER BY fleet, device, source, seq",
            (campaign_id,),
        )

    def trial_counts(self, campaign_id: str, jobs: Collection[str] | None = None) -> dict[str, int]:
        """Return job id -> number of distinct trials (`trial_id`) of its device in the store.

        Args:
            campaign_id: whose.
            jobs: only these; None for all.
        """
        return sqlite_trials.counts(self._rows, campaign_id, jobs)

    def trials_since(self, campaign_id: str, job_id: str, attempt: int) -> int:
        """Return the number of distinct trials of a job that this attempt or later ones made."""
        return sqlite_trials.since(self._rows, campaign_id, job_id, attempt)

    def latest_telemetry(self) -> dict[tuple[str, str], TelemetryRecord]:
        """Return (fleet, device) -> newest sample."""
        rows = self._rows(
            "SELECT fleet, device, (SELECT body FROM telemetry WHERE telemetry.source = source.id "
            "ORDER BY time_ns DESC LIMIT 1) AS body FROM source WHERE body IS NOT NULL"
        )
        latest: dict[tuple[str, str], TelemetryRecord] = {}
        for fleet, device, body in rows:
            sample = _parsed(TelemetryRecord.model_validate_json, body)
            key = (str(fleet), str(device))
            if key not in latest or latest[key].time_ns < sample.time_ns:
                latest[key] = sample
        return latest

    def telemetry(
        self, fleet: str, device: str, start_ns: int, end_ns: int
    ) -> list[TelemetryRecord]:
        """Return the samples of a device with start_ns <= time_ns < end_ns, in order of time."""
        rows = self._rows(
            "SELECT body FROM telemetry JOIN source ON source.id = telemetry.source "
            "WHERE fleet = ? AND device = ? AND time_ns >= ? AND time_ns < ? ORDER BY time_ns",
            (fleet, device, start_ns, end_ns),
        )
        return [_parsed(TelemetryRecord.model_validate_json, body) for (body,) in rows]

    def events(self, since_ns: int = 0, limit: int = 1000) -> list[Stored[EventRecord]]:
        """Return the newest events at or after a time, oldest first."""
        newest = self._stored(
            EventRecord,
            "event",
            "WHERE time_ns >= ? ORDER BY time_ns DESC, source DESC, seq DESC LIMIT ?",
            (since_ns, limit),
        )
        return newest[::-1]

    def counts(self) -> dict[str, int]:
        """Return kind -> number of records in the store."""
        parts = (f"SELECT '{kind}', count(*) FROM {kind}" for kind in COLUMNS)  # noqa: S608
        return dict(self._rows(" UNION ALL ".join(parts)))  # type: ignore[arg-type]

    def close(self) -> None:
        """Release the store; a later query opens it again."""
        if self._db is not None:
            self._db.close()
            self._db = None


def _parsed(parse: Callable[[str], T], body: object) -> T:
    try:
        return parse(str(body))
    except ValidationError as error:
        raise StoreError(
            f"a stored record cannot be read by this version: {error.errors()[0]['msg']}",
            hint="use the version that wrote it",
        ) from error
