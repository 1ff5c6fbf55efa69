"""What goes over the machine's network: uploads and downloads beside a trial disturb it."""

import time
from collections.abc import Callable

import psutil

from fleetmark_agent.telemetry.base import SensorStatus, Values
from fleetmark_agent.telemetry.rates import Rates

LOOPBACK = "lo"


class Network:
    """Bytes per second over all interfaces but loopback."""

    name = "network"

    def __init__(self, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        """Count on a monotonic clock."""
        self._rates = Rates(clock_ns)

    def probe(self) -> SensorStatus:
        """Not available where there is only loopback."""
        source = "psutil (/proc/net/dev)"
        if not _counters():
            return SensorStatus(False, source, reason="no interface but loopback")
        return SensorStatus(True, source, ("net_rx_bytes_per_s", "net_tx_bytes_per_s"))

    def read(self) -> Values:
        """Rates since the reading before; absent at the first."""
        rates = self._rates.per_second(_counters())
        if rates is None:
            return {}
        return {"net_rx_bytes_per_s": rates[0], "net_tx_bytes_per_s": rates[1]}


def _counters() -> dict[str, tuple[int, ...]]:
    interfaces = psutil.net_io_counters(pernic=True, nowrap=False)
    return {
        name: (one.bytes_recv, one.bytes_sent)
        for name, one in interfaces.items()
        if name != LOOPBACK
    }
