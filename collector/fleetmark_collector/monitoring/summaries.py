"""The cells of a campaign as points for dashboards: what a report would say of each, computed by
the report's own code."""

from collections.abc import Iterator, Sequence

from fleetmark_collector.campaigns.tables import CampaignRow
from fleetmark_collector.report.cells import Cell, read_cells
from fleetmark_collector.report.figures import CONFIDENCE, SEED, counts_of, figures_of
from fleetmark_collector.report.jobs import Config, PlannedJob
from fleetmark_collector.report.repeats import repeats_of
from fleetmark_collector.report.series import KINDS, place_of
from fleetmark_collector.report.worth import price_of
from fleetmark_collector.sinks.base import Point, Reader
from fleetmark_collector.sinks.influxdb.tags import options_text

Contents = tuple[object, ...]
"""Which records a cell's figures are made of."""


class Summaries:
    """Reads campaigns and makes points of their cells; used by one thread.

    What costs is the resampling. A cell whose records are those of the last time is not computed
    again: of a running campaign that is all but a few.
    """

    def __init__(self, reader: Reader) -> None:
        """Remember nothing yet.

        Args:
            reader: the store; used by this thread alone, closed by its owner.
        """
        self._reader = reader
        self._known: dict[str, dict[tuple[Config, str], tuple[Contents, Point]]] = {}

    def points(self, campaign: CampaignRow, plan: Sequence[PlannedJob]) -> Iterator[Point]:
        """Yield a point for each cell that has a trial, as it is computed; it may take a second.

        What was only planned is left out: before the first trial a cell's quantization may not be
        known, and then its point would stay beside the one that it becomes.

        All carry the time at which the campaign was begun, so that a newer one takes the place of
        an older one.

        Raises:
            StoreError: the store cannot be read.
        """
        cells, _ = read_cells(self._reader, campaign.campaign_id, plan)
        before = self._known.get(campaign.campaign_id, {})
        known: dict[tuple[Config, str], tuple[Contents, Point]] = {}
        self._known[campaign.campaign_id] = known
        for cell in (cell for cell in cells if cell.trials):
            contents = _contents(cell)
            key = (cell.config, cell.workload)
            found = before.get(key)
            if found is None or found[0] != contents:
                found = (contents, cell_point(campaign, cell))
            known[key] = found
            yield found[1]

    def forget(self, campaign_id: str) -> None:
        """Let go of what is remembered of a campaign."""
        self._known.pop(campaign_id, None)


def cell_point(campaign: CampaignRow, cell: Cell) -> Point:
    """Return what a report would say of a cell: counts, medians and their intervals."""
    config, counts = cell.config, counts_of(cell)
    fields: dict[str, int | float | bool | str] = {
        "workload_kind": cell.workload_kind,
        "trials": counts.valid + counts.suspect + counts.invalid,
        "trials_suspect": counts.suspect,
        "trials_invalid": counts.invalid,
        "confidence": CONFIDENCE,
        **_places(cell),
    }
    for name, figure in figures_of(cell).items():
        fields[name] = figure.median
        if figure.low is not None and figure.high is not None:
            fields[f"{name}_low"] = figure.low
            fields[f"{name}_high"] = figure.high
    tags = {
        "fleet": config.fleet,
        "device": config.device,
        "campaign_id": campaign.campaign_id,
        "backend": config.backend,
        "model": config.model,
        "quantization": config.quantization or "",
        "workload": cell.workload,
        "options": options_text(dict(config.options)),
    }
    shown = {name: value for name, value in tags.items() if value}
    return Point("cell", shown, fields, campaign.created_ns)


def _places(cell: Cell) -> dict[str, int | float | bool | str]:
    """Return where a cell lies among those of its kind, and how often it was measured."""
    made = repeats_of(cell, confidence=CONFIDENCE, seed=SEED)
    known: dict[str, int | float | str | None] = {
        "repetitions": made.made,
        "processes": made.processes,
        "half_width_percent": None if made.reached is None else 100 * made.reached,
        "target_percent": None if made.target is None else 100 * made.target,
        "usd_per_hour": price_of(cell),
    }
    if cell.workload_kind in KINDS:
        name = "clients" if cell.workload_kind == "concurrency" else "prompt_tokens"
        known[name] = place_of(cell)
    return {name: value for name, value in known.items() if value is not None}


def _contents(cell: Cell) -> Contents:
    return (
        tuple((one.epoch, one.seq) for one in cell.trials),
        tuple((one.epoch, one.seq) for one in cell.loads),
        # Whether a soak is complete may be its job's word.
        tuple((job.key, job.state) for job in cell.jobs),
        cell.asked,
        cell.cold_loads,
        cell.prompts,
        cell.workload_kind,
    )
