"""What a report is: plain data that tables, HTML and exports show each in its way."""

from collections.abc import Mapping
from dataclasses import dataclass

from fleetmark_collector.report.cellreport import CellReport
from fleetmark_collector.report.equalwork import EqualWork
from fleetmark_collector.report.jobs import Job
from fleetmark_collector.report.overhead import Overhead
from fleetmark_collector.report.series import Series
from fleetmark_collector.report.soaks import Soak
from fleetmark_collector.report.worth import Worth
from fleetmark_protocol.values import Scalar


@dataclass(frozen=True)
class Finding:
    """Something the figures show, in words; `device` is None where it is about all."""

    workload: str
    device: str | None
    text: str


@dataclass(frozen=True)
class Trouble:
    """A typed failure of a job, a load or trials."""

    where: str
    what: str
    code: str
    message: str
    count: int


@dataclass(frozen=True)
class Provenance:
    """Which weights and which engine stand behind a configuration; what is unknown is None."""

    label: str
    backend_version: str | None
    model_sha256: str | None
    model_origin_sha256: str | None
    model_bytes: int | None
    bits_per_weight: float | None
    engine: Mapping[str, Scalar]
    """What the engine told at the load."""


@dataclass(frozen=True)
class Progress:
    """How much of the campaign is in the store; planned numbers count what is known of."""

    jobs_done: int
    jobs: int
    trials: int
    trials_planned: int

    @property
    def complete(self) -> bool:
        """Whether nothing more will come."""
        return self.jobs_done == self.jobs


@dataclass(frozen=True)
class Report:
    """A campaign's cells, compared.

    Attributes:
        common: what all configurations have in common.
        series: workloads that differ in the length of their prompt, or in their clients.
        worths: what a request costs, per workload with prices.
        baseline: label of the configuration that the others are compared with.
        notes: what holds for the whole report.
        start_ns, end_ns: first and last record, in the devices' clocks; None without records.
        machines: device -> digest of its machine, where known.
    """

    campaign_id: str
    confidence: float
    seed: int
    cells: tuple[CellReport, ...]
    jobs: tuple[Job, ...]
    common: tuple[str, ...]
    baseline: str | None
    findings: tuple[Finding, ...]
    troubles: tuple[Trouble, ...]
    provenance: tuple[Provenance, ...]
    equal_work: tuple[EqualWork, ...]
    overheads: tuple[Overhead, ...]
    series: tuple[Series, ...]
    soaks: tuple[Soak, ...]
    worths: tuple[Worth, ...]
    notes: tuple[str, ...]
    progress: Progress
    start_ns: int | None
    end_ns: int | None
    machines: Mapping[tuple[str, str], str]

    @property
    def workloads(self) -> dict[str, list[CellReport]]:
        """The cells by workload, both in order."""
        found: dict[str, list[CellReport]] = {}
        for cell in self.cells:
            found.setdefault(cell.cell.workload, []).append(cell)
        return found
