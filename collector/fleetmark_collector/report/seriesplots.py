"""The plots of prompt lengths, of clients and of soaks."""

from collections.abc import Iterator, Sequence
from typing import Any

from fleetmark_collector.report.plotparts import Figure, color_of, text
from fleetmark_collector.report.series import Series, Step
from fleetmark_collector.report.soaks import Soak
from fleetmark_protocol.metrics import METRICS

OF_A_SWEEP = ("ttft_s", "prefill_tps", "decode_tps", "rss_bytes")
_LAYOUT = {
    "height": 340,
    "margin": {"l": 60, "r": 16, "t": 8, "b": 44},
    "legend": {"orientation": "h", "y": -0.25},
    "hovermode": "closest",
}


def series_plots(number: int, series: Series) -> list[Figure]:
    """Return the plots of a series; `number` of its first workload, for the ids."""
    crowd = series.kind == "concurrency"
    wanted: tuple[tuple[str, ...], ...] = tuple((name,) for name in OF_A_SWEEP)
    if crowd:
        wanted = (("throughput_tps",), ("latency_s", "latency_p95_s"), ("ttft_s",))
    found = [figure for names in wanted if (figure := _over(series, names, crowd)) is not None]
    for position, figure in enumerate(found):
        figure["id"] = f"plot-{number}-series-{position}"
    return found


def soak_plots(number: int, soaks: Sequence[Soak]) -> list[Figure]:
    """Return the plot of speed and temperature over the time of each first complete soak."""
    data: list[dict[str, Any]] = []
    hot = False
    for row, soak in enumerate(soaks):
        trials = next(iter(soak.cell.cell.soaks().values()), ())
        records = [trial.record for trial in trials]
        speeds = [(r.soak_s, r.decode_tps) for r in records if None not in (r.soak_s, r.decode_tps)]
        if speeds:
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": text(soak.cell.short),
                    "legendgroup": str(row),
                    "x": [at for at, _ in speeds],
                    "y": [speed for _, speed in speeds],
                    "line": {"color": color_of(row), "width": 1.5},
                    "marker": {"size": 5},
                    "hovertemplate": "%{x:.0f} s: %{y:.4g} tokens/s<extra>%{fullData.name}</extra>",
                }
            )
        if soak.samples:
            hot = True
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": f"{text(soak.cell.short)} (°C)",
                    "legendgroup": str(row),
                    "yaxis": "y2",
                    "x": [sample.soak_s for sample in soak.samples],
                    "y": [sample.temperature_c for sample in soak.samples],
                    "line": {"color": color_of(row), "width": 1, "dash": "dot"},
                    "hovertemplate": "%{x:.0f} s: %{y:.1f} °C<extra>%{fullData.name}</extra>",
                }
            )
    if not data:
        return []
    decode = METRICS["decode_tps"]
    right = {"title": {"text": "°C"}, "overlaying": "y", "side": "right", "showgrid": False}
    return [
        {
            "id": f"plot-{number}-soak",
            "title": f"{decode.title} over the soak ({decode.shown_unit})",
            "note": "each request as a point; dotted: temperature, on the right",
            "wide": True,
            "data": data,
            "layout": {
                **_LAYOUT,
                "margin": {"l": 60, "r": 60 if hot else 16, "t": 8, "b": 44},
                "xaxis": {"title": {"text": "s since the soak began"}, "rangemode": "tozero"},
                "yaxis": {"rangemode": "tozero"},
                **({"yaxis2": right} if hot else {}),
            },
        }
    ]


def _over(series: Series, names: Sequence[str], crowd: bool) -> Figure | None:
    data = [one for place, name in enumerate(names) for one in _traces(series, name, pale=place)]
    if not data:
        return None
    metric = METRICS[names[0]]
    better = {"lower": "less is better", "higher": "more is better", "neither": ""}[metric.better]
    dotted = f"; dotted: {METRICS[names[1]].title}" if len(names) > 1 else ""
    at = "clients" if crowd else "prompt tokens"
    return {
        "title": f"{metric.title} over {at} ({metric.shown_unit})",
        "note": f"{better}{dotted}",
        "wide": False,
        "data": data,
        "layout": {
            **_LAYOUT,
            "xaxis": {"title": {"text": at}, "rangemode": "tozero"},
            "yaxis": {"rangemode": "tozero"},
        },
    }


def _traces(series: Series, name: str, *, pale: int) -> Iterator[dict[str, Any]]:
    """Yield a line per cell, with the intervals there are."""
    metric = METRICS[name]
    scale = metric.display_scale
    for row, line in enumerate(series.lines):
        steps: list[Step] = [
            step for step in line.steps if step.at is not None and name in step.cell.figures
        ]
        if not steps:
            continue
        figures = [step.cell.figures[name] for step in steps]
        yield {
            "type": "scatter",
            "mode": "lines+markers",
            "name": text(line.short),
            "legendgroup": str(row),
            "showlegend": not pale,
            "x": [step.at for step in steps],
            "y": [figure.median * scale for figure in figures],
            "error_y": {
                "type": "data",
                "symmetric": False,
                "array": [0 if f.high is None else (f.high - f.median) * scale for f in figures],
                "arrayminus": [0 if f.low is None else (f.median - f.low) * scale for f in figures],
                "thickness": 1.5,
                "width": 5,
            },
            "line": {"color": color_of(row), "width": 1.5, "dash": "dot" if pale else "solid"},
            "marker": {"size": 7, "opacity": 0.6 if pale else 1},
            "hovertemplate": f"%{{x}}: %{{y:.4g}} {metric.shown_unit}"
            "<extra>%{fullData.name}</extra>",
        }
