"""Panels that draw: lines over time, states over time, bars side by side, one number."""

from collections.abc import Mapping, Sequence
from typing import Literal

from grafana_foundation_sdk.models import bargauge, common, stat, statetimeline, timeseries
from grafana_foundation_sdk.models import dashboard as sdk

from fleetmark_collector.grafana.influxql import Query
from fleetmark_collector.grafana.links import Link
from fleetmark_collector.grafana.panels import (
    CALM,
    Panel,
    Steps,
    by_series,
    by_threshold,
    override,
    thresholds,
    with_links,
    words,
)
from fleetmark_protocol.metric import Better

GAP_MS = 60_000
"""A line is broken where no point came for so long: a silent device has no values."""

SUSPECT_COLOR = "orange"
"""Of what belongs to trials with a SUSPECT verdict, everywhere."""

GOOD_TO_BAD: Mapping[Better, sdk.FieldColorModeId] = {
    "lower": sdk.FieldColorModeId.CONTINUOUS_GR_YL_RD,
    "higher": sdk.FieldColorModeId.CONTINUOUS_RD_YL_GR,
    "neither": sdk.FieldColorModeId.CONTINUOUS_BLUES,
}

SeriesCalc = Literal["min", "mean", "max", "last", "lastNotNull"]


def lines(
    title: str,
    description: str,
    queries: Sequence[Query],
    unit: str,
    *,
    steps: Steps = (),
    links: Sequence[Link] = (),
    floor: float | None = None,
    ceiling: float | None = None,
    calcs: Sequence[SeriesCalc] = ("mean", "max"),
    stacked: bool = False,
    span: int = 12,
    height: int = 8,
) -> Panel:
    """Return lines over time; `steps` are drawn as dashed limits, not as colours of the lines."""
    custom = common.GraphFieldConfig(
        draw_style=common.GraphDrawStyle.LINE,
        line_width=1,
        fill_opacity=40 if stacked else 8,
        show_points=common.VisibilityMode.AUTO,
        insert_nulls=GAP_MS,
        span_nulls=False,
        axis_soft_min=floor,
        stacking=common.StackingConfig(mode=common.StackingMode.NORMAL) if stacked else None,
        thresholds_style=common.GraphThresholdsStyleConfig(
            mode=common.GraphThresholdsStyleMode.DASHED
            if steps
            else common.GraphThresholdsStyleMode.OFF
        ),
    )
    model = sdk.Panel(
        type_val="timeseries",
        options=timeseries.Options(
            legend=common.VizLegendOptions(
                display_mode=common.LegendDisplayMode.TABLE,
                placement=common.LegendPlacement.BOTTOM,
                show_legend=True,
                calcs=list(calcs),
            ),
            tooltip=common.VizTooltipOptions(
                mode=common.TooltipDisplayMode.MULTI, sort=common.SortOrder.DESCENDING
            ),
        ),
        field_config=sdk.FieldConfigSource(
            defaults=sdk.FieldConfig(
                unit=unit,
                min_val=floor,
                max_val=ceiling,
                thresholds=thresholds(steps, "transparent") if steps else None,
                color=by_series(),
                custom=custom,
            ),
            overrides=with_links(links),
        ),
    )
    return Panel(title, description, tuple(queries), unit, model, span, height)


