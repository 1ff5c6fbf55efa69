"""The writer of the time-series store: acknowledged only what the server said yes to."""

import threading
import time
from collections.abc import Sequence

from fleetmark_collector.config import InfluxSettings
from fleetmark_collector.plain import AnyRecord
from fleetmark_collector.sinks.base import Stored
from fleetmark_collector.sinks.influxdb.answers import Verdict, judge
from fleetmark_collector.sinks.influxdb.halving import Halving, Outcome
from fleetmark_collector.sinks.influxdb.lines import Lines
from fleetmark_collector.sinks.influxdb.server import Server, detect
from fleetmark_collector.sinks.influxdb.transport import Transport, transport_to
from fleetmark_protocol import logs
from fleetmark_protocol.errors import PartialWrite, StoreUnavailable

THREADS = 3
"""Writes at once: two that the server works at and one that is being made ready meanwhile."""

PROBE = b"fleetmark_probe value=1i %d"
"""A line beyond reproach, written where a server took nothing else: were even this one refused,
the records would not be to blame, and none of them goes to the dead letters."""


class InfluxSink:
    """The writer; any number of threads may use it.

    The server is looked for at the first write at the latest, so that a collector may start
    before it.
    """

    threads = THREADS

    def __init__(self, settings: InfluxSettings, lines: Lines | None = None) -> None:
        """Prepare; nothing is sent.

        Args:
            settings: where the server is and who writes.
            lines: makes the lines; None for the usual.
        """
        self._settings = settings
        self._lines = lines or Lines()
        self._lock = threading.Lock()
        self._connected: tuple[Server, Transport] | None = None
        self._halving = Halving(self._send)
        self._log = logs.get("store")

    def connect(self) -> Server:
        """Find the server, say which it is, and see whether it would let us write.

        Raises:
            StoreUnavailable: it does not answer now.
            ConfigError: it refuses us, or is no such server, or knows no such database.
        """
        with self._lock:
            server, _ = self._connected or self._connect()
        return server

    def _connect(self) -> tuple[Server, Transport]:
        server = detect(self._settings)
        transport = transport_to(server, self._settings)
        try:
            # Nothing to write: an answer that there are no points is as good as a yes.
            judge(transport.send(b""), self._settings)
        except BaseException:
            transport.close()
            raise
        self._log.info(
            "store_found",
            server=str(server),
            url=self._settings.url,
            bucket=self._settings.bucket,
            path="/write" if server.kind == "influxdb1" else "/api/v2/write",
        )
        self._connected = (server, transport)
        return self._connected

    def write(self, items: Sequence[Stored[AnyRecord]]) -> None:
        """Write durably and idempotently; on return the server has said yes to all of it.

        Raises:
            StoreUnavailable: nothing of it is promised; write the same again later.
            PartialWrite: names what is durable and what can never be written; the others were
                not taken now.
            ConfigError: the server takes nothing from us as things are.
        """
        if not items:
            return
        lines, positions, refused = self._made(items)
        outcome = self._halving.write(lines)
        if outcome.rejected and not outcome.accepted:
            self._check_innocence(outcome)
        if not (refused or outcome.rejected or outcome.deferred):
            return
        rejected = {positions[at]: reason for at, reason in outcome.rejected.items()}
        raise PartialWrite(
            _summary(len(items), len(refused) + len(rejected), outcome),
            accepted=[positions[at] for at in outcome.accepted],
            rejected={**refused, **rejected},
        )

    def _made(
        self, items: Sequence[Stored[AnyRecord]]
    ) -> tuple[list[bytes], Sequence[int], dict[int, str]]:
        """Return lines, the position of each, and what cannot be made a line."""
        try:
            return self._lines.lines(items), range(len(items)), {}
        except ValueError:
            pass
        line = self._lines.line
        lines: list[bytes] = []
        positions: list[int] = []
        refused: dict[int, str] = {}
        for at, item in enumerate(items):
            try:
                lines.append(line(item))
                positions.append(at)
            except ValueError as error:
                refused[at] = str(error)
        return lines, positions, refused

    def _check_innocence(self, outcome: Outcome) -> None:
        """See whether the server would take any line at all.

        Raises:
            StoreUnavailable: it would not.
        """
        verdict = self._send(PROBE % time.time_ns())
        if verdict.kind != "accepted":
            reason = next(iter(outcome.rejected.values()))
            raise StoreUnavailable(
                f"{self._settings.url} takes nothing at all: {reason}",
                hint="nothing is lost; see the server's log and what is between it and here",
            )

    def _send(self, lines: bytes) -> Verdict:
        connected = self._connected
        if connected is None:
            with self._lock:  # for one thread to look and say what it found, not each
                connected = self._connected or self._connect()
        return judge(connected[1].send(lines), self._settings)

    def close(self) -> None:
        """Release the connections."""
        with self._lock:
            if self._connected is not None:
                self._connected[1].close()
                self._connected = None


def _summary(items: int, rejected: int, outcome: Outcome) -> str:
    parts = [f"{rejected} of {items} records cannot be written"] if rejected else []
    if outcome.deferred:
        reason = next(iter(outcome.deferred.values()))
        parts.append(f"{len(outcome.deferred)} of {items} records not taken now: {reason}")
    return "; ".join(parts)
