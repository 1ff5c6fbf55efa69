"""Hands on what the centre wants of jobs, and again what the disk could not take: it is not said
twice by itself."""

import threading
from collections.abc import Callable

from fleetmark_agent.assignments import RefusedJob, read
from fleetmark_protocol import logs
from fleetmark_protocol.errors import ContractError, StoreUnavailable
from fleetmark_protocol.messages import Assignment

RETRY_S = 4.0
MAX_WAITING = 500
"""Messages kept while the disk takes none."""
MAX_WAITING_BYTES = 8_000_000
"""What they come to together: a small device has little memory, and one may be a megabyte."""


class Wishes:
    """Every method may be called from any thread; one message is handed on after the other."""

    def __init__(
        self,
        on_assignment: Callable[[Assignment], None],
        on_refused: Callable[[RefusedJob], None],
        on_withdrawn: Callable[[str], None],
        clock_s: Callable[[], float],
    ) -> None:
        """Start with none waiting.

        Args:
            on_assignment: takes an assignment; may raise StoreUnavailable.
            on_refused: takes an assignment that is not gone by; may raise it, too.
            on_withdrawn: takes the id of a job whose assignment was cleared; may raise it, too.
            clock_s: a monotonic clock.
        """
        self._on_assignment = on_assignment
        self._on_refused = on_refused
        self._on_withdrawn = on_withdrawn
        self._clock_s = clock_s
        self._log = logs.get("link")
        # Not in the middle of an older message of the same job: the newest has the last word.
        self._one_by_one = threading.RLock()
        self._waiting: dict[str, bytes] = {}
        self._due_s = 0.0

    def take(self, job_id: str, payload: bytes) -> None:
        """Hand on a message of a job, or keep it as its newest one until the disk takes it.

        Args:
            job_id: as the topic says.
            payload: an assignment; empty where it was cleared.

        Raises:
            ContractError: it cannot be understood.
            StoreUnavailable: too many wait.
        """
        said = read(payload) if payload else None
        if said is not None and said.job.job_id != job_id:
            raise ContractError("the assignment is of another job than its topic says")
        with self._one_by_one:
            try:
                if said is None:
                    self._on_withdrawn(job_id)
                elif isinstance(said, RefusedJob):
                    self._on_refused(said)
                else:
                    self._on_assignment(said)
            except StoreUnavailable as error:
                self._keep(job_id, payload, error)
            else:
                self._waiting.pop(job_id, None)

    def again(self) -> None:
        """Every few seconds, try what waits."""
        with self._one_by_one:
            now_s = self._clock_s()
            if self._waiting and now_s >= self._due_s:
                self._due_s = now_s + RETRY_S
                for job_id, payload in list(self._waiting.items()):
                    try:
                        self.take(job_id, payload)
                    except ContractError as error:
                        # It would be no other the next time, and the rest waits behind it.
                        del self._waiting[job_id]
                        self._log.error("message_refused", job_id=job_id, error=str(error))

    def _keep(self, job_id: str, payload: bytes, error: StoreUnavailable) -> None:
        others = sum(len(one) for of, one in self._waiting.items() if of != job_id)
        if others + len(payload) > MAX_WAITING_BYTES:
            # An older one must not have the last word.
            self._waiting.pop(job_id, None)
            raise error
        if job_id not in self._waiting:
            if len(self._waiting) >= MAX_WAITING:
                raise error
            self._log.error("message_waits_for_disk", job_id=job_id, error=str(error))
        if not self._waiting:
            self._due_s = self._clock_s() + RETRY_S
        self._waiting[job_id] = payload
