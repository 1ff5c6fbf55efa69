"""Guards one sensor: times it, counts its failures, and keeps them from the rest of a sample."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from fleetmark_agent.telemetry.base import Sensor, SensorStatus, Values
from fleetmark_protocol import logs
from fleetmark_protocol.messages import SensorInfo
from fleetmark_protocol.records import TelemetryRecord

_ANY_BOOT = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True)
class SensorHealth:
    """How a sensor has done so far.

    Attributes:
        reads: how often it was read.
        failures: how often that failed, or gave what no record may hold.
        read_s_mean: what a reading takes; None before the first.
        read_s_max: the slowest one.
    """

    name: str
    reads: int
    failures: int
    read_s_mean: float | None
    read_s_max: float | None


class Watched:
    """A sensor that never raises."""

    def __init__(self, sensor: Sensor, clock_ns: Callable[[], int] = time.perf_counter_ns) -> None:
        """Probe the sensor; one that fails to is not available."""
        self._sensor = sensor
        self._clock_ns = clock_ns
        self._log = logs.get("telemetry")
        self._reads = self._failures = self._spent_ns = self._slowest_ns = 0
        self._failing = False
        self.status = self._probe()

    def read(self) -> Values:
        """Return what the sensor observes; nothing where it is not available or fails."""
        if not self.status.available:
            return {}
        start_ns = self._clock_ns()
        try:
            values = self._sensor.read()
            _check(values)
        except Exception as error:  # noqa: BLE001 - whatever a sensor raises costs only its fields
            values = {}
            self._failures += 1
            self._say_failed(error)
        else:
            self._say_works()
        spent_ns = self._clock_ns() - start_ns
        self._reads += 1
        self._spent_ns += spent_ns
        self._slowest_ns = max(self._slowest_ns, spent_ns)
        return values

    def info(self) -> SensorInfo:
        """Return what the inventory says of it; why it is not available stands in `source`."""
        source = self.status.source
        if self.status.reason is not None:
            source = f"{source}: {self.status.reason}"
        return SensorInfo(
            name=self._sensor.name,
            available=self.status.available,
            source=source[:256],
            fields=self.status.fields,
        )

    def health(self) -> SensorHealth:
        """Return how it has done so far."""
        return SensorHealth(
            self._sensor.name,
            self._reads,
            self._failures,
            self._spent_ns / self._reads / 1e9 if self._reads else None,
            self._slowest_ns / 1e9 if self._reads else None,
        )

    def _probe(self) -> SensorStatus:
        try:
            return self._sensor.probe()
        except Exception as error:  # noqa: BLE001 - see `read`
            self._log.warning("sensor_probe_failed", sensor=self._sensor.name, error=repr(error))
            return SensorStatus(False, self._sensor.name, reason=f"probe failed: {error!r}")

    def _say_failed(self, error: Exception) -> None:
        """Log the change of state, not every sample of a sensor that stays broken."""
        if not self._failing:
            self._log.warning("sensor_failed", sensor=self._sensor.name, error=repr(error))
        self._failing = True

    def _say_works(self) -> None:
        if self._failing:
            self._log.info("sensor_works_again", sensor=self._sensor.name)
        self._failing = False


def _check(values: Values) -> None:
    """Refuse what no record may hold here, where one sensor's fields are lost and not a sample's.

    Raises:
        ValueError: a number out of range, not finite, or of the wrong kind.
    """
    if values:
        TelemetryRecord.model_validate({"time_ns": 0, "boot_id": _ANY_BOOT, **values})
