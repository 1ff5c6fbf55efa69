"""Puts together what the collector tells about itself, as its settings and its store allow."""

import time

from fleetmark_collector.config import CollectorSettings, HttpSettings
from fleetmark_collector.devices import DeviceRegistry
from fleetmark_collector.ingest import Ingest
from fleetmark_collector.monitoring.exposition import Facts, make_registry
from fleetmark_collector.monitoring.health import Condition
from fleetmark_collector.monitoring.observations import Reading
from fleetmark_collector.monitoring.observing import Observing, Sources
from fleetmark_collector.monitoring.webserver import WebServer
from fleetmark_collector.mqtt import Bus
from fleetmark_collector.sinks.base import Observer
from fleetmark_collector.sinks.stores import open_reader
from fleetmark_protocol import logs
from fleetmark_protocol.errors import ConfigError


class Monitor:
    """Listens from the moment it is made, so that a wrong address is told before work begins."""

    def __init__(
        self,
        settings: CollectorSettings,
        ingest: Ingest,
        registry: DeviceRegistry,
        bus: Bus,
        observer: Observer | None,
    ) -> None:
        """Prepare.

        Args:
            settings: of the collector.
            ingest: what it counts is told.
            registry: the devices.
            bus: whether it is connected is told.
            observer: takes points for dashboards; None for a store that takes none.

        Raises:
            ConfigError: it cannot listen at the address that was asked for.
        """
        self._ingest = ingest
        self._bus = bus
        sources = Sources(
            registry, settings.state_file, lambda: open_reader(settings), self._reading
        )
        self._observing = Observing(sources, observer)
        self._web = self._listen(settings.http)
        self._observes = observer is not None or self._web is not None

    def start(self) -> None:
        """Begin to answer and to look around."""
        if self._web is not None:
            self._web.start()
        if self._observes:
            self._observing.start()

    def stop(self) -> None:
        """End both; before anything that they look at is closed."""
        if self._web is not None:
            self._web.stop()
        self._observing.stop()

    def _listen(self, settings: HttpSettings) -> WebServer | None:
        if settings.address is None:
            return None
        log = logs.get("http")
        try:
            web = WebServer(settings.address, self._condition, make_registry(self._facts))
        except ConfigError as error:
            # Nobody asked for this address: collecting is worth more than telling about it.
            if not settings.is_default:
                raise
            log.warning("not_listening", reason=error.message, hint=error.hint)
            return None
        log.info("listening", health=f"{web.url}/healthz", metrics=f"{web.url}/metrics")
        return web

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
