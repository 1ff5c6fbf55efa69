"""A simulated device's outbox and job log on disk, and the books kept of them."""

import json
import random
import time
from collections.abc import Callable
from typing import Any

from fleetmark_agent.config import AgentSettings
from fleetmark_agent.database import Database
from fleetmark_agent.joblog import JobLog
from fleetmark_agent.outbox import Outbox
from fleetmark_agent.simulation.ledger import Ledger, Tally
from fleetmark_protocol.errors import StoreUnavailable
from fleetmark_protocol.records import EventRecord, TelemetryRecord

WAL_PAGES = 64
"""Of each outbox's log, give or take a half, before SQLite moves it into the database: the usual
1000 pages would take 4 MB a device, and equal numbers would have all of them do it at once."""


class Box:
    """Used by the loop's thread alone."""

    def __init__(
        self,
        settings: AgentSettings,
        tally: Tally,
        rng: random.Random,
        clock_s: Callable[[], float],
    ) -> None:
        """Open the outbox, or go on with the one that is there.

        Args:
            settings: the device's own.
            tally: counts for all devices of the process.
            rng: spreads what costs the disk most.
            clock_s: a monotonic clock.

        Raises:
            StoreError: the file cannot be used.
        """
        self._tally = tally
        self.database = Database(settings.outbox_file)
        with self.database.transaction() as connection:
            pages = rng.randint(WAL_PAGES // 2, WAL_PAGES * 3 // 2)
            connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
        self.outbox = Outbox(self.database, settings.outbox.max_bytes)
        self.joblog = JobLog(self.database)
        self.ledger = Ledger(tally, clock_s)
        self._thinned = 0
        self.carried = self._read_carried(clock_s())
        """Records that an earlier simulation left."""

    def put(self, record: TelemetryRecord | EventRecord) -> None:
        """Put a record into the outbox; one that it does not take is counted and let go."""
        try:
            seq = self.outbox.append(record)
        except StoreUnavailable:
            seq = 0
        if not seq:
            self._tally.refused += 1
            return
        if isinstance(record, TelemetryRecord):
            self._tally.samples += 1
        else:
            self._tally.results += 1
        self.ledger.made(seq)
        if self.outbox.thinned > self._thinned:
            self._thinned = self.outbox.thinned
            self.ledger.keep_only(self._seqs())

    def recorded(self, kind: str) -> None:
        """Count a record that somebody else has put into the outbox (see `SimulatedRunner`)."""
        self._tally.results += 1
        self._tally.trials += kind == "trial"
        self._tally.jobs += kind == "end"

    def count_left(self) -> int:
        """Count the records in the file, whatever anybody has counted meanwhile.

        Raises:
            StoreUnavailable: the file cannot be read.
        """
        with self.database.transaction() as connection:
            (count,) = connection.execute("SELECT count(*) FROM records").fetchone()
        return int(count)

    def close(self) -> None:
        """Close the file."""
        self.database.close()

    def _seqs(self) -> list[int]:
        with self.database.transaction() as connection:
            return [seq for (seq,) in connection.execute("SELECT seq FROM records")]

    def _read_carried(self, now_s: float) -> int:
        """Note what is there already, with its age; return how much that is."""
        with self.database.transaction() as connection:
            rows: list[tuple[int, bytes]] = connection.execute(
                "SELECT seq, body FROM records ORDER BY seq"
            ).fetchall()
        now_ns = time.time_ns()
        for seq, body in rows:
            self.ledger.carried(seq, now_s - (now_ns - _time_ns(body)) / 1e9)
        return len(rows)


def _time_ns(body: bytes) -> int:
    record: dict[str, Any] = json.loads(body)
    return int(record["time_ns"])
