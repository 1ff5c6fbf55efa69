"""Where this process answers over HTTP for as long as it lives, whether it waits or leads."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry

from fleetmark_collector.config import HttpSettings
from fleetmark_collector.lease import Leader
from fleetmark_collector.monitoring.exposition import make_standby_registry
from fleetmark_collector.monitoring.health import Condition
from fleetmark_collector.monitoring.webserver import WebServer
from fleetmark_collector.tally import Stats
from fleetmark_protocol import logs
from fleetmark_protocol.errors import ConfigError


class Endpoint:
    """Used by one thread; what it is told to answer from is asked by others."""

    def __init__(self, settings: HttpSettings) -> None:
        """Nothing is listened at yet."""
        self._settings = settings
        self._log = logs.get("http")
        self._web: WebServer | None = None
        self._told: tuple[Callable[[], Condition], CollectorRegistry] | None = None
        self._answers = False
        self._complained = False

    def open(self, *, required: bool = False) -> None:
        """Listen, unless it does so already; may be tried again and again.

        Args:
            required: an address that somebody asked for and that is taken is an error. It is not
                where the collector that led may hold it still.

        Raises:
            ConfigError: it cannot listen at the address that was asked for.
        """
        if self._web is not None or self._settings.address is None:
            return
        try:
            # Asked from nobody before `tell`.
            self._web = web = WebServer(self._settings.address, _nobody, make_standby_registry())
        except ConfigError as error:
            # Collecting is worth more than telling about it.
            if required and not self._settings.is_default:
                raise
            if not self._complained:
                self._complained = True
                self._log.warning("not_listening", reason=error.message, hint=error.hint)
            return
        self._log.info("listening", health=f"{web.url}/healthz", metrics=f"{web.url}/metrics")
        if self._told is not None:
            self.tell(*self._told)

    def tell(self, condition: Callable[[], Condition], registry: CollectorRegistry) -> None:
        """Answer from these from now on."""
        self._told = (condition, registry)
        if self._web is not None:
            self._web.tell(condition, registry)
            if not self._answers:
                self._answers = True
                self._web.start()

    def standby(self, leader: Leader) -> None:
        """Answer that this collector waits for another one."""
        condition = Condition(False, "", None, Stats(), leader_pid=leader.pid)
        self.tell(lambda: condition, make_standby_registry())
        self.open()

    def hush(self) -> None:
        """Stop listening; answers under way are cut off. It may be opened again."""
        if self._web is not None:
            self._web.stop()
        self._web, self._told, self._answers = None, None, False


def _nobody() -> Condition:
    return Condition(False, "", None, Stats())
