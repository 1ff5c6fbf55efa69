"""SQLite files of the collector: how they are opened, and what their errors mean to a caller."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from fleetmark_protocol.errors import StoreError, StoreUnavailable

Fence = Callable[[sqlite3.Connection], None]
"""Called within each transaction before it changes anything; raises where nothing may be changed
any more, because another collector has taken over."""

BUSY_TIMEOUT_S = 5.0
"""Longest wait for another process's transaction; ours are short, so this is a stuck one."""

_TRY_AGAIN = {
    sqlite3.SQLITE_BUSY: "another program holds a transaction open on it",
    sqlite3.SQLITE_LOCKED: "another program holds a transaction open on it",
    sqlite3.SQLITE_FULL: "make room on the disk that holds it",
    sqlite3.SQLITE_IOERR: "is its disk full or failing?",
    sqlite3.SQLITE_CANTOPEN: "may this user write to its directory?",
    sqlite3.SQLITE_READONLY: "may this user write to it and to its directory?",
    sqlite3.SQLITE_PERM: "may this user write to it and to its directory?",
    sqlite3.SQLITE_AUTH: "may this user write to it and to its directory?",
    sqlite3.SQLITE_NOMEM: "the machine is out of memory",
}


def connect(file: Path, mode: Literal["ro", "rwc"]) -> sqlite3.Connection:
    """Open a file for explicit transactions, in write-ahead mode where it may be written.

    Args:
        file: its directory is made if need be.
        mode: `ro` never makes or changes it; `rwc` makes it when it is missing.

    Raises:
        StoreUnavailable: it cannot be opened now.
        StoreError: it is no SQLite file.
    """
    if mode == "rwc":
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnavailable(f"{file.parent}: {error.strerror or error}") from error
    with translated(file):
        connection = sqlite3.connect(
            f"{file.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            # Opened by the thread that wires things up, used by the one that works.
            check_same_thread=False,
        )
        try:
            if mode == "rwc":
                connection.execute("PRAGMA journal_mode = WAL")
            else:
                connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except sqlite3.Error:
            connection.close()
            raise
        return connection


@contextmanager
def translated(file: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours, which say whether to try again.

    Raises:
        StoreUnavailable: locked, full, not permitted, I/O error.
        StoreError: damaged, no SQLite file, or another program's tables.
    """
    try:
        yield
    except sqlite3.Error as error:
        # The low byte of SQLite's code is the kind; the rest says which operation it was.
        kind = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if kind in _TRY_AGAIN:
            raise StoreUnavailable(f"{file}: {error}", hint=_TRY_AGAIN[kind]) from error
        raise StoreError(
            f"{file}: {error}",
            hint="if the file is damaged, move it away and keep it: `sqlite3 FILE .recover` may "
            "read it",
        ) from error


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Commit what the block does, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        # SQLite may have rolled back by itself (it does when the disk is full).
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
