"""A cell: one combination of a campaign's matrix."""

from collections.abc import Sequence
from dataclasses import dataclass

from fleetmark_protocol.joblimits import trials_of
from fleetmark_protocol.messages import ModelSpec
from fleetmark_protocol.values import Scalar
from fleetmark_protocol.workloads import Workload

INTERVAL_TAKES = 6
"""Repetitions: from fewer than these nobody can tell a 95 % interval of a median."""


@dataclass(frozen=True)
class Cell:
    """One combination of the matrix; a job is a cell on a device."""

    backend: str
    model: ModelSpec
    labels: dict[str, Scalar]
    workloads: tuple[Workload, ...] = ()

    @property
    def trials(self) -> int:
        """Trials that a job makes of it, warm-ups included."""
        return count_trials(self.workloads)

    def __str__(self) -> str:
        options = " ".join(f"{name}={value}" for name, value in self.labels.items())
        parts = (self.backend, self.model.name, self.model.quantization, options)
        return " ".join(part for part in parts if part)


def count_trials(workloads: Sequence[Workload]) -> int:
    """Return how many trials a job with these workloads makes at most, warm-ups included.

    What a soak makes nobody knows before: its repetitions count as one trial each.
    """
    return sum(trials_of(one, one.repetitions) for one in workloads)


def fewest_trials(workloads: Sequence[Workload]) -> int:
    """Return how many trials such a job makes at least, where it repeats until it knows enough."""
    return sum(trials_of(one, fewest_repetitions(one)) for one in workloads)


def fewest_repetitions(workload: Workload) -> int:
    """Return how many repetitions a workload makes at least.

    An adaptive one that no budget ends makes as many as its interval takes.
    """
    adaptive = workload.adaptive
    if adaptive is None:
        return workload.repetitions
    needed = adaptive.min if adaptive.budget_s is not None else max(adaptive.min, INTERVAL_TAKES)
    return min(needed, workload.repetitions)
