"""What a panel of a dashboard becomes: Plotly figures, and values as people read them."""

import html
import math
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fleetmark_collector.report.plotparts import PALETTE

UNITS = {
    "percent": ("%", 1.0),
    "celsius": ("°C", 1.0),
    "s": ("s", 1.0),
    "bytes": ("MiB", 1 / 2**20),
    "binBps": ("MiB/s", 1 / 2**20),
    "Bps": ("MB/s", 1e-6),
    "hertz": ("GHz", 1e-9),
    "watt": ("W", 1.0),
    "joule": ("J", 1.0),
    "currencyUSD": ("USD", 1.0),
}
COLORS = {"green": "#2f9e76", "yellow": "#c9a227", "orange": "#d9822b", "red": "#c94f5d"}


@dataclass
class Series:
    """One line of a panel: its name, its times in ms, its values."""

    name: str
    times: list[float] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)


def alias(pattern: str, tags: dict[str, str], column: str) -> str:
    """Return the name of a series, as its query's alias has it."""
    if not pattern:
        return " ".join([*(value for value in tags.values() if value), column])
    text = re.sub(r"\[\[tag_(\w+)\]\]", lambda found: tags.get(found[1], ""), pattern)
    return re.sub(r"( · )+", " · ", text.replace("[[col]]", column)).strip(" ·")


def _unit(panel: dict[str, Any]) -> tuple[str, float]:
    unit = panel["fieldConfig"]["defaults"].get("unit", "")
    return UNITS.get(unit, ("", 1.0))


def _number(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "-"
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if abs(value) < 100 else 0
    return f"{value:,.{min(digits, 9)}f}"


def shown(panel: dict[str, Any], value: Any) -> tuple[str, str]:
    """Return a value as people read it, and the colour of its threshold."""
    defaults = panel["fieldConfig"]["defaults"]
    for mapping in defaults.get("mappings", ()):
        result = mapping.get("options", {}).get(str(value))
        if result:
            return html.escape(result["text"]), COLORS.get(result.get("color", ""), "#222")
    if isinstance(value, str):
        return html.escape(value), "#222"
    color = "#222"
    for step in defaults.get("thresholds", {}).get("steps", ()):
        if step["value"] is None or value >= step["value"]:
            color = COLORS.get(step["color"], "#222")
    sign, scale = _unit(panel)
    return f"{_number(value if scale == 1 else value * scale)} {sign}".strip(), color


def cell(column: str, value: Any) -> str:
    """Return a value of a table."""
    if value is None:
        return ""
    if column == "time":
        return f"{datetime.fromtimestamp(value / 1e9, tz=UTC):%m-%d %H:%M:%S}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return html.escape(str(value))
    if column.endswith("_bytes"):
        return f"{value / 2**20:,.0f} MiB"
    return _number(value)


def organized(panel: dict[str, Any]) -> tuple[set[str], dict[str, str]]:
    """Return the columns that a table hides, and its own names for others."""
    hidden: set[str] = set()
    names: dict[str, str] = {}
    for step in panel.get("transformations", ()):
        options = step.get("options", {})
        if step["id"] == "organize":
            hidden |= {name for name, out in options.get("excludeByName", {}).items() if out}
        elif step["id"] == "filterFieldsByName":
            hidden |= set(options.get("exclude", {}).get("names", ()))
    for override in panel["fieldConfig"].get("overrides", ()):
        column = override["matcher"]["options"]
        for one in override["properties"]:
            if one["id"] == "displayName":
                names[column.removesuffix(" (first)")] = one["value"]
    return hidden, names


def _layout(**more: Any) -> dict[str, Any]:
    return {"margin": {"l": 50, "r": 10, "t": 8, "b": 30}, "showlegend": False, **more}


def _when(times: list[float]) -> list[str]:
    return [datetime.fromtimestamp(ms / 1000, tz=UTC).isoformat() for ms in times]


def lines(panel: dict[str, Any], series: list[Series]) -> tuple[list[Any], dict[str, Any]]:
    """Plot values over time."""
    sign, scale = _unit(panel)
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": html.escape(one.name),
            "x": _when(one.times),
            "y": [value * scale for value in one.values],
            "line": {"width": 1.5, "color": PALETTE[number % len(PALETTE)]},
        }
        for number, one in enumerate(series)
    ]
    return data, _layout(
        yaxis={"title": sign, "rangemode": "tozero"},
        showlegend=True,
        legend={"orientation": "h", "y": -0.2},
    )


def _short(names: list[str]) -> list[str]:
    """Leave out the parts that all names share."""
    parts = [name.split(" · ") for name in names]
    common = set.intersection(*map(set, parts)) if len(parts) > 1 else set()
    return [" · ".join(one for one in name if one not in common) for name in parts]


def bars(panel: dict[str, Any], series: list[Series]) -> tuple[list[Any], dict[str, Any]]:
    """Plot the last value of each series."""
    sign, scale = _unit(panel)
    texts = [shown(panel, one.values[-1])[0] for one in series]
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": [html.escape(name) for name in _short([one.name for one in series])],
        "x": [one.values[-1] * scale for one in series],
        "text": texts,
        "marker": {
            "color": [COLORS["orange"] if "SUSPECT" in one.name else PALETTE[0] for one in series]
        },
    }
    return [bars], _layout(
        xaxis={"title": sign, "rangemode": "tozero"},
        yaxis={"automargin": True, "autorange": "reversed", "dtick": 1},
    )


def states(panel: dict[str, Any], series: list[Series]) -> tuple[list[Any], dict[str, Any]]:
    """Plot states over time."""
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": _when(one.times),
            "y": [html.escape(one.name)] * len(one.times),
            "marker": {
                "symbol": "square",
                "size": 9,
                "color": [shown(panel, value)[1] for value in one.values],
            },
        }
        for one in series
    ]
    return data, _layout(yaxis={"automargin": True})
