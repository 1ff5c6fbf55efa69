"""The agent's one SQLite file: opened, healed and locked here; outbox and job log share it."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fleetmark_protocol import logs
from fleetmark_protocol.errors import OutboxFull, StoreError, StoreUnavailable

SCHEMA_VERSION = 1

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (
    seq INTEGER PRIMARY KEY,
    priority INTEGER NOT NULL,
    kind TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS by_priority ON records (priority, seq);
CREATE TABLE IF NOT EXISTS jobs (
    job_id TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    spec TEXT NOT NULL,
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    final BLOB
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS trials (
    job_id TEXT NOT NULL,
    trial_id TEXT NOT NULL,
    PRIMARY KEY (job_id, trial_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outcomes (
    job_id TEXT NOT NULL,
    of TEXT NOT NULL,
    latency_s REAL,
    spent_s REAL NOT NULL,
    PRIMARY KEY (job_id, of)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS heard (
    job_id TEXT PRIMARY KEY,
    attempts_before INTEGER NOT NULL,
    attempts INTEGER NOT NULL
) WITHOUT ROWID;
"""


class Database:
    """A connection that every thread of the agent may use, one transaction at a time."""

    def __init__(self, file: Path) -> None:
        """Open or make the file; one that is damaged is put aside, never overwritten.

        Raises:
            StoreError: it was written by a newer agent, or cannot be made.
        """
        self.file = file
        self.healed_from: Path | None = None
        self.on_rollback: Callable[[], None] = lambda: None
        """Called after a transaction was undone, for whoever counted what is no longer there."""
        self._lock = threading.RLock()
        self._depth = 0
        self._log = logs.get("database")
        try:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._connection = self._open()
        except sqlite3.OperationalError as error:
            raise _translated(error, file) from error
        except sqlite3.DatabaseError as error:
            self.healed_from = self._put_aside()
            self._log.error("outbox_damaged", error=str(error), kept_as=str(self.healed_from))
            self._connection = self._open()
        except OSError as error:
            raise StoreUnavailable(f"{file}: {error}") from error

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.file, timeout=10, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            connection.close()
            raise StoreError(
                f"{self.file} was written by a newer agent (schema {version})",
                hint="install that version again, or start with another state_dir",
            )
        connection.executescript(SCHEMA)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        return connection

    def _put_aside(self) -> Path:
        kept = self.file.with_name(f"{self.file.name}.damaged-{int(time.time())}")
        self.file.rename(kept)
        for suffix in ("-wal", "-shm"):
            self.file.with_name(self.file.name + suffix).unlink(missing_ok=True)
        return kept

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """Yield the connection inside a transaction; an inner one joins the outer.

        Args:
            durable: on return a power cut loses nothing of it. Otherwise only a crash of the
                agent does not: telemetry once a second must not wear an SD card with fsyncs.

        Raises:
            OutboxFull: the disk is full; nothing was changed.
            StoreUnavailable: any other trouble with the file; nothing was changed.
        """
        with self._lock:
            if self._depth:
                yield self._connection
                return
            try:
                self._depth = 1
                self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                    self._connection.execute("COMMIT")
                except BaseException:
                    # SQLite may have rolled back by itself (it does when the disk is full).
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    self.on_rollback()
                    raise
            except sqlite3.Error as error:
                raise _translated(error, self.file) from error
            finally:
                self._depth = 0

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()


def _translated(error: sqlite3.Error, file: Path) -> StoreUnavailable:
    # The low byte of SQLite's code is the kind; the rest says which operation it was.
    kind = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if kind in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return OutboxFull(
            f"{file}: {error}", hint=f"make room on the disk that holds {file.parent}"
        )
    return StoreUnavailable(f"{file}: {error}")
