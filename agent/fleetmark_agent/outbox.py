"""The on-disk buffer of records: nothing leaves it until the collector says it is written."""

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from fleetmark_agent.database import Database
from fleetmark_protocol import codec, logs
from fleetmark_protocol.errors import OutboxFull, StoreUnavailable
from fleetmark_protocol.ids import new_uuid
from fleetmark_protocol.records import EventRecord, Record, TelemetryRecord

RESULT, TELEMETRY = 0, 1
"""Priorities: what is sent first, and kept longest."""

RESERVE = 1000
"""Sequence numbers are reserved on disk in blocks of this many."""

ROW_OVERHEAD_BYTES = 48
NEAR_CAP = 0.9
THINNED_TO = 0.75


@dataclass(frozen=True)
class Backlog:
    """What waits for an acknowledgement."""

    records: int
    bytes: int
    max_bytes: int
    """The outbox's cap, which results may exceed."""

    @property
    def used_percent(self) -> float:
        """What waits, as a share of the cap; above 100 where results exceed it."""
        return 100 * self.bytes / self.max_bytes


class Outbox:
    """Records in order of `seq`; an `epoch` names this outbox among all that ever were."""

    def __init__(
        self,
        database: Database,
        max_bytes: int,
        clock_ns: Callable[[], int] = time.time_ns,
        on_append: Callable[[int], None] = lambda _priority: None,
    ) -> None:
        """Go on where the file left off.

        Args:
            database: the agent's file.
            max_bytes: bound of what the records take; see `append`.
            clock_ns: the Unix time in nanoseconds.
            on_append: called with the priority after each record, to wake the link.
        """
        self._database = database
        self._max_bytes = max_bytes
        self._clock_ns = clock_ns
        self.on_append = on_append
        self._log = logs.get("outbox")
        self._lost_telemetry = 0
        # The newest that was handed out to be sent, by priority.
        self._handed_out = {RESULT: 0, TELEMETRY: 0}
        self.thinned = 0
        """Telemetry dropped near the cap since the start."""
        self.own_events = 0
        """Events since the start that tell of missing telemetry."""
        with database.transaction(durable=True) as connection:
            meta = dict(connection.execute("SELECT key, value FROM meta"))
            self.epoch: str = meta.get("epoch") or new_uuid()
            (last,) = connection.execute("SELECT coalesce(max(seq), 0) FROM records").fetchone()
            # A power cut may have taken the newest telemetry rows although they were sent. Their
            # numbers must not be given again: the store would take the new for the old.
            self._next_seq: int = max(last, meta.get("reserved_seq", 0)) + 1
            self._reserved_seq: int = self._next_seq + RESERVE
            self._last_time_ns: dict[str, int] = {
                key.removeprefix("time_ns."): value
                for key, value in meta.items()
                if key.startswith("time_ns.")
            }
            self._set(epoch=self.epoch, reserved_seq=self._reserved_seq)
        self._records = self._bytes = 0
        self._recount()
        # A record of a larger transaction may be counted and then undone with it.
        database.on_rollback = self._recount

    def append(self, record: Record) -> int:
        """Keep a record and return its `seq`; its time is moved on where it would repeat.

        Near the cap old telemetry is thinned (an event says how much). Measured results and job
        states go in beyond the cap as long as the disk takes them: they are few, and precious.

        Raises:
            OutboxFull: the disk is full. New telemetry is then counted and let go, not raised.
            StoreUnavailable: the file cannot be written.
        """
        telemetry = isinstance(record, TelemetryRecord)
        try:
            seq = self._append(record, TELEMETRY if telemetry else RESULT)
        except StoreUnavailable:
            if not telemetry:
                raise
            self._lost_telemetry += 1
            return 0
        self.on_append(TELEMETRY if telemetry else RESULT)
        if self._lost_telemetry:
            self._confess()
        if self._bytes > NEAR_CAP * self._max_bytes:
            self._thin()
        return seq

    def _append(self, record: Record, priority: int) -> int:
        with self._database.transaction(durable=priority == RESULT) as connection:
            time_ns = max(record.time_ns, self._last_time_ns.get(record.kind, 0) + 1)
            body = codec.encode(record.model_copy(update={"time_ns": time_ns}))
            size = len(body) + ROW_OVERHEAD_BYTES
            if priority == TELEMETRY and self._bytes + size > self._max_bytes:
                raise OutboxFull("the outbox is full of results")
            seq: int = self._next_seq
            if seq >= self._reserved_seq:
                self._reserved_seq = seq + RESERVE
                self._set(reserved_seq=self._reserved_seq)
            connection.execute(
                "INSERT INTO records VALUES (?, ?, ?, ?)", (seq, priority, record.kind, body)
            )
            if priority == RESULT:
                self._set(**{f"time_ns.{record.kind}": time_ns})
            # Before the commit, for the next thread enters after it; should the commit fail, a
            # number stays unused, which nobody minds.
            self._next_seq = seq + 1
            self._last_time_ns[record.kind] = time_ns
            self._records += 1
            self._bytes += size
        return seq

    def batch(
        self, max_records: int, max_bytes: int, skip: Collection[int] = ()
    ) -> list[tuple[int, bytes]]:
        """Return what to send next, results before telemetry, oldest first.

        Args:
            max_records: at most so many.
            max_bytes: at most so many bytes of records, but at least one record.
            skip: sequence numbers that are under way.
        """
        with self._database.transaction() as connection:
            rows = connection.execute(
                "SELECT seq, priority, body FROM records ORDER BY priority, seq LIMIT ?",
                (max_records + len(skip),),
            ).fetchall()
            out: list[tuple[int, bytes]] = []
            size = 0
            for seq, priority, body in rows:
                if seq in skip:
                    continue
                size += len(body) + ROW_OVERHEAD_BYTES
                if out and (size > max_bytes or len(out) >= max_records):
                    break
                out.append((seq, body))
                self._handed_out[priority] = max(seq, self._handed_out[priority])
        return out

    def ack(self, epoch: str, ranges: Iterable[tuple[int, int]]) -> int:
        """Let go of what is written at the centre; return how many records that were.

        What `batch` has not handed out since the start cannot have been written: an ack of it is
        somebody's mistake, and frees nothing.

        Raises:
            StoreUnavailable: the file cannot be written; the same ack may be given again.
        """
        if epoch != self.epoch:
            return 0
        freed = freed_bytes = 0
        with self._database.transaction() as connection:
            for first, last in ranges:
                # Each priority is handed out in the order of its numbers.
                which = (
                    "WHERE seq BETWEEN ? AND ? AND seq <= CASE priority WHEN ? THEN ? ELSE ? END"
                )
                values = (first, last, RESULT, *self._handed_out.values())
                size, count = connection.execute(
                    f"SELECT coalesce(sum(length(body) + {ROW_OVERHEAD_BYTES}), 0), count(*)"  # noqa: S608
                    f" FROM records {which}",
                    values,
                ).fetchone()
                connection.execute(f"DELETE FROM records {which}", values)  # noqa: S608
                freed, freed_bytes = freed + count, freed_bytes + size
        self._records -= freed
        self._bytes -= freed_bytes
        return freed

    def holds(self, seq: int) -> bool:
        """Whether a record still waits."""
        with self._database.transaction() as connection:
            row = connection.execute("SELECT 1 FROM records WHERE seq = ?", (seq,)).fetchone()
        return row is not None

    def backlog(self) -> Backlog:
        """Return how much waits."""
        return Backlog(self._records, self._bytes, self._max_bytes)

    def _recount(self) -> None:
        with self._database.transaction() as connection:
            self._records, self._bytes = connection.execute(
                f"SELECT count(*), coalesce(sum(length(body) + {ROW_OVERHEAD_BYTES}), 0)"  # noqa: S608
                " FROM records"
            ).fetchone()

    def _thin(self) -> None:
        """Drop every other of the older half of the telemetry until there is room again."""
        dropped = 0
        while self._bytes > THINNED_TO * self._max_bytes:
            try:
                count = self._thin_once()
            except StoreUnavailable as error:
                self._log.warning("thinning_failed", error=str(error))
                return
            if count == 0:
                break
            dropped += count
        if dropped:
            self._say("telemetry_thinned", "the outbox neared its cap", dropped)

    def _thin_once(self) -> int:
        with self._database.transaction() as connection:
            rows = connection.execute(
                "SELECT seq, length(body) FROM records WHERE priority = ? ORDER BY seq"
                " LIMIT (SELECT max(2, count(*) / 2) FROM records WHERE priority = ?)",
                (TELEMETRY, TELEMETRY),
            ).fetchall()
            victims = rows[1::2] or rows
            connection.executemany("DELETE FROM records WHERE seq = ?", [(s,) for s, _ in victims])
        self.thinned += len(victims)
        self._records -= len(victims)
        self._bytes -= sum(size + ROW_OVERHEAD_BYTES for _, size in victims)
        return len(victims)

    def _confess(self) -> None:
        lost, self._lost_telemetry = self._lost_telemetry, 0
        if not self._say("telemetry_lost", "the outbox could not be written", lost):
            self._lost_telemetry += lost

    def _say(self, code: str, why: str, count: int) -> bool:
        self._log.warning(code, why=why, records=count)
        event = EventRecord(
            time_ns=self._clock_ns(),
            severity="warning",
            code=code,
            message=f"{count} telemetry records are missing because {why}",
            data={"records": count},
        )
        try:
            self._append(event, RESULT)
        except StoreUnavailable:
            return False
        self.own_events += 1
        return True

    def _set(self, **values: object) -> None:
        with self._database.transaction() as connection:
            connection.executemany(
                "INSERT INTO meta VALUES (?, ?)"
                " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                values.items(),
            )
