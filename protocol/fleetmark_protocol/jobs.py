"""The state machine of a job: which states there are and which moves are lawful."""

from enum import StrEnum

from fleetmark_protocol.errors import ContractError


class JobState(StrEnum):
    """States of a job (terms of AWS IoT Jobs)."""

    QUEUED = "QUEUED"
    IN_PROGRESS = "IN_PROGRESS"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    CANCELED = "CANCELED"
    REJECTED = "REJECTED"

    @property
    def terminal(self) -> bool:
        """Whether the state never changes again."""
        return not MOVES[self]


MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset(
        {
            JobState.IN_PROGRESS,
            JobState.REJECTED,
            JobState.CANCELED,
            JobState.TIMED_OUT,
        }
    ),
    JobState.IN_PROGRESS: frozenset(
        {
            JobState.IN_PROGRESS,  # the next attempt, after an interruption
            JobState.SUCCEEDED,
            JobState.FAILED,
            JobState.TIMED_OUT,
            JobState.CANCELED,
        }
    ),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.TIMED_OUT: frozenset(),
    JobState.CANCELED: frozenset(),
    JobState.REJECTED: frozenset(),
}


def may_move(old: JobState, new: JobState) -> bool:
    """Whether a job may go from `old` to `new`."""
    return new in MOVES[old]


def move(old: JobState, new: JobState) -> JobState:
    """Return `new`.

    Raises:
        ContractError: the move is not lawful.
    """
    if not may_move(old, new):
        raise ContractError(f"a job cannot go from {old} to {new}")
    return new
