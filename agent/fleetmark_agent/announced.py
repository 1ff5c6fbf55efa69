"""Says what the device is, with its jobs as they are now: the centre goes by that list."""

import threading
from collections.abc import Callable

from fleetmark_agent.hush import Hush
from fleetmark_protocol import logs
from fleetmark_protocol.errors import StoreUnavailable
from fleetmark_protocol.messages import Assignment, Inventory, KnownJob

Jobs = Callable[[], tuple[KnownJob, ...]]


class Announced:
    """The inventory as it was said last; every method may be called from any thread."""

    def __init__(
        self,
        publish: Callable[[Inventory], object],
        jobs: Jobs | None,
        hurry: Callable[[], None],
        wall_ns: Callable[[], int],
    ) -> None:
        """Start with nothing to say.

        Args:
            publish: called with what is to be said; one call after the other.
            jobs: reads the list of jobs, and no more; None where it changes with all else only.
            hurry: called when `say_jobs` should be, soon.
            wall_ns: the Unix time in nanoseconds.
        """
        self._publish = publish
        self._jobs = jobs
        self._hurry = hurry
        self._wall_ns = wall_ns
        self._log = logs.get("link")
        # What is newer must not be followed by something older.
        self._one_by_one = threading.Lock()
        self._inventory: Inventory | None = None
        # Whether a job may have been taken that it does not list.
        self._due = False

    def noting(self, take: Callable[[Assignment], None]) -> Callable[[Assignment], None]:
        """Return what takes an assignment and sees that its job is listed soon."""

        def taken(assignment: Assignment) -> None:
            take(assignment)
            listed = self._inventory.jobs if self._inventory is not None else ()
            if all(one.job_id != assignment.job.job_id for one in listed):
                self._due = True
                self._hurry()

        return taken if self._jobs is not None else take

    def change(self, inventory: Inventory, *, connected: bool) -> None:
        """Put another inventory in the place of the last, and say it if there is a connection."""
        with self._one_by_one:
            # Probing engines takes long: its list may be older than one that was said meanwhile.
            self._inventory, self._due = inventory, self._jobs is not None
            self._read_jobs()
            if connected:
                self._publish(self._inventory)

    def say(self) -> None:
        """Say the inventory as of now."""
        with self._one_by_one:
            self._read_jobs()
            self._say()

    def say_jobs(self, hush: Hush) -> None:
        """Say it if its list of jobs has changed; inside a timed window, only after it."""
        if not self._due:
            return
        with hush.sending() as may:
            if may:
                with self._one_by_one:
                    if self._read_jobs():
                        self._say()
        if not may:
            self._hurry()

    def _say(self) -> None:
        if self._inventory is not None:
            # The centre compares an inventory with its own books once; it is to do so again now.
            self._inventory = self._inventory.model_copy(update={"time_ns": self._wall_ns()})
            self._publish(self._inventory)

    def _read_jobs(self) -> bool:
        """Return whether the list is another now; where it cannot be read, it stays due."""
        if not self._due or self._jobs is None or self._inventory is None:
            return False
        self._due = False
        try:
            jobs = self._jobs()
        except StoreUnavailable as error:
            self._due = True
            self._log.warning("jobs_unreadable", error=str(error))
            return False
        changed = jobs != self._inventory.jobs
        self._inventory = self._inventory.model_copy(update={"jobs": jobs})
        return changed
