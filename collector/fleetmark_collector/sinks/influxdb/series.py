"""Bounds how many new series, and weeks of time, one device may begin: a database's weak spots."""

import time
from collections.abc import Callable

from fleetmark_collector.sinks.influxdb.schema import MAX_NEW_SERIES, SERIES_WINDOW_S

SERIES = "combinations of campaign, backend, model, quantization, workload and options"
WEEKS = "weeks of time"


class SeriesBudget:
    """Counts the series of each device within a window of time.

    Windows rather than all time, so that a collector that runs for years does not refuse an honest
    device one day; and what is remembered of a device stays bounded. Any thread may use it.
    """

    def __init__(
        self,
        limit: int | None = MAX_NEW_SERIES,
        window_s: float = SERIES_WINDOW_S,
        clock: Callable[[], float] = time.monotonic,
        what: str = SERIES,
    ) -> None:
        """Remember nothing yet.

        Args:
            limit: series that a device may begin in a window; None where the source is trusted.
            window_s: how long a window is.
            clock: seconds, monotonic.
            what: is counted; for the message.
        """
        self._limit = limit
        self._what = what
        self._window_s = window_s
        self._clock = clock
        # (fleet, device) -> when its window began, and the series it used in it.
        self._windows: dict[tuple[str, str], tuple[float, set[bytes]]] = {}

    @property
    def limited(self) -> bool:
        """Whether there is a bound."""
        return self._limit is not None

    def use(self, fleet: str, device: str, series: bytes) -> None:
        """Count a series of a device.

        Raises:
            ValueError: it is a new one, and the device has begun too many.
        """
        if self._limit is None:
            return
        now_s = self._clock()
        since_s, used = self._windows.get((fleet, device), (now_s, set()))
        if now_s - since_s >= self._window_s:
            since_s, used = now_s, set()
        self._windows[fleet, device] = (since_s, used)
        if series not in used and len(used) >= self._limit:
            raise ValueError(
                f"a series too many: {fleet}/{device} has begun {self._limit} {self._what} within "
                f"{self._window_s / 3600:g} h"
            )
        used.add(series)
