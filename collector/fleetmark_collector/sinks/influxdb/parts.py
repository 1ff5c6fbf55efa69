"""An InfluxDB store as a copy sees it: all records, device by device."""

from collections.abc import Iterator
from typing import Any

from fleetmark_collector.config import InfluxSettings
from fleetmark_collector.sinks.base import Stored
from fleetmark_collector.sinks.copying import Part
from fleetmark_collector.sinks.influxdb.query import InfluxQL, identifier, literal
from fleetmark_collector.sinks.influxdb.reader import COUNT_TIMEOUT_S, check_readable, of_device
from fleetmark_collector.sinks.influxdb.rows import records
from fleetmark_collector.sinks.influxdb.schema import MEASUREMENTS, RECORDS
from fleetmark_protocol.records import Record


class InfluxParts:
    """A part is what came of one kind from one device; a position in it is a time."""

    def __init__(self, settings: InfluxSettings) -> None:
        """Find the server.

        Raises:
            StoreUnavailable: it does not answer.
            ConfigError: it refuses us.
            StoreError: it cannot be read from.
        """
        check_readable(settings)
        self._influxql = InfluxQL(settings, COUNT_TIMEOUT_S)

    def parts(self) -> list[Part]:
        """Return all there is: results before samples, as devices send them."""
        return [
            Part(kind, row["fleet"], row["device"], "", int(row["n"]))
            for kind in reversed(MEASUREMENTS)
            for row in self._influxql.rows(
                f"SELECT count(seq) AS n FROM {identifier(kind)} GROUP BY fleet, device"  # noqa: S608
            )
        ]

    def batches(self, part: Part, after: int) -> Iterator[tuple[list[Stored[Record]], int]]:
        """Yield the records of a part in the order of their time; see `Parts`."""
        record: Any = RECORDS[part.kind]
        for chunk in self._influxql.chunks(
            f"SELECT * FROM {identifier(part.kind)} "  # noqa: S608
            f"WHERE {of_device(part.fleet, part.device)} AND time >= {max(after, 0)}"
        ):
            items = list(records(record, [chunk]))
            if items:
                yield items, items[-1].record.time_ns

    def count(self, part: Part) -> int:
        """Return how many records of a part of another store are in this one."""
        outbox = f" AND epoch = {literal(part.epoch)}" if part.epoch else ""
        rows = self._influxql.rows(
            f"SELECT count(seq) AS n FROM {identifier(part.kind)} "  # noqa: S608
            f"WHERE {of_device(part.fleet, part.device)}{outbox}"
        )
        return sum(int(row["n"]) for row in rows)

    def close(self) -> None:
        """Release the connections."""
        self._influxql.close()
