"""Who is out there: devices' last statuses and inventories, and the collector's own heartbeat."""

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fleetmark_collector.presence import Presence, late_will
from fleetmark_collector.remembered import Remembered
from fleetmark_collector.sqlitefile import Fence, connect, transaction, translated
from fleetmark_protocol import codec, topics
from fleetmark_protocol.errors import ContractError, StoreError
from fleetmark_protocol.messages import Inventory, Status

STALE_BEAT_S = 10.0
"""A collector whose last heartbeat is older is taken for dead; it beats about once a second."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS device (
    fleet TEXT NOT NULL,
    device TEXT NOT NULL,
    status TEXT,
    inventory TEXT,
    last_seen_ns INTEGER,
    PRIMARY KEY (fleet, device)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS heartbeat (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    time_ns INTEGER NOT NULL,
    pid INTEGER NOT NULL,
    stats TEXT NOT NULL
);
"""


@dataclass(frozen=True)
class Device:
    """A device as the collector knows it.

    Attributes:
        online: what its last status said; False where none has come.
        status: None where only records or an inventory have come.
        inventory: None where none has come.
        last_seen_ns: when the collector last heard from it, on the collector's clock; None where
            only retained messages have come.
    """

    fleet: str
    device: str
    online: bool = False
    status: Status | None = None
    inventory: Inventory | None = None
    last_seen_ns: int | None = None


@dataclass(frozen=True)
class Beat:
    """A sign of life of the collector.

    Attributes:
        time_ns: since the epoch, on the clock of the collector's machine.
        pid: of the collector.
        stats: its counters (`ingest.Stats` as a mapping).
    """

    time_ns: int
    pid: int
    stats: Mapping[str, float]

    def fresh(self, now_ns: int) -> bool:
        """Whether a collector that beats like this is alive."""
        return abs(now_ns - self.time_ns) < STALE_BEAT_S * 1e9


