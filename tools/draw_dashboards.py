"""Draws the dashboards without Grafana: their own queries on a real database, in Plotly's plots.

For the pictures in docs/, and for whoever wants to look before there is a Grafana. It keeps the
places, titles, units and colours of thresholds; everything else of Grafana's looks is left out, and
each page says so.

    python tools/draw_dashboards.py --config collector.toml --dir pages [--campaign ID] [--png]
"""

import argparse
import html
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dashboard_plots import Series, alias, bars, cell, lines, organized, shown, states
from fleetmark_collector.config import load_settings
from fleetmark_collector.grafana.interpolate import fill
from fleetmark_collector.sinks.influxdb.query import InfluxQL

DASHBOARDS = Path(__file__).parent.parent / "deploy/grafana/dashboards"
ROW_PX = 40
WIDTH_PX = 1400
SAID = (
    "Drawn from the dashboard's own queries by fleetmark's plots. This is not Grafana: there it "
    "looks different, and can be clicked."
)
STYLE = """
body{font:14px system-ui,sans-serif;margin:16px;width:1400px;background:#f4f5f7;color:#222}
.said{background:#fff3cd;padding:6px 10px;border-radius:4px;margin:0 0 12px}
.grid{display:grid;grid-template-columns:repeat(24,1fr);gap:8px}
.panel{background:#fff;border:1px solid #ddd;border-radius:4px;padding:6px;overflow:hidden}
.panel h3{font-size:13px;margin:0 0 2px;font-weight:600}
.row{grid-column:1/-1;font-weight:700;margin-top:8px}
.stats{display:flex;gap:18px;justify-content:center;align-items:center;height:80%}
.stat{text-align:center;font-size:26px;font-weight:600}.stat small{display:block;font-size:11px;
font-weight:400;color:#666}.none{color:#888;text-align:center;margin-top:12px}
table{border-collapse:collapse;font-size:12px;width:100%}td,th{padding:2px 6px;text-align:left;
border-bottom:1px solid #eee;white-space:nowrap}
"""


class Drawing:
    """One dashboard's page."""

    def __init__(
        self, ask: InfluxQL, chosen: dict[str, str | list[str] | None], start_ms: int, end_ms: int
    ) -> None:
        self._ask = ask
        self._chosen = chosen
        self._span = (start_ms, end_ms)
        self._plots: list[dict[str, Any]] = []

    def page(self, board: dict[str, Any], plotly: str) -> str:
        """Return the whole page."""
        panels = "\n".join(self._panel(panel) for panel in board["panels"])
        draw = "".join(
            f"Plotly.newPlot({json.dumps(plot.pop('id'))}, {json.dumps(plot['data'])}, "
            f"{json.dumps(plot['layout'])}, {{staticPlot: true}});"
            for plot in self._plots
        )
        title = html.escape(board["title"])
        return (
            f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{STYLE}</style>"
            f"<h1>{title}</h1><p class=said>{SAID}</p><div class=grid>{panels}</div>"
            f"<script>{plotly}</script><script>{draw}</script>"
        )

    def _panel(self, panel: dict[str, Any]) -> str:
        title = html.escape(panel.get("title", ""))
        if panel["type"] == "row":
            return f"<div class=row>{title}</div>"
        place = panel["gridPos"]
        style = f"grid-column:{place['x'] + 1}/span {place['w']};height:{place['h'] * ROW_PX - 8}px"
        body = self._table(panel) if panel["type"] == "table" else self._series_panel(panel)
        return f"<div class=panel style='{style}'><h3>{title}</h3>{body}</div>"

    def _query(self, target: dict[str, Any]) -> str:
        start_ms, end_ms = self._span
        width_s = max(10, round((end_ms - start_ms) / 1000 / 200))
        return fill(target["query"], self._chosen, start_ms, end_ms, f"{width_s}s")

    def _series(self, panel: dict[str, Any]) -> Iterator[Series]:
        for target in panel["targets"]:
            found: dict[str, Series] = {}
            for chunk in self._ask.chunks(self._query(target)):
                for at, column in enumerate(chunk.columns[1:], 1):
                    name = alias(target.get("alias", ""), chunk.tags, column)
                    series = found.setdefault(name, Series(name))
                    for row in chunk.values:
                        if row[at] is not None:
                            series.times.append(row[0] / 1e6)
                            series.values.append(row[at])
            yield from (series for series in found.values() if series.values)

    def _series_panel(self, panel: dict[str, Any]) -> str:
        series = list(self._series(panel))
        if not series:
            return "<p class=none>No data</p>"
        if panel["type"] == "stat":
            return self._stat(panel, series)
        ident = f"p{panel['id']}"
        draw = {"bargauge": bars, "state-timeline": states}.get(panel["type"], lines)
        data, layout = draw(panel, series)
        place = panel["gridPos"]
        layout |= {
            "height": place["h"] * ROW_PX - 40,
            "width": round(WIDTH_PX * place["w"] / 24) - 30,
            "font": {"size": 11},
        }
        self._plots.append({"id": ident, "data": data, "layout": layout})
        return f"<div id={ident}></div>"

    def _stat(self, panel: dict[str, Any], series: list[Series]) -> str:
        cells = []
        for one in series:
            text, color = shown(panel, one.values[-1])
            name = html.escape(one.name) if len(series) > 1 else ""
            cells.append(f"<div class=stat style='color:{color}'>{text}<small>{name}</small></div>")
        return f"<div class=stats>{''.join(cells)}</div>"

    def _table(self, panel: dict[str, Any]) -> str:
        hidden, names = organized(panel)
        rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        merged = any(one["id"] == "merge" for one in panel.get("transformations", ()))
        for target in panel["targets"]:
            for chunk in self._ask.chunks(self._query(target)):
                for values in chunk.values:
                    row = {**chunk.tags, **dict(zip(chunk.columns, values, strict=True))}
                    key = tuple(chunk.tags.values()) if merged else (len(rows),)
                    kept = {k: v for k, v in row.items() if v is not None and k not in hidden}
                    rows.setdefault(key, {}).update(kept)
        if not rows:
            return "<p class=none>No data</p>"
        columns = list(dict.fromkeys(k for row in rows.values() for k in row))
        head = "".join(f"<th>{html.escape(names.get(c, c))}</th>" for c in columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{cell(column, row.get(column))}</td>" for column in columns)
            for row in list(rows.values())[:20]
        )
        return f"<table><tr>{head}</tr>{body}</table>"


