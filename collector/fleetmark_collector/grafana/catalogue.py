"""All dashboards, and each panel's title, query and unit for whoever draws them elsewhere."""

from dataclasses import dataclass

from fleetmark_collector.grafana.board import Board
from fleetmark_collector.grafana.dashboards import campaign, collector, compare, device, fleet
from fleetmark_collector.grafana.panels import ref_ids

BOARDS: tuple[Board, ...] = (
    fleet.BOARD,
    device.BOARD,
    compare.BOARD,
    campaign.BOARD,
    collector.BOARD,
)
"""In the order that people need them."""


@dataclass(frozen=True)
class Listed:
    """One query of one panel.

    Attributes:
        ref_id: tells the queries of a panel apart: A, B...
        kind: Grafana's name of the sort of panel (timeseries, table, stat, bargauge...).
        query: InfluxQL as the dashboard has it; `interpolate.fill` makes it ready to be run.
        table: whether the answer is read as a table, else as series.
        alias: name of each series, with `[[tag_...]]` and `[[col]]` for its parts.
        unit: Grafana's id of a unit; empty where columns differ.
    """

    dashboard: str
    panel: str
    ref_id: str
    kind: str
    description: str
    query: str
    table: bool
    alias: str
    unit: str


def panels() -> list[Listed]:
    """Return every query of every panel, in the order of the dashboards."""
    return [
        Listed(
            dashboard=board.title,
            panel=panel.title,
            ref_id=ref_id,
            kind=panel.model.type_val,
            description=panel.description,
            query=str(query),
            table=query.format == "table",
            alias=query.alias,
            unit=panel.unit,
        )
        for board in BOARDS
        for panel in board.panels
        for ref_id, query in zip(ref_ids(len(panel.queries)), panel.queries, strict=True)
    ]
