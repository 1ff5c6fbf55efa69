"""A cell: one combination of a campaign's matrix."""

from collections.abc import Sequence
from dataclasses import dataclass

from fleetmark_protocol.messages import ModelSpec
from fleetmark_protocol.values import Scalar
from fleetmark_protocol.workloads import Workload


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
    """Return how many trials a job with these workloads makes, warm-ups included.

    A warm-up asks the first prompt only, a repetition all of them.
    """
    return sum(one.warmup + one.repetitions * len(one.prompts) for one in workloads)
