"""Dashboards drawn without Grafana: names, values and colours are those of the dashboards."""

import json

import pytest

from dashboard_plots import COLORS, Series, alias, bars, cell, lines, organized, shown, states
from draw_dashboards import DASHBOARDS

PANEL = {
    "fieldConfig": {
        "defaults": {
            "unit": "percent",
            "thresholds": {
                "steps": [{"value": None, "color": "green"}, {"value": 80, "color": "red"}]
            },
            "mappings": [{"options": {"1": {"text": "online", "color": "green"}}}],
        }
    }
}


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("[[tag_device]] · [[col]]", "pi · cpu"),
        ("[[tag_device]] · [[tag_options]] · [[col]]", "pi · cpu"),
        ("", "pi cpu"),
    ],
)
def test_a_series_is_called_as_its_alias_says_without_what_is_empty(pattern, name):
    assert alias(pattern, {"device": "pi", "options": ""}, "cpu") == name


def test_a_value_has_its_unit_and_the_colour_of_its_threshold():
    assert shown(PANEL, 79.96) == ("80.0 %", COLORS["green"])
    assert shown(PANEL, 80) == ("80 %", COLORS["red"])
    assert shown(PANEL, 1) == ("online", COLORS["green"])
    assert shown(PANEL, "<b>") == ("&lt;b&gt;", "#222")


def test_a_cell_of_a_table_shows_memory_in_mib_and_nothing_for_what_is_absent():
    assert cell("rss_bytes", 2**20) == "1 MiB"
    assert cell("seq", None) == ""
    assert cell("code", "<i>") == "&lt;i&gt;"


def test_bars_leave_out_what_all_names_share_and_mark_what_is_suspect():
    series = [
        Series("pi · llama_cpp · Q4_0", [0], [1.5]),
        Series("pi · xllamacpp · Q4_0 · SUSPECT alone", [0], [2.5]),
    ]
    ((drawn,), _) = bars(PANEL, series)
    assert drawn["y"] == ["llama_cpp", "xllamacpp · SUSPECT alone"]
    assert drawn["x"] == [1.5, 2.5]
    assert drawn["marker"]["color"][1] == COLORS["orange"] != drawn["marker"]["color"][0]


def test_lines_and_states_keep_every_point():
    series = [Series("pi", [0.0, 1000.0], [1, 90])]
    ((line,), _) = lines(PANEL, series)
    assert line["y"] == [1, 90]
    assert line["x"] == ["1970-01-01T00:00:00+00:00", "1970-01-01T00:00:01+00:00"]
    ((state,), _) = states(PANEL, series)
    assert state["marker"]["color"] == [COLORS["green"], COLORS["red"]]


def test_a_table_hides_and_renames_columns_as_its_dashboard_says():
    tables = [
        panel
        for file in DASHBOARDS.glob("*.json")
        for panel in json.loads(file.read_text("utf-8"))["panels"]
        if panel["type"] == "table"
    ]
    assert tables
    for panel in tables:
        assert organized(panel)[1], panel["title"]
    assert any("time" in organized(panel)[0] for panel in tables)
