"""Says in good time that this device's own certificate ends: after that the broker lets it in no
more."""

import time
from collections.abc import Callable

from fleetmark_protocol import logs
from fleetmark_protocol.brokertrouble import date, own_certificate
from fleetmark_protocol.certificate import DAY_NS
from fleetmark_protocol.settings import BrokerSettings


class CertificateWatch:
    """Used by the main thread."""

    def __init__(self, broker: BrokerSettings, clock_ns: Callable[[], int] = time.time_ns) -> None:
        """Read the certificate, where there is one.

        Args:
            broker: names it.
            clock_ns: this device's clock.
        """
        self._own = own_certificate(broker)
        self._clock_ns = clock_ns
        self._told: tuple[str, int] | None = None
        self._log = logs.get("service")

    @property
    def ends_ns(self) -> int | None:
        """When it ends; None where there is none."""
        return None if self._own is None else self._own.ends_ns

    def look(self) -> None:
        """Log what is wrong with it, at once and then once a day."""
        own, now_ns = self._own, self._clock_ns()
        if own is None:
            return
        phase = own.phase(now_ns)
        if phase == "ok" or (phase, now_ns // DAY_NS) == self._told:
            return
        self._told = (phase, now_ns // DAY_NS)
        if phase == "not yet valid":
            self._log.error(
                "certificate_not_yet_valid",
                begins=date(own.begins_ns),
                hint=f"is this device's clock right? It says {date(now_ns)}",
            )
            return
        say = self._log.error if phase == "expired" else self._log.warning
        say(
            "certificate_ended" if phase == "expired" else "certificate_ends_soon",
            ends=date(own.ends_ns),
            hint="make a new one in the centre (`fleetmark enroll`), copy it here, and "
            "`fleetmark-agent reload`",
        )
