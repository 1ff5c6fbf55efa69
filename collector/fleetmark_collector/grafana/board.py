"""From rows of panels to a dashboard: places on the grid, numbers, variables, notes, links."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from grafana_foundation_sdk.models import dashboard as sdk

from fleetmark_collector.grafana.influxql import Query
from fleetmark_collector.grafana.links import all_dashboards
from fleetmark_collector.grafana.names import TAG
from fleetmark_collector.grafana.panels import Panel, Target, datasource, plain, ref_ids

COLUMNS = 24
MIN_INTERVAL = "10s"
"""No point on the screen is narrower: the collector observes every 10 s, devices sample faster."""


@dataclass(frozen=True)
class Row:
    """Panels under a heading, one after another, as many in a line as fit."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Notes:
    """Marks on all graphs of a dashboard, from a query.

    Attributes:
        text: the column that is shown.
        tags: the column shown as labels; never empty, else Grafana takes all columns for labels.
    """

    title: str
    query: Query
    text: str
    tags: str
    color: str


@dataclass(frozen=True)
class Board:
    """A dashboard.

    Attributes:
        start: beginning of the time shown at first, such as `now-6h`.
        refresh: how often it asks again; empty for never.
    """

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[sdk.VariableModel, ...]
    start: str
    refresh: str
    notes: tuple[Notes, ...] = ()
    links: tuple[sdk.DashboardLink, ...] = field(default_factory=tuple)

    @property
    def panels(self) -> Iterator[Panel]:
        """All panels, row after row."""
        for row in self.rows:
            yield from row.panels


def to_json(board: Board) -> dict[str, Any]:
    """Return the dashboard as Grafana keeps it, without what differs between servers."""
    model = sdk.Dashboard(
        uid=board.uid,
        title=board.title,
        description=board.description,
        tags=[TAG],
        timezone="browser",
        editable=True,
        graph_tooltip=sdk.DashboardCursorSync.CROSSHAIR,
        time=sdk.DashboardDashboardTime(from_val=board.start, to="now"),
        timepicker=sdk.TimePickerConfig(),
        refresh=board.refresh,
        panels=list(_placed(board.rows)),
        templating=sdk.DashboardDashboardTemplating(list_val=list(board.variables)),
        annotations=sdk.AnnotationContainer(list_val=[_annotation(one) for one in board.notes]),
        links=[*board.links, all_dashboards()],
    )
    return plain(model)


def _placed(rows: Sequence[Row]) -> Iterator[sdk.Panel | sdk.RowPanel]:
    number, y = 0, 0
    for row in rows:
        number += 1
        place = sdk.GridPos(h=1, w=COLUMNS, x=0, y=y)
        yield sdk.RowPanel(title=row.title, id_val=number, grid_pos=place, panels=[])
        y, x, tallest = y + 1, 0, 0
        for panel in row.panels:
            if x + panel.span > COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            number += 1
            place = sdk.GridPos(h=panel.height, w=panel.span, x=x, y=y)
            yield _filled(panel, number, place)
            x, tallest = x + panel.span, max(tallest, panel.height)
        y += tallest


def _filled(panel: Panel, number: int, place: sdk.GridPos) -> sdk.Panel:
    model = copy.copy(panel.model)
    model.id_val = number
    model.title = panel.title
    model.description = panel.description
    model.datasource = datasource()
    model.grid_pos = place
    model.interval = MIN_INTERVAL
    model.targets = [
        Target(query, ref)
        for query, ref in zip(panel.queries, ref_ids(len(panel.queries)), strict=True)
    ]
    return model


def _annotation(notes: Notes) -> sdk.AnnotationQuery:
    return sdk.AnnotationQuery(
        name=notes.title,
        datasource=datasource(),
        enable=True,
        hide=False,
        icon_color=notes.color,
        target=_AnnotationTarget(notes),
    )


class _AnnotationTarget(sdk.AnnotationTarget):
    """A query for notes; the SDK knows only those that Grafana itself stores."""

    def __init__(self, notes: Notes) -> None:
        super().__init__(limit=1000, match_any=False, tags=[], type_val="tags")
        self.notes = notes

    def to_json(self) -> dict[str, object]:
        """Return what Grafana's InfluxDB plugin keeps for an annotation."""
        ours: Mapping[str, object] = {
            "refId": "Anno",
            "datasource": datasource(),
            "fromAnnotations": True,
            "rawQuery": True,
            "textEditor": True,
            "query": str(self.notes.query),
            "textColumn": self.notes.text,
            "tagsColumn": self.notes.tags,
        }
        return {**super().to_json(), **ours}
