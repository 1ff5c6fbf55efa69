"""What the agent itself costs the machine it measures."""

import time
from collections.abc import Callable

import psutil

from fleetmark_agent.telemetry.base import MIN_RATE_NS, SensorStatus, Value, Values


class AgentProcess:
    """CPU (100 = one core) and memory of this process, without the backends it started."""

    name = "agent"

    def __init__(
        self,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        cpu_ns: Callable[[], int] = time.process_time_ns,
    ) -> None:
        """Prepare.

        Args:
            clock_ns: monotonic.
            cpu_ns: CPU time of this process, its threads included.
        """
        self._clock_ns = clock_ns
        self._cpu_ns = cpu_ns
        self._process = psutil.Process()
        self._last: tuple[int, int] | None = None

    def probe(self) -> SensorStatus:
        """Available everywhere."""
        fields = ("agent_cpu_percent", "agent_rss_bytes")
        return SensorStatus(True, "process clock, psutil (/proc/self/statm)", fields)

    def read(self) -> Values:
        """CPU since the reading before; absent at the first."""
        values: dict[str, Value] = {"agent_rss_bytes": self._process.memory_info().rss}
        now = (self._clock_ns(), self._cpu_ns())
        before, self._last = self._last, now
        if before is not None and now[0] - before[0] >= MIN_RATE_NS:
            values["agent_cpu_percent"] = round(
                100 * (now[1] - before[1]) / (now[0] - before[0]), 3
            )
        return values
