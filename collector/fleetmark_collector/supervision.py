"""Tells systemd that the collector is ready, that it lives, and that it ends; a collector whose
threads hang gives no sign of life, and is started again.

A thread of its own says it: the main thread may wait for a database longer than the watchdog does.
"""

import threading
import time
from collections.abc import Callable

from fleetmark_collector.tally import Stats
from fleetmark_protocol import logs
from fleetmark_protocol.notify import Notifier

CHECK_S = 5.0
"""How often something is said where no watchdog asks for it more often."""
WRITE_STUCK_S = 120.0
"""One piece of ingest's work, a single write above all, that takes so long beyond what the store
itself may take, hangs. What it was to write, the agents still have."""
MAIN_REQUESTS = 10
"""The main thread hangs after as long as one of ingest's, with so many requests to the store: it
reads for each of the campaigns under way before it is heard of again."""
START_STEP_S = 60.0
"""By how much systemd is asked to wait longer, each time that there is no READY=1 yet."""
END_S = 60.0
"""So long may an end take, besides a request that the store does not answer."""


class Supervision:
    """Used by the main thread, which says how it stands; told on by a thread of its own."""

    def __init__(
        self,
        write_timeout_s: float,
        notifier: Notifier | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Say nothing yet.

        Args:
            write_timeout_s: how long the store may take for one request.
            notifier: speaks to systemd.
            clock_s: a monotonic clock.
        """
        self._stuck_s = WRITE_STUCK_S + 4 * write_timeout_s
        self._main_stuck_s = WRITE_STUCK_S + MAIN_REQUESTS * write_timeout_s
        self._end_s = END_S + write_timeout_s
        self._notifier = notifier or Notifier()
        self._clock_s = clock_s
        self._heard_s = clock_s()
        self._working_s = 0.0
        self._status = "starts"
        self._ready = False
        self._complained = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervision", daemon=True)
        self._log = logs.get("collector")

    # --- the main thread ----------------------------------------------------------------------

    def start(self) -> None:
        """Begin to give signs of life, and to ask for time until it is ready."""
        self._thread.start()

    def close(self) -> None:
        """Give no more."""
        self._ended.set()
        self._thread.join()

    def ready(self) -> None:
        """Say that it does its work: as the one that leads, or ready to take over."""
        self._heard_s, self._ready = self._clock_s(), True
        self._notifier.say(READY=1)

    def stopping(self) -> None:
        """Say that it ends, and how long that may take: more than the unit gives it, if need be."""
        self._notifier.say(STOPPING=1, EXTEND_TIMEOUT_USEC=round(self._end_s * 1e6))

    def waits(self, leader_pid: int | None) -> None:
        """Note that it stands by."""
        who = "another collector" if leader_pid is None else f"pid {leader_pid}"
        self._note(f"standby, {who} leads")

    def works(self, *, connected: bool, stats: Stats, working_s: float) -> None:
        """Note how one stands that leads.

        Args:
            connected: whether the broker has us.
            stats: what ingest has counted.
            working_s: how long the longest piece of work under way has taken.
        """
        broker = "connected" if connected else "not connected"
        store = "" if stats.store_available else ", the store takes no records"
        self._note(f"{broker}{store}, {stats.records_written} records written", working_s)

    def _note(self, status: str, working_s: float = 0.0) -> None:
        self._status, self._working_s = status, working_s
        self._heard_s = self._clock_s()

    # --- its own thread -----------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self.sign()
            if self._ended.wait(self._notifier.interval_s or CHECK_S):
                return

    def sign(self) -> None:
        """Give a sign of life, unless one of the threads hangs."""
        silent_s = self._clock_s() - self._heard_s
        if self._working_s > self._stuck_s:
            self._complain("writer_hangs", self._working_s, "the store does not answer")
        elif silent_s > self._main_stuck_s:
            self._complain("collector_hangs", silent_s, "its main thread does not come round")
        else:
            self._complained = False
            if self._ready:
                self._notifier.say(WATCHDOG=1, STATUS=self._status)
            else:
                step_s = max(START_STEP_S, 3 * (self._notifier.interval_s or 0.0))
                self._notifier.say(EXTEND_TIMEOUT_USEC=round(step_s * 1e6), STATUS=self._status)

    def _complain(self, event: str, seconds: float, hint: str) -> None:
        if not self._complained:
            self._complained = True
            self._log.error(event, seconds=round(seconds), hint=hint)
