"""Puts together what a collector that leads tells about itself, as its settings allow."""

import time

from fleetmark_collector.config import CollectorSettings
from fleetmark_collector.devices import DeviceRegistry
from fleetmark_collector.ingest import Ingest
from fleetmark_collector.monitoring.endpoint import Endpoint
from fleetmark_collector.monitoring.exposition import Facts, make_registry
from fleetmark_collector.monitoring.health import Condition
from fleetmark_collector.monitoring.observations import Reading
from fleetmark_collector.monitoring.observing import Observing, Sources
from fleetmark_collector.mqtt import Bus
from fleetmark_collector.sinks.base import Observer
from fleetmark_collector.sinks.stores import open_reader


class Monitor:
    """Observes, and has the endpoint answer for this collector, between `start` and `stop`."""

    def __init__(
        self,
        settings: CollectorSettings,
        ingest: Ingest,
        registry: DeviceRegistry,
        bus: Bus,
        observer: Observer | None,
        endpoint: Endpoint,
    ) -> None:
        """Prepare.

        Args:
            settings: of the collector.
            ingest: what it counts is told.
            registry: the devices.
            bus: whether it is connected is told.
            observer: takes points for dashboards; None for a store that takes none.
            endpoint: answers health checks and scrapes.
        """
        self._ingest = ingest
        self._bus = bus
        sources = Sources(
            registry, settings.state_file, lambda: open_reader(settings), self._reading
        )
        self._observing = Observing(sources, observer)
        self._endpoint = endpoint
        self._observes = observer is not None or settings.http.address is not None

    def start(self) -> None:
        """Begin to answer and to look around."""
        self._endpoint.tell(self._condition, make_registry(self._facts))
        if self._observes:
            self._observing.start()

    def stop(self) -> None:
        """End both; before anything that they look at is closed."""
        self._endpoint.hush()
        self._observing.stop()

    # --- asked from other threads ---------------------------------------------------------------

    def _condition(self) -> Condition:
        return Condition(
            self._bus.connected, self._bus.trouble, self._ingest.failure, self._ingest.stats()
        )

    def _facts(self) -> Facts:
        return Facts(
            self._ingest.stats(),
            self._ingest.write_times(),
            self._bus.connected,
            self._observing.snapshot,
        )

    def _reading(self) -> Reading:
        return Reading(
            self._ingest.stats(),
            time.monotonic(),
            self._bus.connected,
            self._ingest.take_write_s_max(),
        )