def main() -> None:
    """Write the pages, and pictures of them where asked."""
    import plotly.offline

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", type=Path, help="settings of the collector (TOML)")
    parser.add_argument("--dir", type=Path, default=Path("pages"), help="where to put the pages")
    parser.add_argument("--campaign", help="id of the campaign to show; default: all")
    parser.add_argument("--device", help="the device of the dashboard Device; default: all")
    parser.add_argument("--backends", nargs="+", help="show these alone")
    parser.add_argument("--rows", type=int, default=10_000, help="of the grid, from the top")
    parser.add_argument("--minutes", type=float, default=60, help="time shown, up to now")
    parser.add_argument("--png", action="store_true", help="take pictures with Chromium")
    options = parser.parse_args()
    store = load_settings(options.config).store
    if store.kind != "influxdb":
        sys.exit("error: the settings name no InfluxDB (store.kind)")
    end_ms = round(time.time() * 1000)
    start_ms = end_ms - round(options.minutes * 60_000)
    options.dir.mkdir(parents=True, exist_ok=True)
    ask = InfluxQL(store.influxdb())
    chosen = {"campaign": options.campaign, "backend": options.backends}
    for file in sorted(DASHBOARDS.glob("*.json")):
        board = json.loads(file.read_text("utf-8"))
        device = options.device if board["title"] == "Device" else None
        drawing = Drawing(ask, chosen | {"device": device}, start_ms, end_ms)
        page = options.dir / f"{file.stem}.html"
        page.write_text(drawing.page(board, plotly.offline.get_plotlyjs()), "utf-8")
        print(f"wrote {page}")
        if options.png:
            rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
            _picture(page, 150 + min(rows, options.rows) * (ROW_PX + 1))
    ask.close()


def _picture(page: Path, height_px: int) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("error: --png needs Chromium (apt install chromium)")
    picture = page.with_suffix(".png")
    subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         "--disable-background-networking", "--virtual-time-budget=10000",
         f"--window-size={WIDTH_PX + 40},{height_px}", f"--screenshot={picture.absolute()}",
         page.absolute().as_uri()],
        check=True, capture_output=True,
    )  # fmt: skip
    print(f"wrote {picture}")


if __name__ == "__main__":
    main()
