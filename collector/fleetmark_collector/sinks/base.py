"""The store's role: what ingest writes through and what reports read through."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from fleetmark_protocol.records import (
    EventRecord,
    JobRecord,
    LoadRecord,
    Record,
    TelemetryRecord,
    TrialRecord,
)

R = TypeVar("R", bound=Record, covariant=True)


@dataclass(frozen=True)
class Stored(Generic[R]):
    """A record with where it came from; (fleet, device, epoch, seq) identifies it."""

    fleet: str
    device: str
    epoch: str
    seq: int
    record: R


class Writer(Protocol):
    """The side that ingest uses."""

    def write(self, items: Sequence[Stored[Record]]) -> None:
        """Write durably and idempotently; on return a power cut loses nothing of it.

        Raises:
            StoreUnavailable: nothing of it is promised; write the same again later.
            PartialWrite: names what is durable and what can never be written.
        """

    def close(self) -> None:
        """Release the store."""


class Reader(Protocol):
    """The side that reports, the CLI and the dispatcher use; never blocks the writer."""

    def trials(self, campaign_id: str) -> list[Stored[TrialRecord]]:
        """Return all trials of a campaign, warm-ups and failures included, in order of time."""

    def loads(self, campaign_id: str) -> list[Stored[LoadRecord]]:
        """Return all model loads of a campaign, in order of time."""

    def job_records(self, campaign_id: str) -> list[Stored[JobRecord]]:
        """Return all job state changes of a campaign, in order of (device, seq)."""

    def trial_counts(self, campaign_id: str) -> dict[str, int]:
        """Return job id -> number of distinct trials (`trial_id`) in the store."""

    def latest_telemetry(self) -> dict[tuple[str, str], TelemetryRecord]:
        """Return (fleet, device) -> newest sample."""

    def telemetry(
        self, fleet: str, device: str, start_ns: int, end_ns: int
    ) -> list[TelemetryRecord]:
        """Return the samples of a device with start_ns <= time_ns < end_ns, in order of time."""

    def events(self, since_ns: int = 0, limit: int = 1000) -> list[Stored[EventRecord]]:
        """Return the newest events at or after a time, oldest first."""

    def counts(self) -> dict[str, int]:
        """Return kind -> number of records in the store."""

    def close(self) -> None:
        """Release the store."""
