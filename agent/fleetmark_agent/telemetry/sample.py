"""One reading of all sensors, and the record that it becomes."""

from dataclasses import dataclass

from fleetmark_agent.telemetry.base import Values
from fleetmark_protocol.records import TelemetryRecord


@dataclass(frozen=True)
class Sample:
    """What was observed at one moment.

    Attributes:
        mono_ns: monotonic clock.
        time_ns: wall clock, since the Unix epoch.
        values: under the field names of a telemetry record.
    """

    mono_ns: int
    time_ns: int
    values: Values

    def to_record(
        self, boot_id: str, job_id: str | None = None, trial_id: str | None = None
    ) -> TelemetryRecord:
        """Return the record; the sensors' values were checked when they were read."""
        return TelemetryRecord.model_validate(
            {
                **self.values,
                "time_ns": self.time_ns,
                "boot_id": boot_id,
                "job_id": job_id,
                "trial_id": trial_id,
            }
        )
