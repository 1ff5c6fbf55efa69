"""Turns counters that only grow into rates, and says nothing where that would be a guess."""

from collections.abc import Callable, Mapping

from fleetmark_agent.telemetry.base import MIN_RATE_NS


class Rates:
    """Rates of several counters, summed over what has them (disks, network interfaces).

    What comes or goes between two readings (a disk plugged in) is left out of that one rate, so
    that it makes no spike.
    """

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns
        self._last: tuple[int, Mapping[str, tuple[int, ...]]] | None = None

    def per_second(self, counters: Mapping[str, tuple[int, ...]]) -> tuple[float, ...] | None:
        """Return one rate per position of the counters' tuples.

        None at the first reading, too soon after the last one, where a counter went backwards
        (it was reset), and where nothing was there both times.
        """
        now_ns = self._clock_ns()
        last, self._last = self._last, (now_ns, counters)
        if last is None or now_ns - last[0] < MIN_RATE_NS:
            return None
        grown = [
            tuple(now - before for now, before in zip(now_all, last[1][name], strict=True))
            for name, now_all in counters.items()
            if name in last[1]
        ]
        if not grown or any(one < 0 for each in grown for one in each):
            return None
        elapsed_s = (now_ns - last[0]) / 1e9
        return tuple(sum(column) / elapsed_s for column in zip(*grown, strict=True))
