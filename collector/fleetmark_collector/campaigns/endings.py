"""Moves jobs on and ends them, and says so in the log; all of the dispatcher does it here."""

from fleetmark_collector.campaigns.patience import Arrivals
from fleetmark_collector.campaigns.state import CampaignStore
from fleetmark_collector.campaigns.tables import JobRow
from fleetmark_protocol import logs
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.records import Failure


class Endings:
    """Used by one thread."""

    def __init__(self, store: CampaignStore, arrivals: Arrivals) -> None:
        """Use a store.

        Args:
            store: has the jobs.
            arrivals: forgets the jobs that end here.
        """
        self._store = store
        self._arrivals = arrivals
        self._log = logs.get("dispatch")

    def move(self, job: JobRow, state: JobState, *, attempt: int) -> None:
        """Move a job on to an attempt."""
        if self._store.set_job_state(job.job_id, state, attempt=attempt):
            self._log.info("job_moved", job_id=job.job_id, state=str(state), attempt=attempt)

    def end(
        self,
        job: JobRow,
        state: JobState,
        failure: Failure | None,
        *,
        attempt: int | None = None,
        recorded: int | None = None,
    ) -> None:
        """End a job, unless it has ended."""
        self._arrivals.forget(job.job_id)
        moved = self._store.set_job_state(
            job.job_id, state, attempt=attempt, failure=failure, trials_recorded=recorded
        )
        if moved:
            reason = None if failure is None else failure.code
            self._log.info("job_ended", job_id=job.job_id, state=str(state), reason=reason)
