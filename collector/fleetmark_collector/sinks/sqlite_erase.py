"""Deletes a campaign's records from the embedded store, while a collector may be writing to it."""

from pathlib import Path

from fleetmark_collector.sinks.sqlite_schema import COLUMNS, check_version
from fleetmark_collector.sqlitefile import connect, transaction, translated


def erase_campaign(file: Path, campaign_id: str) -> dict[str, int]:
    """Delete trials, loads and job records of a campaign; return how many of each there were.

    Events and telemetry stay: they are the devices', not the campaign's.

    Raises:
        StoreUnavailable: it cannot be written now; nothing was deleted.
        StoreError: a newer fleetmark wrote it, or it is no store.
    """
    kinds = [kind for kind, columns in COLUMNS.items() if "campaign_id" in columns]
    if not file.exists():
        return dict.fromkeys(kinds, 0)
    db = connect(file, "rwc")
    try:
        with translated(file):
            if check_version(db, file) == 0:
                return dict.fromkeys(kinds, 0)
            with transaction(db):
                return {
                    kind: db.execute(
                        f"DELETE FROM {kind} WHERE campaign_id = ?",  # noqa: S608
                        (campaign_id,),
                    ).rowcount
                    for kind in kinds
                }
    finally:
        db.close()
