"""The store's role: what ingest writes through and what reports read through."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from fleetmark_collector.plain import AnyRecord
from fleetmark_protocol.records import (
    EventRecord,
    JobRecord,
    LoadRecord,
    TelemetryRecord,
    TrialRecord,
)

R = TypeVar("R", bound=AnyRecord, covariant=True)


class Stored(NamedTuple, Generic[R]):
    """A record with where it came from; (fleet, device, epoch, seq) identifies it."""

    fleet: str
    device: str
    epoch: str
    seq: int
    record: R


@dataclass(frozen=True)
class Point:
    """An observation: what the collector itself knows at a time, for dashboards to draw.

    Attributes:
        measurement: what it is about (`device`, `collector`, ...).
        tags: what it is told apart by.
        fields: what was seen; a field never changes its type.
        time_ns: nanoseconds since the epoch; a later point of the same measurement, tags and time
            takes the place of an earlier one, field by field.
    """

    measurement: str
    tags: Mapping[str, str]
    fields: Mapping[str, int | float | bool | str]
    time_ns: int


class Observer(Protocol):
    """The side that takes observations; a store without dashboards has none."""

    def observe(self, points: Sequence[Point]) -> None:
        """Write observations as far as that goes: returns soon, raises nothing, may lose them.

        An observation tells of a state that the next one tells again. It may be called from any
        thread and neither waits for records nor holds them up.
        """

    def close(self) -> None:
        """Release the connection; what is under way may be lost."""


class Writer(Protocol):
    """The side that ingest uses."""

    threads: int
    """How many threads may call `write` at the same time."""

    def write(self, items: Sequence[Stored[AnyRecord]]) -> None:
        """Write durably and idempotently; on return a power cut loses nothing of it.

        Raises:
            StoreUnavailable: nothing of it is promised; write the same again later.
            PartialWrite: names what is durable and what can never be written; what it does not
                name is to be written again later.
            ConfigError: nothing will be taken until somebody mends the settings.
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

    def trial_counts(self, campaign_id: str, jobs: Collection[str] | None = None) -> dict[str, int]:
        """Return job id -> number of distinct trials (`trial_id`) of its own device in the store.

        What another device says of the job counts for nothing.

        Args:
            campaign_id: whose.
            jobs: only these; None for all. A few of them cost little, however many trials the
                campaign has.
        """

    def trials_since(self, campaign_id: str, job_id: str, attempt: int) -> int:
        """Return the number of distinct trials of a job that this attempt or later ones made."""

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
