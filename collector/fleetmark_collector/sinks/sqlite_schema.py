"""The tables of the embedded store: a few indexed columns, and `body` with all of a record."""

import sqlite3
from pathlib import Path

from fleetmark_protocol.errors import StoreError

SCHEMA_VERSION = 1

COLUMNS: dict[str, tuple[str, ...]] = {
    "telemetry": ("time_ns",),
    "trial": ("time_ns", "campaign_id", "job_id", "trial_id"),
    "load": ("time_ns", "campaign_id", "job_id"),
    "job": ("time_ns", "campaign_id", "job_id", "state"),
    "event": ("time_ns", "severity", "code"),
}
"""Table (a record's `kind`) -> the fields that queries look for; `body` holds all of them."""

_INDEXES: dict[str, tuple[str, ...]] = {
    "telemetry": ("source", "time_ns"),
    "trial": ("campaign_id", "job_id", "trial_id"),
    "load": ("campaign_id",),
    "job": ("campaign_id",),
    "event": ("time_ns",),
}

INSERT = {
    kind: f"INSERT INTO {kind} (source, seq, {', '.join(columns)}, body) "  # noqa: S608
    f"VALUES (?, ?, {'?, ' * len(columns)}?) ON CONFLICT (source, seq) DO NOTHING"
    for kind, columns in COLUMNS.items()
}


def schema() -> str:
    """Return the statements that make an empty store."""
    # (fleet, device, epoch) is 60-100 characters and the same for millions of rows: a number
    # stands for it in the primary key and in every index.
    parts = [
        "CREATE TABLE source (id INTEGER PRIMARY KEY, fleet TEXT NOT NULL, device TEXT NOT NULL, "
        "epoch TEXT NOT NULL, UNIQUE (fleet, device, epoch));"
    ]
    for kind, columns in COLUMNS.items():
        typed = ", ".join(
            f"{name} {'INTEGER' if name.endswith('_ns') else 'TEXT'} NOT NULL" for name in columns
        )
        parts.append(
            f"CREATE TABLE {kind} (source INTEGER NOT NULL REFERENCES source, "
            f"seq INTEGER NOT NULL, {typed}, body TEXT NOT NULL, PRIMARY KEY (source, seq)) "
            "WITHOUT ROWID;"
        )
        parts.append(f"CREATE INDEX {kind}_by ON {kind} ({', '.join(_INDEXES[kind])});")
    parts.append(f"PRAGMA user_version = {SCHEMA_VERSION};")
    return "\n".join(parts)


def check_version(connection: sqlite3.Connection, file: Path) -> int:
    """Return the version of the tables; 0 where none have been made yet.

    Raises:
        StoreError: a newer fleetmark wrote them.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{file} was written by a newer fleetmark (schema {version}, this one knows "
            f"{SCHEMA_VERSION})",
            hint="use that version, or another --data-dir",
        )
    return int(version)
