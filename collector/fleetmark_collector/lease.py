"""Which of several collectors on one state file leads: a lease with a term, and its fence.

The leader renews a row of the state file. Whoever waits takes over when the row has run out, or at
once when the leader has given it up or is dead: it holds a lock on a file of its own, which the
kernel frees with the process. Every change to the state file checks the term within its own
transaction, so a leader that slept through its lease changes nothing after it wakes.
"""

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from fleetmark_collector.bootclock import BootTime, boot_time
from fleetmark_collector.lifelock import LifeLock, is_dead
from fleetmark_collector.sqlitefile import connect, transaction, translated
from fleetmark_protocol.errors import FleetmarkError, LeadershipLost, StoreError
from fleetmark_protocol.ids import new_uuid

LEASE_S = 10.0
"""From a leader's last renewal to the moment when another may take over."""
RENEW_S = 2.0
WAIT_S = 1.0
"""How often a collector that waits looks. With `LEASE_S` and what a start takes, a leader that has
stopped is replaced within 15 s."""

_SCHEMA = """CREATE TABLE IF NOT EXISTS lease (
    id INTEGER PRIMARY KEY CHECK (id = 1), term INTEGER NOT NULL, holder TEXT NOT NULL,
    pid INTEGER NOT NULL, boot_id TEXT NOT NULL, expires_ns INTEGER NOT NULL)"""


@dataclass(frozen=True)
class Leader:
    """Who leads, as the state file has it.

    Attributes:
        term: one higher with each change of the leader.
        holder: a name that no other process ever has; empty where it was given up.
        pid: of its process.
        expires: when its lease runs out.
    """

    term: int
    holder: str
    pid: int
    expires: BootTime


class Lease:
    """This process's claim to lead; may be used by any thread."""

    def __init__(
        self,
        state_file: Path,
        clock: Callable[[], BootTime] = boot_time,
        lease_s: float = LEASE_S,
    ) -> None:
        """Nothing is claimed yet.

        Args:
            state_file: with the lease; its directory holds the lock files too.
            clock: shared by all who may claim it.
            lease_s: see `LEASE_S`.

        Raises:
            StoreUnavailable: the state file cannot be opened now.
            StoreError: it is no SQLite file.
        """
        self._file = state_file
        self._clock = clock
        self._lease_ns = int(lease_s * 1e9)
        self._lock = threading.RLock()
        self._life: LifeLock | None = None
        self._held: Leader | None = None
        self._lost = False
        self._db = connect(state_file, "rwc")
        try:
            with translated(state_file):
                self._db.execute(_SCHEMA)
        except StoreError:
            self._db.close()
            raise

    # --- to lead --------------------------------------------------------------------------------

    def claim(self) -> Leader | None:
        """Take the lease if it is free; return None when it is ours, else who leads.

        Raises:
            StoreError: the state file cannot be used now.
        """
        with self._lock, translated(self._file):
            # Looked at without a lock first: whoever waits must not hold up who works.
            there = self._read(self._db)
            if there is not None and not self._free(there):
                return there
            life = None
            try:
                with transaction(self._db) as db:
                    there = self._read(db)
                    if there is not None and not self._free(there):
                        return there
                    mine = self._next(there)
                    life = LifeLock(self._file.parent, mine.holder)
                    db.execute(
                        "INSERT OR REPLACE INTO lease VALUES (1, ?, ?, ?, ?, ?)",
                        (mine.term, mine.holder, mine.pid, mine.expires.boot_id, mine.expires.ns),
                    )
            except BaseException:
                if life is not None:
                    life.end()
                raise
            self._held, self._lost, self._life = mine, False, life
        if there is not None and there.holder:
            LifeLock.clear(self._file.parent, there.holder)
        return None

    def _next(self, there: Leader | None) -> Leader:
        now = self._clock()
        term = 1 if there is None else there.term + 1
        expires = BootTime(now.boot_id, now.ns + self._lease_ns)
        return Leader(term, new_uuid(), os.getpid(), expires)

    def renew(self) -> bool:
        """Put the end of the lease off; return whether it is still ours.

        Raises:
            StoreUnavailable: the state file cannot be written now; it may be still ours.
        """
        with self._lock, translated(self._file):
            if self._held is None or self._lost:
                return False
            with transaction(self._db) as db:
                now = self._clock()
                expires = BootTime(now.boot_id, now.ns + self._lease_ns)
                done = db.execute(
                    "UPDATE lease SET expires_ns = ? WHERE term = ? AND holder = ?",
                    (expires.ns, self._held.term, self._held.holder),
                )
            if done.rowcount == 1:
                self._held = replace(self._held, expires=expires)
            else:
                self._lost = True
            return not self._lost

    def release(self) -> None:
        """Give it up, so that another may lead at once; nothing where it is not ours.

        Raises:
            StoreError: the state file cannot be used now; it runs out by itself.
        """
        with self._lock:
            held, self._held = self._held, None
            try:
                if held is not None and not self._lost:
                    with translated(self._file), transaction(self._db) as db:
                        db.execute(
                            "UPDATE lease SET holder = '' WHERE term = ? AND holder = ?",
                            (held.term, held.holder),
                        )
            finally:
                if self._life is not None:
                    self._life.end()
                    self._life = None

    def close(self) -> None:
        """Release the file; whatever is held stays so until it runs out or the process ends."""
        with self._lock:
            self._db.close()

    # --- while leading --------------------------------------------------------------------------

    @property
    def term(self) -> int:
        """The number of this time of leading; 0 before the first."""
        return self._held.term if self._held is not None else 0

    @property
    def lost(self) -> bool:
        """Whether it is known that another has taken over."""
        return self._lost

    def holds(self) -> bool:
        """Whether this process leads; quick as long as the lease has not run out.

        Where the state file cannot be read after that, nobody knows, so the answer is no.
        """
        held = self._held
        if held is None or self._lost:
            return False
        if self._clock().ns < held.expires.ns:
            return True
        try:
            with closing(connect(self._file, "ro")) as db, translated(self._file):
                there = self._read(db)
        except FleetmarkError:
            return False
        if there is None or (there.term, there.holder) != (held.term, held.holder):
            self._lost = True
        return not self._lost

    def fence(self, db: sqlite3.Connection) -> None:
        """Refuse a change within its own transaction, when another has taken over.

        Raises:
            LeadershipLost: it has.
        """
        held, there = self._held, self._read(db)
        if held is None or there is None or (there.term, there.holder) != (held.term, held.holder):
            self._lost = True
            who = "another collector" if there is None else f"another collector (pid {there.pid})"
            raise LeadershipLost(f"{who} has taken over")

    # --- inside ---------------------------------------------------------------------------------

    def _read(self, db: sqlite3.Connection) -> Leader | None:
        row = db.execute("SELECT term, holder, pid, boot_id, expires_ns FROM lease").fetchone()
        return None if row is None else Leader(row[0], row[1], row[2], BootTime(row[3], row[4]))

    def _free(self, there: Leader) -> bool:
        now = self._clock()
        return (
            not there.holder
            or there.expires.boot_id != now.boot_id
            or now.ns >= there.expires.ns
            # Renewed by no clock of ours: a lease is never longer than this.
            or there.expires.ns > now.ns + self._lease_ns
            or is_dead(self._file.parent, there.holder)
        )
