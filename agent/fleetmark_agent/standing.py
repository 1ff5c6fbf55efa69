"""What an agent says of itself to who asks on the device: its state, its backlog, its troubles."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from fleetmark_protocol.logs import OURS


@dataclass(frozen=True)
class Standing:
    """How the agent stands; times are nanoseconds since 1970, absent is None.

    Attributes:
        started_ns: when the process began.
        settings_ns: when the settings in use were read.
        refused_settings: why the settings that were read last are not in use.
        refusals: how often settings were refused.
        job_id: the job under way.
        certificate_ends_ns: when our own certificate ends, where we have one.
        collector_version: as it told when it last answered.
        collector_refusal: why it takes no records of ours, where it does not.
        last_ack_ns: when the collector last confirmed records of ours.
        last_problem: the newest warning or error of the log.
    """

    pid: int
    version: str
    fleet: str
    device: str
    boot_id: str
    started_ns: int
    settings_ns: int
    refused_settings: str | None
    refusals: int
    broker: str
    connected: bool
    job_id: str | None
    outbox_records: int
    outbox_bytes: int
    outbox_used_percent: float
    certificate_ends_ns: int | None
    collector_version: str | None
    collector_refusal: str | None
    last_ack_ns: int | None
    last_problem: str | None
    last_problem_ns: int | None

    def as_fields(self) -> dict[str, object]:
        """Return all of it, as JSON holds it."""
        return asdict(self)


class Acks:
    """Remembers when the collector last confirmed something; a `roles.Watcher`."""

    def __init__(self, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._clock_ns = clock_ns
        self.last_ns: int | None = None
        """When that was; None before the first."""

    def sent(self, seqs: Sequence[int]) -> None:
        """Nothing is known of what was only sent."""

    def acked(self, ranges: Sequence[tuple[int, int]], freed: int) -> None:  # noqa: ARG002
        """Take note of an ack."""
        if freed:
            self.last_ns = self._clock_ns()


class LastProblem(logging.Handler):
    """Keeps the newest warning or error that this process logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._kept = threading.Lock()
        self._text: str | None = None
        self._time_ns: int | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it; called by `logging` from any thread."""
        values = getattr(record, "values", {})
        words = " ".join(f"{key}={value}" for key, value in values.items())
        text = f"{record.name.removeprefix(f'{OURS}.')}: {record.getMessage()} {words}".strip()
        with self._kept:
            self._text, self._time_ns = text, int(record.created * 1e9)

    def newest(self) -> tuple[str | None, int | None]:
        """Return it and when it was."""
        with self._kept:
            return self._text, self._time_ns
