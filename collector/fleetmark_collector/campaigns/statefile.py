"""Opens the file that keeps campaigns and jobs, and lets one thread at a time change or read it."""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fleetmark_collector.campaigns.schedule_tables import SCHEDULE_SCHEMA
from fleetmark_collector.campaigns.tables import INDEXES, MIGRATIONS, SCHEMA, SCHEMA_VERSION
from fleetmark_collector.sqlitefile import Fence, connect, transaction, translated
from fleetmark_protocol.errors import StoreError

Connection = sqlite3.Connection
"""What a transaction hands out."""


class StateFile:
    """A SQLite file with the tables of campaigns, for any number of processes and threads.

    Attributes:
        path: shared with the registry of devices.
    """

    def __init__(self, path: Path, fence: Fence | None = None) -> None:
        """Open the file, and make it and its tables if need be.

        Args:
            path: of the file.
            fence: see `sqlitefile.Fence`; commands have none.

        Raises:
            StoreUnavailable: it cannot be opened now.
            StoreError: it is no SQLite file, or of another version of fleetmark.
        """
        self.path = path
        self._fence = fence
        self._lock = threading.Lock()
        self._db = connect(path, "rwc")
        try:
            with self.transaction() as db:
                self._prepare(db)
        except StoreError:
            self._db.close()
            raise

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Make the tables, or bring those of an older fleetmark up to date."""
        for statement in (*SCHEMA, *SCHEDULE_SCHEMA):
            db.execute(statement)
        row = db.execute("SELECT version FROM campaign_schema").fetchone()
        if row is None:
            row = (SCHEMA_VERSION,)
            db.execute("INSERT INTO campaign_schema VALUES (?)", row)
        if row[0] > SCHEMA_VERSION:
            raise StoreError(
                f"{self.path}: campaigns of schema {row[0]}; this fleetmark knows {SCHEMA_VERSION}",
                hint="use the version that wrote it, or another --data-dir",
            )
        if row[0] < SCHEMA_VERSION:
            for version in range(row[0], SCHEMA_VERSION):
                for statement in MIGRATIONS[version]:
                    db.execute(statement)
            db.execute("UPDATE campaign_schema SET version = ?", (SCHEMA_VERSION,))
        for statement in INDEXES:
            db.execute(statement)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit what the block does, or nothing of it; nobody else changes the file meanwhile.

        Raises:
            StoreUnavailable: locked, full, not permitted, I/O error.
            StoreError: the file is damaged.
        """
        with self._lock, translated(self.path), transaction(self._db) as db:
            if self._fence is not None:
                self._fence(db)
            yield db

    def confirm(self) -> None:
        """Let it pass only if this process may still change the file; changes nothing.

        Raises:
            FleetmarkError: what the fence raises.
        """
        if self._fence is not None:
            with self._lock, translated(self.path):
                self._fence(self._db)

    def rows(self, sql: str, args: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return what a query finds.

        Raises:
            StoreUnavailable: locked, not permitted, I/O error.
            StoreError: the file is damaged.
        """
        with self._lock, translated(self.path):
            return self._db.execute(sql, args).fetchall()

    def version(self) -> tuple[int, int]:
        """Return what is another one after each change, by others or by this object.

        Raises:
            StoreUnavailable: locked, not permitted, I/O error.
        """
        with self._lock, translated(self.path):
            (others,) = self._db.execute("PRAGMA data_version").fetchone()
            return int(others), self._db.total_changes

    def close(self) -> None:
        """Release the file."""
        with self._lock:
            self._db.close()


def has_campaigns(path: Path) -> bool:
    """Whether a file holds campaigns' tables; makes and changes nothing.

    Raises:
        StoreUnavailable: it cannot be read now.
        StoreError: it is no SQLite file.
    """
    if not path.exists():
        return False
    db = connect(path, "ro")
    try:
        with translated(path):
            query = "SELECT 1 FROM sqlite_schema WHERE name = 'campaign_schema'"
            return db.execute(query).fetchone() is not None
    finally:
        db.close()
