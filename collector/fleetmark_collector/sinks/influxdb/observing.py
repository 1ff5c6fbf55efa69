"""Writes observations beside the records: best effort, in a thread and a connection of its own."""

import threading
from collections import deque
from collections.abc import Sequence

from fleetmark_collector.config import InfluxSettings
from fleetmark_collector.sinks.base import Point
from fleetmark_collector.sinks.influxdb.answers import judge
from fleetmark_collector.sinks.influxdb.lines import point_line
from fleetmark_collector.sinks.influxdb.server import detect
from fleetmark_collector.sinks.influxdb.transport import Transport, transport_to
from fleetmark_protocol import logs
from fleetmark_protocol.errors import FleetmarkError

MAX_WAITING = 20
"""Bundles of points (one `observe` each) that wait for the server; past it the oldest is lost."""

MAX_POINTS = 5000
"""Points of one request: a bundle of a large campaign's cells is sent in several."""

TIMEOUT_S = 5.0
CLOSE_WAIT_S = 2.0


class InfluxObserver:
    """The observer. Whatever happens, `observe` returns at once and the log tells once."""

    def __init__(self, settings: InfluxSettings, timeout_s: float = TIMEOUT_S) -> None:
        """Send nothing yet.

        Args:
            settings: where the server is and who writes.
            timeout_s: how long one request may take, at most what the settings say.
        """
        self._settings = settings
        self._timeout_s = min(timeout_s, settings.timeout_s)
        self._waiting: deque[list[Point]] = deque(maxlen=MAX_WAITING)
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._transport: Transport | None = None
        self._trouble = ""
        self._log = logs.get("store")

    def observe(self, points: Sequence[Point]) -> None:
        """Have points written when the server can be had, or lost when it cannot for long."""
        if not points:
            return
        with self._changed:
            if self._closed:
                return
            for start in range(0, len(points), MAX_POINTS):
                self._waiting.append(list(points[start : start + MAX_POINTS]))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="observer", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def close(self) -> None:
        """Write what waits, if that goes quickly, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(CLOSE_WAIT_S)

    def _work(self) -> None:
        while (points := self._next()) is not None:
            try:
                trouble = self._send(points)
            except FleetmarkError as error:
                trouble = error.message
            if trouble and trouble != self._trouble:
                # Once for each trouble: the same comes every few seconds.
                self._log.warning("observations_not_written", reason=trouble)
            self._trouble = trouble
        if self._transport is not None:
            self._transport.close()

    def _next(self) -> list[Point] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            return self._waiting.popleft() if self._waiting else None

    def _send(self, points: list[Point]) -> str:
        """Return what went wrong with some of them; empty where nothing did.

        Raises:
            FleetmarkError: none of them was written.
        """
        if self._transport is None:
            server = detect(self._settings)
            self._transport = transport_to(server, self._settings, self._timeout_s)
        lines, trouble = [], ""
        for point in points:
            try:
                lines.append(point_line(point))
            except ValueError as error:
                trouble = str(error)
        if lines:
            verdict = judge(self._transport.send(b"\n".join(lines)), self._settings)
            if verdict.kind != "accepted":
                trouble = verdict.reason
        return trouble