class DeviceRegistry:
    """The table of devices in the state file, shared by the collector and the commands.

    In the collector, `receive` and `seen` only take notes, so that neither network nor ingest
    ever waits for a disk; `flush`, called about once a second, writes them, and keeps them where
    that fails. Commands just read; a state file that is not there reads as no devices.
    """

    def __init__(
        self,
        state_file: Path,
        clock: Callable[[], int] = time.time_ns,
        fence: Fence = lambda _: None,
    ) -> None:
        """Nothing is opened yet.

        Args:
            state_file: shared with campaigns and jobs.
            clock: nanoseconds since the epoch.
            fence: see `sqlitefile.Fence`; commands have none.
        """
        self._file = state_file
        self._fence = fence
        self._clock = clock
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._notes: dict[topics.Topic, Status | Inventory | None] = {}
        self._last_seen_ns: dict[tuple[str, str], int] = {}
        self._parsed = Remembered(_device)
        self.presence = Presence()
        """Told of every status; what connects tells it of connections."""

    # --- notes, taken by any thread -----------------------------------------------------------

    def receive(self, topic: str, payload: bytes, retained: bool = False) -> None:
        """Note a status or an inventory; an empty one is the operator forgetting it.

        Raises:
            ContractError: it is neither.
        """
        parsed = topics.parse(topic)
        if parsed.channel not in ("status", "inventory"):
            raise ContractError(f"neither a status nor an inventory: {topic!r}")
        message: Status | Inventory | None = None
        if payload:
            message = codec.decode(Status if parsed.channel == "status" else Inventory, payload)  # type: ignore[assignment]
            # With all that it leaves out it may be larger than it came, and too large to keep.
            codec.encode(message)  # type: ignore[arg-type]
        with self._lock:
            noted = self._notes.get(parsed)
            if isinstance(message, Status) and late_will(message, noted):
                return
            self._notes[parsed] = message
            if isinstance(message, Status) and message.online:
                self.presence.note((parsed.fleet, parsed.device), retained=retained)
            # A retained message may be old, and a will is the broker speaking.
            alive = message is not None and (not isinstance(message, Status) or message.online)
            if alive and not retained:
                self._last_seen_ns[parsed.fleet, parsed.device] = self._clock()

    def seen(self, devices: Iterable[tuple[str, str]]) -> None:
        """Note that records of these (fleet, device) have just come."""
        now_ns = self._clock()
        with self._lock:
            self._last_seen_ns.update(dict.fromkeys(devices, now_ns))

    def flush(self) -> None:
        """Write the notes.

        Raises:
            StoreUnavailable: they are kept for the next time.
        """
        with self._lock:
            if not self._notes and not self._last_seen_ns:
                return
            db = self._open()
            with translated(self._file), transaction(db):
                self._fence(db)
                for topic, message in self._notes.items():
                    self._write(db, topic, message)
                db.executemany(
                    "INSERT INTO device (fleet, device, last_seen_ns) VALUES (?, ?, ?) "
                    "ON CONFLICT DO UPDATE SET last_seen_ns = excluded.last_seen_ns",
                    [(*key, time_ns) for key, time_ns in self._last_seen_ns.items()],
                )
            self._notes.clear()
            self._last_seen_ns.clear()

    def _write(
        self, db: sqlite3.Connection, topic: topics.Topic, message: Status | Inventory | None
    ) -> None:
        key = (topic.fleet, topic.device)
        if message is None and topic.channel == "status":
            db.execute("DELETE FROM device WHERE fleet = ? AND device = ?", key)
            self._last_seen_ns.pop(key, None)
            return
        db.execute("INSERT INTO device (fleet, device) VALUES (?, ?) ON CONFLICT DO NOTHING", key)
        if isinstance(message, Status):
            (known,) = db.execute(
                "SELECT status FROM device WHERE fleet = ? AND device = ?", key
            ).fetchone()
            if known is not None and late_will(message, Status.model_validate_json(known)):
                return
        body = None if message is None else codec.encode(message).decode()
        db.execute(
            f"UPDATE device SET {topic.channel} = ? WHERE fleet = ? AND device = ?",  # noqa: S608
            (body, *key),
        )

    def list(self) -> list[Device]:
        """Return all devices known, in order of fleet and name; notes are written first.

        Raises:
            StoreUnavailable: the state file cannot be read or written now.
        """
        with self._lock:
            self.flush()
            if self._db is None and not self._file.exists():
                return []
            with translated(self._file):
                query = "SELECT fleet, device, status, inventory, last_seen_ns FROM device"
                rows = self._open().execute(f"{query} ORDER BY fleet, device").fetchall()
        # Parsed outside the lock, which the notes of ingest wait for.
        devices = self._parsed.all({(row[0], row[1]): (row[2], row[3]) for row in rows})
        return [replace(devices[row[0], row[1]], last_seen_ns=row[4]) for row in rows]

    def get(self, fleet: str, device: str) -> Device | None:
        """Return one device, or None where nothing has ever come from it.

        Raises:
            StoreUnavailable: the state file cannot be read or written now.
        """
        return next((d for d in self.list() if (d.fleet, d.device) == (fleet, device)), None)

    def beat(self, now_ns: int, stats: Mapping[str, float]) -> None:
        """Leave a sign of life of this process.

        Raises:
            StoreUnavailable: the state file cannot be written now.
        """
        with self._lock, translated(self._file), transaction(self._open()) as db:
            self._fence(db)
            db.execute(
                "INSERT INTO heartbeat (id, time_ns, pid, stats) VALUES (1, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET time_ns = excluded.time_ns, pid = excluded.pid, "
                "stats = excluded.stats",
                (now_ns, os.getpid(), json.dumps(dict(stats))),
            )

    def last_beat(self) -> Beat | None:
        """Return the collector's last sign of life, or None: none has ever run here.

        Raises:
            StoreUnavailable: the state file cannot be read now.
        """
        with self._lock:
            if self._db is None and not self._file.exists():
                return None
            with translated(self._file):
                row = self._open().execute("SELECT time_ns, pid, stats FROM heartbeat").fetchone()
            return None if row is None else Beat(row[0], row[1], json.loads(row[2]))

    def collector_alive(self) -> bool:
        """Whether a collector is at work on this state file.

        Raises:
            StoreUnavailable: the state file cannot be read now.
        """
        beat = self.last_beat()
        return beat is not None and beat.fresh(self._clock())

    def rest(self) -> None:
        """Take the sign of life away: this collector stops in good order.

        Raises:
            StoreUnavailable: the state file cannot be written now.
        """
        with self._lock, translated(self._file), transaction(self._open()) as db:
            self._fence(db)
            db.execute("DELETE FROM heartbeat WHERE pid = ?", (os.getpid(),))

    def close(self) -> None:
        """Release the state file; a later call opens it again."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    def _open(self) -> sqlite3.Connection:
        if self._db is not None:
            return self._db
        db = self._db = connect(self._file, "rwc")
        try:
            with translated(self._file):
                # All of it is said again by its owners, so no fsync for each change.
                db.execute("PRAGMA synchronous = NORMAL")
                db.executescript(_SCHEMA)
        except StoreError:
            self.close()
            raise
        return db


def _device(key: tuple[str, str], texts: tuple[str | None, str | None]) -> Device:
    status, inventory = texts
    read_status = None if status is None else Status.model_validate_json(status)
    return Device(
        fleet=key[0],
        device=key[1],
        online=read_status is not None and read_status.online,
        status=read_status,
        inventory=None if inventory is None else Inventory.model_validate_json(inventory),
    )
