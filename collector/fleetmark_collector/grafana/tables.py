"""Panels that are tables: which columns are shown, under which name, in which unit and colour."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from grafana_foundation_sdk.models import common, table
from grafana_foundation_sdk.models import dashboard as sdk

from fleetmark_collector.grafana.influxql import Query
from fleetmark_collector.grafana.links import Link
from fleetmark_collector.grafana.panels import (
    Panel,
    Steps,
    by_threshold,
    override,
    plain,
    thresholds,
    words,
)
from fleetmark_collector.grafana.units import metric, unit_of

TIME_COLUMNS = ("Time", "time")
"""As Grafana's two parsers of an InfluxQL answer call it."""


@dataclass(frozen=True)
class Shown:
    """How one column of a table is shown.

    Attributes:
        name: of the column in the answer: a tag or a field.
        title: what people read; empty for the name itself.
        steps: colour the cell's background; None leaves it plain.
        meaning: value -> (word, colour).
        gauge: whether the cell shows a bar, too.
    """

    name: str
    title: str = ""
    unit: str = ""
    decimals: int | None = None
    steps: Steps | None = None
    meaning: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    gauge: bool = False
    width: int = 0
    links: Sequence[Link] = ()


def measured(name: str, *, steps: Steps | None = None, gauge: bool = False) -> Shown:
    """Return how the column of a metric is shown: title and unit are those of the protocol."""
    found = metric(name)
    return Shown(name, found.title, unit_of(found), steps=steps, gauge=gauge)


def rows(
    title: str,
    description: str,
    queries: Sequence[Query],
    columns: Sequence[Shown],
    *,
    with_time: bool = False,
    transformations: Sequence[sdk.DataTransformerConfig] = (),
    sort_by: str = "",
    descending: bool = False,
    span: int = 24,
    height: int = 10,
) -> Panel:
    """Return a table: one row for each combination of tags, or for each point.

    Args:
        title: of the panel.
        description: of the panel.
        queries: each one a table; several are merged where their texts agree.
        columns: in the order they are shown; others are shown after them.
        with_time: whether the time is a column; else it is that of a window, and means nothing.
        transformations: more of them, done at the end.
        sort_by: title of a column.
        descending: from high to low.
        span: columns of 24.
        height: in rows of the grid.
    """
    order = {one.name: place for place, one in enumerate(columns, 1 if with_time else 0)}
    steps: list[sdk.DataTransformerConfig] = []
    if not with_time:
        steps.append(_transform("filterFieldsByName", {"exclude": {"names": list(TIME_COLUMNS)}}))
    if len(queries) > 1:
        steps.append(_transform("merge", {}))
    first = dict.fromkeys(TIME_COLUMNS, 0) if with_time else {}
    steps.append(
        _transform(
            "organize",
            {"indexByName": {**first, **order}, "excludeByName": {}, "renameByName": {}},
        )
    )
    steps.extend(transformations)
    model = sdk.Panel(
        type_val="table",
        options=_options(sort_by, descending),
        field_config=sdk.FieldConfigSource(
            defaults=sdk.FieldConfig(
                color=by_threshold(),
                thresholds=thresholds((), "text"),
                custom=common.TableFieldOptions(
                    align=common.FieldTextAlignment.AUTO,
                    cell_options=common.TableAutoCellOptions(),
                    filterable=True,
                    inspect=False,
                ),
            ),
            overrides=[override("byName", one.name, _properties(one)) for one in columns],
        ),
        transformations=steps,
    )
    return Panel(
        title, description, tuple(query.table() for query in queries), "", model, span, height
    )


def last_of_each(name: str, *others: str) -> sdk.DataTransformerConfig:
    """Keep one row for each value of a column: the first there is, so sort the newest first."""
    fields: dict[str, object] = {name: {"operation": "groupby", "aggregations": []}}
    for other in others:
        fields[other] = {"operation": "aggregate", "aggregations": ["first"]}
    return _transform("groupBy", {"fields": fields})


def count_of_each(name: str, counted: str) -> sdk.DataTransformerConfig:
    """Count rows for each value of a column."""
    return _transform(
        "groupBy",
        {
            "fields": {
                name: {"operation": "groupby", "aggregations": []},
                counted: {"operation": "aggregate", "aggregations": ["count"]},
            }
        },
    )


def _options(sort_by: str, descending: bool) -> dict[str, object]:
    sort = [common.TableSortByFieldState(display_name=sort_by, desc=descending)] if sort_by else []
    options = plain(
        table.Options(show_header=True, cell_height=common.TableCellHeight.SM, sort_by=sort)
    )
    # Grafana 12 has footers elsewhere, and no version needs one to have none.
    del options["footer"]
    return options


def _transform(name: str, options: Mapping[str, object]) -> sdk.DataTransformerConfig:
    return sdk.DataTransformerConfig(id_val=name, options=dict(options))


def _properties(shown: Shown) -> dict[str, object]:
    found: dict[str, object] = {}
    if shown.title:
        found["displayName"] = shown.title
    if shown.unit:
        found["unit"] = shown.unit
    if shown.decimals is not None:
        found["decimals"] = shown.decimals
    if shown.meaning:
        found["mappings"] = words(shown.meaning)
    if shown.steps is not None:
        found["thresholds"] = thresholds(shown.steps, "text" if not shown.gauge else "blue")
    if shown.gauge:
        found["min"] = 0
        found["custom.cellOptions"] = {"type": "gauge", "mode": "basic"}
    elif shown.meaning or shown.steps is not None:
        found["custom.cellOptions"] = {"type": "color-text"}
    if shown.width:
        found["custom.width"] = shown.width
    if shown.links:
        found["links"] = list(shown.links)
    return found
