"""What all panels have in common: a title, a description, queries, and how values are coloured."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import dashboard as sdk

from fleetmark_collector.grafana.influxql import Query
from fleetmark_collector.grafana.names import DATASOURCE_TYPE, DATASOURCE_UID

Steps = Sequence[tuple[float, str]]
"""From each number on, a colour by the name Grafana's themes know."""

CALM = "green"
EVERY_NAME = "/.*/"


@dataclass(frozen=True)
class Panel:
    """A panel before it has its place on a dashboard.

    Attributes:
        unit: Grafana's id of the unit its numbers are in; empty where columns differ.
        model: as the SDK has it; place, number and queries are filled in by the dashboard.
        span: columns of 24 that it takes.
        height: in rows of Grafana's grid (30 pixels and a gap).
    """

    title: str
    description: str
    queries: tuple[Query, ...]
    unit: str
    model: sdk.Panel
    span: int
    height: int


class Target(Dataquery):
    """A query as a panel holds it; the SDK has no class for InfluxDB's."""

    def __init__(self, query: Query, ref_id: str) -> None:
        self.query = query
        self.ref_id = ref_id

    def to_json(self) -> dict[str, object]:
        """Return what Grafana's InfluxDB plugin keeps for a query written by hand."""
        return {
            "refId": self.ref_id,
            "datasource": datasource(),
            "rawQuery": True,
            "query": str(self.query),
            "resultFormat": self.query.format,
            **({"alias": self.query.alias} if self.query.alias else {}),
        }


def ref_ids(count: int) -> str:
    """Return the names of a panel's queries, one letter each."""
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:count]


def datasource() -> sdk.DataSourceRef:
    """Return what points to our datasource."""
    return sdk.DataSourceRef(type_val=DATASOURCE_TYPE, uid=DATASOURCE_UID)


def plain(model: object) -> dict[str, Any]:
    """Return an object of the SDK as plain data, in the order a reader of the file expects."""
    return dict(json.loads(json.dumps(model, cls=JSONEncoder)))


def thresholds(steps: Steps, base: str = CALM) -> sdk.ThresholdsConfig:
    """Return the colours of values; `base` is that below the first step."""
    return sdk.ThresholdsConfig(
        mode=sdk.ThresholdsMode.ABSOLUTE,
        steps=[
            sdk.Threshold(value=None, color=base),
            *(sdk.Threshold(value=value, color=color) for value, color in steps),
        ],
    )


def by_threshold() -> sdk.FieldColor:
    """Colour a value by its threshold."""
    return sdk.FieldColor(mode=sdk.FieldColorModeId.THRESHOLDS)


def by_series() -> sdk.FieldColor:
    """Give each series a colour of its own, the same on every panel."""
    return sdk.FieldColor(mode=sdk.FieldColorModeId.PALETTE_CLASSIC_BY_NAME)


def words(meaning: Mapping[str, tuple[str, str]]) -> list[sdk.ValueMapping]:
    """Show values as words: value -> (word, colour)."""
    return [
        sdk.ValueMap(
            options={
                value: sdk.ValueMappingResult(text=text, color=color, index=index)
                for index, (value, (text, color)) in enumerate(meaning.items())
            }
        )
    ]


def override(
    matcher: str, what: object, properties: Mapping[str, object]
) -> sdk.DashboardFieldConfigSourceOverrides:
    """Return settings for some fields only: `matcher` is byName, byRegexp, byFrameRefID..."""
    return sdk.DashboardFieldConfigSourceOverrides(
        matcher=sdk.MatcherConfig(id_val=matcher, options=what),
        properties=[sdk.DynamicConfigValue(id_val=key, value=to) for key, to in properties.items()],
    )


def with_links(
    links: Sequence[Mapping[str, str]],
) -> list[sdk.DashboardFieldConfigSourceOverrides]:
    """Return what puts links onto every series."""
    if not links:
        return []
    return [override("byRegexp", EVERY_NAME, {"links": list(links)})]
