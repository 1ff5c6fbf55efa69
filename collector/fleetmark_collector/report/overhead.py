"""What a framework costs: its cells against the engine that it drives, without it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fleetmark_collector.report.cells import Cell
from fleetmark_collector.report.compare import why_not_comparable
from fleetmark_collector.report.jobs import Config
from fleetmark_collector.report.statistics import Outcome, Ratio, outcome, ratio

INNER = "inner_backend"


@dataclass(frozen=True)
class Overhead:
    """A framework's cell against the bare engine's cell that is like it in all else.

    Attributes:
        device: the device's id.
        framework, bare: names of the two cells in this report.
        not_comparable: why there are no ratios; None where there are.
        ratios: metric -> the framework's median over the bare engine's.
    """

    workload: str
    device: str
    framework: str
    bare: str
    not_comparable: str | None
    ratios: Mapping[str, Ratio]


def shows(found: Ratio) -> str:
    """Return what a ratio of costs shows, where it does not speak for itself; else nothing."""
    shown = outcome(found)
    return str(shown) if shown in (Outcome.NO_DIFFERENCE, Outcome.TOO_FEW) else ""


def overheads(
    cells: Sequence[Cell], labels: Mapping[Config, str], *, confidence: float, seed: int
) -> Iterator[Overhead]:
    """Yield what each framework costs, where the engine that it drives ran bare as well."""
    by_place = {(cell.config, cell.workload): cell for cell in cells}
    for cell in cells:
        bare_config = _bare(cell.config)
        bare = by_place.get((bare_config, cell.workload)) if bare_config else None
        if bare is None:
            continue
        why = why_not_comparable(cell, bare)
        metrics = ("decode_tps", "latency_cold_s" if cell.cold else "latency_s")
        found = {
            name: value
            for name in metrics
            if why is None
            and (value := _ratio(cell, bare, name, confidence=confidence, seed=seed)) is not None
        }
        yield Overhead(
            workload=cell.workload,
            device=cell.config.device,
            framework=labels[cell.config],
            bare=labels[bare.config],
            not_comparable=why,
            ratios=found,
        )


def _bare(config: Config) -> Config | None:
    """Return what the inner engine's own configuration would be; None for what is no framework."""
    inner = dict(config.options).get(INNER)
    if not isinstance(inner, str):
        return None
    options = tuple(item for item in config.options if item[0] != INNER)
    return config._replace(backend=inner, options=options)


def _ratio(cell: Cell, bare: Cell, metric: str, *, confidence: float, seed: int) -> Ratio | None:
    return ratio(cell.values(metric), bare.values(metric), confidence=confidence, seed=seed)