def states(
    title: str,
    description: str,
    queries: Sequence[Query],
    meaning: Mapping[str, tuple[str, str]],
    *,
    links: Sequence[Link] = (),
    span: int = 12,
    height: int = 8,
) -> Panel:
    """Return a band per series, coloured by what each value means: value -> (word, colour)."""
    model = sdk.Panel(
        type_val="state-timeline",
        options=statetimeline.Options(
            show_value=common.VisibilityMode.NEVER,
            legend=common.VizLegendOptions(
                display_mode=common.LegendDisplayMode.LIST,
                placement=common.LegendPlacement.BOTTOM,
                show_legend=True,
                calcs=[],
            ),
            tooltip=common.VizTooltipOptions(
                mode=common.TooltipDisplayMode.SINGLE, sort=common.SortOrder.NONE
            ),
        ),
        field_config=sdk.FieldConfigSource(
            defaults=sdk.FieldConfig(
                unit="short",
                mappings=words(meaning),
                color=by_threshold(),
                thresholds=thresholds((), "text"),
                custom=statetimeline.FieldConfig(line_width=0, fill_opacity=80),
            ),
            overrides=with_links(links),
        ),
    )
    return Panel(title, description, tuple(queries), "short", model, span, height)


def bars(
    title: str,
    description: str,
    queries: Sequence[Query],
    unit: str,
    better: Better,
    *,
    links: Sequence[Link] = (),
    decimals: int | None = None,
    span: int = 12,
    height: int = 10,
) -> Panel:
    """Return a bar per series, best to worst in colour; those named SUSPECT in their own."""
    model = sdk.Panel(
        type_val="bargauge",
        options=bargauge.Options(
            display_mode=common.BarGaugeDisplayMode.BASIC,
            orientation=common.VizOrientation.HORIZONTAL,
            name_placement=common.BarGaugeNamePlacement.TOP,
            value_mode=common.BarGaugeValueMode.COLOR,
            sizing=common.BarGaugeSizing.MANUAL,
            min_viz_height=14,
            max_viz_height=22,
            show_unfilled=True,
            legend=common.VizLegendOptions(
                display_mode=common.LegendDisplayMode.LIST,
                placement=common.LegendPlacement.BOTTOM,
                show_legend=False,
                calcs=[],
            ),
            reduce_options=common.ReduceDataOptions(values=False, calcs=["lastNotNull"], fields=""),
        ),
        field_config=sdk.FieldConfigSource(
            defaults=sdk.FieldConfig(
                unit=unit,
                decimals=decimals,
                min_val=0,
                color=sdk.FieldColor(mode=GOOD_TO_BAD[better]),
                thresholds=thresholds((), "text"),
            ),
            overrides=[
                *with_links(links),
                override(
                    "byRegexp",
                    "/SUSPECT/",
                    {"color": {"mode": "fixed", "fixedColor": SUSPECT_COLOR}},
                ),
            ],
        ),
    )
    return Panel(title, description, tuple(queries), unit, model, span, height)


def number(
    title: str,
    description: str,
    queries: Sequence[Query],
    unit: str,
    *,
    steps: Steps = (),
    base: str = CALM,
    meaning: Mapping[str, tuple[str, str]] | None = None,
    decimals: int | None = None,
    span: int = 4,
    height: int = 4,
) -> Panel:
    """Return one number (one per series, where there are several), coloured by its threshold."""
    model = sdk.Panel(
        type_val="stat",
        options=stat.Options(
            graph_mode=common.BigValueGraphMode.NONE,
            color_mode=common.BigValueColorMode.VALUE,
            justify_mode=common.BigValueJustifyMode.AUTO,
            text_mode=common.BigValueTextMode.VALUE_AND_NAME
            if len(queries) > 1
            else common.BigValueTextMode.AUTO,
            orientation=common.VizOrientation.AUTO,
            reduce_options=common.ReduceDataOptions(
                values=False, calcs=["lastNotNull"], fields=EVERY_FIELD if unit == "string" else ""
            ),
        ),
        field_config=sdk.FieldConfigSource(
            defaults=sdk.FieldConfig(
                unit=unit,
                decimals=decimals,
                mappings=words(meaning) if meaning else None,
                color=by_threshold(),
                thresholds=thresholds(steps, base),
                no_value="-",
            ),
            overrides=[],
        ),
    )
    return Panel(title, description, tuple(queries), unit, model, span, height)


EVERY_FIELD = "/.*/"
"""Texts, too; without it, Grafana reduces numbers only."""
