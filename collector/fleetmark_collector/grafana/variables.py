"""The choices above a dashboard: fleet, device, backend, model, quantization, campaign."""

from collections.abc import Sequence

from grafana_foundation_sdk.models import dashboard as sdk

from fleetmark_collector.grafana.influxql import chosen
from fleetmark_collector.grafana.panels import datasource
from fleetmark_collector.grafana.queries.conditions import THIS_CAMPAIGN, tag_values

ALL = "$__all"
EVERYTHING = ".*"
"""What "All" puts into a condition: it takes also what lacks the tag, and stays short."""


def fleet(*, many: bool = True) -> sdk.VariableModel:
    """Which fleets, or which one."""
    return _choice("fleet", "Fleet", tag_values("fleet", "device"), many=many)


def device(*, many: bool = True) -> sdk.VariableModel:
    """Which devices of the chosen fleets, or which one."""
    query = tag_values("device", "device", where=(chosen("fleet"),))
    return _choice("device", "Device", query, many=many)


def campaign() -> sdk.VariableModel:
    """Which campaign: one, for workloads of different campaigns may share no more than a name.

    An id is a name and a time, so at first the newest of the last name is chosen.
    """
    query = tag_values("campaign_id", "campaign", "job")
    return _choice("campaign", "Campaign", query, many=False, sort=DESCENDING)


def of_cells() -> list[sdk.VariableModel]:
    """What narrows the cells of a campaign down; all of them at first."""
    return [
        campaign(),
        _choice("fleet", "Fleet", tag_values("fleet", "trial", where=THIS_CAMPAIGN), many=True),
        _choice("device", "Device", _in_campaign("device"), many=True),
        _choice("backend", "Backend", _in_campaign("backend"), many=True),
        _choice("model", "Model", _in_campaign("model"), many=True),
        _choice("quantization", "Quantization", _in_campaign("quantization"), many=True),
    ]


def collector() -> sdk.VariableModel:
    """Which collectors, where several share the work."""
    return _choice("collector", "Collector", tag_values("collector", "collector"), many=True)


ASCENDING = sdk.VariableSort.NATURAL_ASC
DESCENDING = sdk.VariableSort.NATURAL_DESC


def _in_campaign(tag: str, where: Sequence[str] = (*THIS_CAMPAIGN, chosen("fleet"))) -> str:
    return tag_values(tag, "trial", where=where)


def _choice(
    name: str, label: str, query: str, *, many: bool, sort: sdk.VariableSort = ASCENDING
) -> sdk.VariableModel:
    return sdk.VariableModel(
        type_val=sdk.VariableType.QUERY,
        name=name,
        label=label,
        datasource=datasource(),
        query=query,
        # Asked again whenever the dashboard is opened: new devices and campaigns appear.
        refresh=sdk.VariableRefresh.ON_DASHBOARD_LOAD,
        sort=sort,
        multi=many,
        include_all=many,
        all_value=EVERYTHING if many else None,
        current=sdk.VariableOption(selected=True, text=["All"], value=[ALL]) if many else None,
        # The SDK fills these in, and Grafana's schema has them for intervals only.
        auto=None,
        auto_min=None,
        auto_count=None,
    )
