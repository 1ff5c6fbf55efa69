"""The embedded store as a copy sees it: all records, outbox by outbox."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fleetmark_collector.sinks.base import Stored
from fleetmark_collector.sinks.copying import BATCH_RECORDS, Part
from fleetmark_collector.sinks.sqlite_schema import COLUMNS, check_version
from fleetmark_collector.sqlitefile import connect, translated
from fleetmark_protocol.errors import StoreError, StoreUnavailable
from fleetmark_protocol.records import RECORD, Record


class SqliteParts:
    """A part is what came of one kind out of one outbox; a position in it is a seq."""

    def __init__(self, file: Path) -> None:
        """Open the store.

        Raises:
            StoreUnavailable: it is not there, or cannot be opened now.
            StoreError: it is no store, or one of a newer fleetmark.
        """
        if not file.exists():
            raise StoreUnavailable(
                f"no embedded store at {file}",
                hint="is this the collector's data_dir (--data-dir)?",
            )
        self._file = file
        self._db = connect(file, "ro")
        try:
            with translated(file):
                check_version(self._db, file)
        except StoreError:
            self._db.close()
            raise

    def parts(self) -> list[Part]:
        """Return all there is: results before samples, as devices send them."""
        found = []
        for kind in reversed(COLUMNS):
            rows = self._rows(
                "SELECT fleet, device, epoch, count(*) "  # noqa: S608
                f"FROM {kind} JOIN source ON source.id = {kind}.source "
                "GROUP BY source ORDER BY fleet, device, source"
            )
            found += [Part(kind, *row) for row in rows]
        return found

    def batches(self, part: Part, after: int) -> Iterator[tuple[list[Stored[Record]], int]]:
        """Yield the records of a part in the order of their seq; see `Parts`."""
        while True:
            rows = self._rows(
                f"SELECT seq, body FROM {part.kind} WHERE seq > ? AND source = "  # noqa: S608
                "(SELECT id FROM source WHERE fleet = ? AND device = ? AND epoch = ?) "
                "ORDER BY seq LIMIT ?",
                (after, part.fleet, part.device, part.epoch, BATCH_RECORDS),
            )
            if not rows:
                return
            after = rows[-1][0]
            yield (
                [
                    Stored(part.fleet, part.device, part.epoch, seq, self._record(part.kind, body))
                    for seq, body in rows
                ],
                after,
            )

    def count(self, part: Part) -> int:
        """Return how many records of a part of another store are in this one."""
        rows = self._rows(
            f"SELECT count(*) FROM {part.kind} JOIN source ON source.id = {part.kind}.source "  # noqa: S608
            "WHERE fleet = ? AND device = ? AND (? = '' OR epoch = ?)",
            (part.fleet, part.device, part.epoch, part.epoch),
        )
        return int(rows[0][0])

    def close(self) -> None:
        """Release the store."""
        self._db.close()

    def _rows(self, sql: str, args: tuple[object, ...] = ()) -> list[Any]:
        with translated(self._file):
            return self._db.execute(sql, args).fetchall()

    def _record(self, kind: str, body: str) -> Record:
        try:
            return RECORD.validate_json(body)
        except ValidationError as error:
            raise StoreError(
                f"{self._file}: a {kind} cannot be read by this version: "
                f"{error.errors()[0]['msg']}",
                hint="use the version that wrote it",
            ) from error
