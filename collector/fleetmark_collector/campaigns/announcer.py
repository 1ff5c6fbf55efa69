"""Says on the broker what is desired of each job, once a connection, and takes it off again."""

import time
from collections.abc import Callable
from typing import Literal

from fleetmark_collector.campaigns.clearing import mark_cleared, to_clear
from fleetmark_collector.campaigns.roles import DeviceKey, KnownDevice, Publish
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.campaigns.tables import JobRow
from fleetmark_protocol import codec, logs, topics
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.messages import Assignment, KnownJob
from fleetmark_protocol.version import __version__

Desired = Literal["run", "cancel"]


class Announcer:
    """Used by one thread."""

    def __init__(
        self,
        store: CampaignStore,
        publish: Publish,
        centre: str | None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Nothing is said yet.

        Args:
            store: has the jobs.
            publish: hands a message to the broker.
            centre: name of this centre, by which it knows its own jobs even where it has lost
                their rows; None takes none for its own.
            clock: nanoseconds since the epoch.
        """
        self._store = store
        self._publish = publish
        self._centre = centre
        self._clock = clock
        self._log = logs.get("dispatch")
        # What this connection has told the broker of each job: what is desired, and how many
        # attempts were known; None stands for "nothing". Empty after a reconnect.
        self._said: dict[str, tuple[Desired, int] | None] = {}
        # When the inventory was made that was last held against our jobs, of devices online.
        self._compared: dict[DeviceKey, int] = {}

    def forget(self) -> None:
        """Say everything again: this is another connection, perhaps to a broker that forgot."""
        self._said.clear()

    def desire(self, job: JobRow, desired: Desired) -> None:
        """Publish what is desired of a job, unless this connection has been told."""
        news = (desired, job.attempt)
        if job.job_id in self._said and self._said[job.job_id] == news:
            return
        spec = self._store.spec(job.job_id).model_copy(update={"centre": self._centre})
        said = Assignment(
            desired=desired, job=spec, attempts_begun=job.attempt, collector_version=__version__
        )
        self._send(job.fleet, job.device, job.job_id, codec.encode(said))
        self._said[job.job_id] = news

    def take_back(self, job: JobRow) -> None:
        """Take an assignment off the broker whose job goes on to wait here."""
        if job.job_id in self._said and self._said[job.job_id] is None:
            return
        self._send(job.fleet, job.device, job.job_id, b"")
        self._said[job.job_id] = None

    def clear(self, since_ns: int | None) -> None:
        """Take assignments of jobs that have ended off the broker; again those since a time."""
        jobs = to_clear(self._store.file, since_ns)
        for job in jobs:
            self._send(job.fleet, job.device, job.job_id, b"")
            self._said.pop(job.job_id, None)
        mark_cleared(self._store.file, jobs, self._clock())

    def withdraw(self, key: DeviceKey, device: KnownDevice) -> None:
        """Stop jobs that a device still has open although nobody wants them any more.

        It was away when their assignments were taken off, so nobody told it.
        """
        inventory = device.inventory
        if not device.online or inventory is None:
            self._compared.pop(key, None)
            return
        if self._compared.get(key) == inventory.time_ns:
            return
        for known in inventory.jobs:
            if not known.state.terminal and self._unwanted(key, known):
                self._log.info("job_withdrawn", job_id=known.job_id, device=device.device)
                self._send(*key, known.job_id, b"")
        self._compared[key] = inventory.time_ns

    def _unwanted(self, key: DeviceKey, known: KnownJob) -> bool:
        job = self._store.job(known.job_id)
        if job is None:
            # Of a campaign that was deleted, or of a state file that was lost or restored from an
            # older backup. What another centre on this broker has given, is not ours to take.
            return self._centre is not None and known.centre == self._centre
        if (job.fleet, job.device) != key:
            return False
        return job.state.terminal or (job.state is JobState.QUEUED and job.assigned_ns is None)

    def _send(self, fleet: str, device: str, job_id: str, payload: bytes) -> None:
        # Whoever was stopped for a while may have been replaced, and knows nothing new to say.
        self._store.file.confirm()
        self._publish(topics.topic(fleet, device, "jobs", job_id), payload, True)
