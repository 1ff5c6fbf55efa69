"""The dashboards and rules as data: valid for Grafana, complete, joined up, and not out of date."""

import copy
import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import urllib3
from jsonschema import Draft7Validator
from ruamel.yaml import YAML

from fakes.fake_grafana import FakeGrafana, Refused
from fleetmark_collector.cli.main import main
from fleetmark_collector.grafana import names, render
from fleetmark_collector.grafana.alerts import ALERTS, group_for_api, group_for_file
from fleetmark_collector.grafana.board import COLUMNS, to_json
from fleetmark_collector.grafana.catalogue import BOARDS, panels
from fleetmark_collector.grafana.interpolate import fill
from fleetmark_collector.grafana.units import UNITS
from fleetmark_protocol.metrics import METRICS

ROOT = Path(__file__).parents[3]
FIXTURES = ROOT / "tests" / "fixtures"
DASHBOARDS = {board.uid: to_json(board) for board in BOARDS}
VARIABLE = re.compile(r"\$\{(\w+)(?::(\w+))?\}")
LINK = re.compile(r"/d/([\w-]+)\?([^\"]*)")


def fields(dashboard):
    """The panels of a dashboard that are no headings."""
    return [panel for panel in dashboard["panels"] if panel.get("type") != "row"]


def schema(version):
    return json.loads((FIXTURES / f"grafana-{version}.schema.json").read_text("utf-8"))


def against(value, part, definitions):
    whole = {**part, "definitions": definitions}
    return [error.message for error in Draft7Validator(whole).iter_errors(value)]


def problems(dashboard, published):
    """What Grafana's published types have against a dashboard and the options of its panels."""
    whole = published["dashboard"]
    found = against(dashboard, whole, whole["definitions"])
    for panel in fields(dashboard):
        parts = published["panels"].get(panel.get("type"))
        if parts is None:
            found.append(f"no schema for {panel.get('type')}, see tools/grafana_schema.sh")
            continue
        defaults = panel["fieldConfig"]["defaults"]
        given = {"options": panel["options"], "custom": defaults.get("custom", {})}
        for part in given.keys() & parts.keys():
            found += against(given[part], parts[part], parts[part]["definitions"])
        for override in panel["fieldConfig"]["overrides"]:
            for one in override["properties"]:
                # Published as "any value"; what it overrides has a type.
                prefix, _, custom = one["id"].rpartition(".")
                of = (parts["custom"] if prefix else whole)["definitions"]
                known = of["FieldConfig"]["properties"].get(custom)
                if prefix not in ("", "custom") or known is None:
                    found.append(f"override of {one['id']}")
                else:
                    found += against(one["value"], known, of)
    return found


@pytest.mark.parametrize("version", names.CHECKED_VERSIONS)
@pytest.mark.parametrize("uid", DASHBOARDS)
def test_a_dashboard_is_what_grafanas_published_schema_says(uid, version):
    assert problems(DASHBOARDS[uid], schema(version)) == []


def _panel(dashboard):
    return fields(dashboard)[-1]


BREAKS = {
    "a title that is a number": lambda d: d.update(title=7),
    "no schema version": lambda d: d.pop("schemaVersion"),
    "a field that nobody knows": lambda d: d.update(refreshh="1m"),
    "a panel without a type": lambda d: _panel(d).pop("type"),
    "a place that is a text": lambda d: _panel(d)["gridPos"].update(x="left"),
    "an unknown option": lambda d: _panel(d)["options"].update(colour="red"),
    "an option of the wrong kind": lambda d: _panel(d)["options"]["legend"].update(placement="up"),
    "an unknown draw style": lambda d: _panel(d)["fieldConfig"]["defaults"]["custom"].update(
        drawStyle="dots"
    ),
    "a threshold without a colour": lambda d: _panel(d)["fieldConfig"]["defaults"].update(
        thresholds={"mode": "absolute", "steps": [{"value": 1}]}
    ),
    "an override of nothing": lambda d: _panel(d)["fieldConfig"]["overrides"].append(
        {"matcher": {"id": "byName", "options": "x"}, "properties": [{"id": "unitt", "value": "s"}]}
    ),
    "an override of the wrong kind": lambda d: _panel(d)["fieldConfig"]["overrides"].append(
        {"matcher": {"id": "byName", "options": "x"}, "properties": [{"id": "unit", "value": 3}]}
    ),
    "a variable of an unknown kind": lambda d: d["templating"]["list"][0].update(type="guess"),
    "a panel of an unknown kind": lambda d: _panel(d).update(type="pie"),
}


@pytest.mark.parametrize("version", names.CHECKED_VERSIONS)
@pytest.mark.parametrize("what", BREAKS)
def test_a_broken_dashboard_is_rejected(what, version):
    broken = copy.deepcopy(DASHBOARDS[names.COLLECTOR])
    BREAKS[what](broken)
    assert problems(broken, schema(version)), what


def test_what_is_rendered_is_up_to_date():
    stale = render.stale(ROOT / "deploy" / "grafana", render.Places())
    assert stale == [], "run `fleetmark grafana render`"


def test_a_file_that_was_changed_or_lost_is_stale_and_rendered_again(tmp_path):
    places = render.Places()
    everything = render.write(tmp_path, places)
    assert render.stale(tmp_path, places) == []
    (tmp_path / everything[0]).write_text("{}", "utf-8")
    (tmp_path / everything[1]).unlink()
    assert render.stale(tmp_path, places) == everything[:2]
    assert render.write(tmp_path, places) == everything[:2]
    assert render.stale(tmp_path, places) == []


def test_the_command_checks_without_writing(tmp_path, monkeypatch, capsys):
    def run(*more):
        monkeypatch.setattr(sys, "argv", ["fleetmark", "grafana", "render", str(tmp_path), *more])
        try:
            main()
        except SystemExit as end:
            return end.code or 0
        return 0

    assert (run("--check"), list(tmp_path.iterdir())) == (1, [])
    assert "stale" in capsys.readouterr().out
    assert (run(), run("--check")) == (0, 0)
    assert "up to date" in capsys.readouterr().out


def test_places_go_into_the_files_of_other_installations(tmp_path):
    render.write(tmp_path, render.Places("/srv/boards", "/etc/grafana/token", ""))
    provider = (tmp_path / "provisioning/dashboards/fleetmark.yaml").read_text("utf-8")
    source = (tmp_path / "provisioning/datasources/fleetmark.yaml").read_text("utf-8")
    assert "path: /srv/boards" in provider
    assert "$__file{/etc/grafana/token}" in source
    assert "tlsAuthWithCACert: false" in source


def test_the_containers_run_the_grafana_that_is_named():
    images = re.findall(
        r"image: grafana/\S+:(\S+)", (ROOT / "deploy/compose.yaml").read_text("utf-8")
    )
    assert images == [names.GRAFANA_VERSION]


def test_the_docs_name_the_versions():
    text = (ROOT / "docs/dashboards.md").read_text("utf-8")
    for version in names.CHECKED_VERSIONS:
        assert version in text


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_every_panel_has_a_title_of_its_own_a_description_and_a_query(uid):
    found = fields(DASHBOARDS[uid])
    assert len({panel["title"] for panel in found}) == len(found)
    for panel in found:
        assert panel["title"].strip()
        assert len(panel["description"]) > 20, panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["targets"], panel["title"]
        assert panel["datasource"]["uid"] == names.DATASOURCE_UID
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == names.DATASOURCE_UID


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_panels_lie_side_by_side_and_none_on_another(uid):
    taken = {}
    ids = [panel["id"] for panel in DASHBOARDS[uid]["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in DASHBOARDS[uid]["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= COLUMNS
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, (panel["title"], taken[x, y])
                taken[x, y] = panel["title"]


def test_every_number_has_a_unit():
    for dashboard in DASHBOARDS.values():
        for panel in fields(dashboard):
            if panel["type"] != "table":
                assert panel["fieldConfig"]["defaults"].get("unit"), panel["title"]


def test_units_titles_and_directions_are_those_of_the_protocol():
    assert {metric.unit for metric in METRICS.values()} <= UNITS.keys()
    bars = {
        target["query"].split('AS "')[1].split('"')[0]: panel
        for panel in fields(DASHBOARDS[names.COMPARE])
        if panel["type"] == "bargauge"
        for target in panel["targets"][:1]
    }
    assert len(bars) > 12
    for name, panel in bars.items():
        assert panel["fieldConfig"]["defaults"]["unit"] == UNITS[METRICS[name].unit]
        scheme = panel["fieldConfig"]["defaults"]["color"]["mode"]
        good = {"lower": "GrYlRd", "higher": "RdYlGr", "neither": "blues"}[METRICS[name].better]
        assert scheme == f"continuous-{good}", name


def test_colours_are_those_of_grafanas_themes():
    named = {"blue", "green", "orange", "purple", "red", "text", "transparent", "yellow"}

    def colours(value):
        if isinstance(value, dict):
            for key, inner in value.items():
                if key in ("color", "fixedColor", "iconColor") and isinstance(inner, str):
                    yield inner
                yield from colours(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from colours(inner)

    assert set(colours(list(DASHBOARDS.values()))) <= named


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_queries_use_the_variables_there_are_and_each_variable_is_used(uid):
    dashboard = DASHBOARDS[uid]
    known = {one["name"]: one for one in dashboard["templating"]["list"]}
    texts = [target["query"] for panel in fields(dashboard) for target in panel["targets"]]
    notes = [one["target"]["query"] for one in dashboard["annotations"]["list"]]
    used = {found for text in texts + notes for found in VARIABLE.findall(text)}
    assert {name for name, _ in used} == set(known)
    assert {form for _, form in used} == {"regex"}, "else Grafana leaves some values unescaped"
    for place, one in enumerate(dashboard["templating"]["list"]):
        before = {earlier["name"] for earlier in dashboard["templating"]["list"][:place]}
        assert {name for name, _ in VARIABLE.findall(one["query"])} <= before
        if one["multi"]:
            assert (one["includeAll"], one["allValue"]) == (True, ".*")


def test_the_study_can_be_narrowed_by_all_that_makes_a_cell():
    choices = {one["name"] for one in DASHBOARDS[names.COMPARE]["templating"]["list"]}
    assert choices == {"campaign", "fleet", "device", "backend", "model", "quantization"}


def test_no_panel_of_a_comparison_mixes_two_cells():
    cell = {
        *("fleet", "device", "campaign_id", "backend"),
        *("model", "quantization", "options", "workload"),
    }
    for panel in fields(DASHBOARDS[names.COMPARE]):
        for target in panel["targets"]:
            grouped = target["query"].split(" GROUP BY ")[1]
            assert set(re.findall(r'"(\w+)"', grouped)) == cell, panel["title"]


def test_figures_leave_out_invalid_trials_and_warm_ups_and_mark_suspect_ones():
    for panel in fields(DASHBOARDS[names.COMPARE]):
        if panel["type"] != "bargauge":
            continue
        marks = [one["matcher"]["options"] for one in panel["fieldConfig"]["overrides"]]
        assert "/SUSPECT/" in marks
        assert any("SUSPECT" in target["alias"] for target in panel["targets"]), panel["title"]
        for target in panel["targets"]:
            if 'FROM "trial"' in target["query"]:
                assert '"warmup" = false' in target["query"]
                wanted = ("\"verdict\" != 'INVALID'", "\"verdict\" = 'SUSPECT'")
                assert any(one in target["query"] for one in wanted)


def test_links_lead_to_dashboards_and_variables_that_exist():
    found = set()
    for dashboard in DASHBOARDS.values():
        for uid, query in LINK.findall(json.dumps(dashboard)):
            found.add(uid)
            known = {one["name"] for one in DASHBOARDS[uid]["templating"]["list"]}
            assert set(re.findall(r"var-(\w+)=", query)) <= known, query
    assert found == {names.DEVICE, names.CAMPAIGN, names.COMPARE}
    for dashboard in DASHBOARDS.values():
        assert dashboard["tags"] == [names.TAG]
        assert [link["tags"] for link in dashboard["links"] if link["asDropdown"]] == [[names.TAG]]


def test_jobs_are_marked_on_the_graphs_of_a_device():
    (notes,) = DASHBOARDS[names.DEVICE]["annotations"]["list"]
    assert 'FROM "job"' in notes["target"]["query"]
    assert notes["target"]["tagsColumn"], "else Grafana takes every column for a tag"


def test_each_dashboard_opens_on_a_time_and_keeps_itself_fresh():
    for dashboard in DASHBOARDS.values():
        assert dashboard["time"]["to"] == "now"
        assert dashboard["refresh"] in ("30s", "1m")


def test_every_panel_can_be_drawn_without_grafana():
    listed = panels()
    assert {one.dashboard for one in listed} == {board.title for board in BOARDS}
    for one in listed:
        assert one.query.startswith("SELECT ")
        assert one.unit or one.kind == "table"
        filled = fill(one.query, {}, 0, 1)
        assert "$" not in filled.replace("$/", "/")


def test_what_is_chosen_is_escaped_as_grafana_escapes_it():
    text = '"model" =~ /^${model:regex}$/ AND $timeFilter GROUP BY time($__interval)'
    assert fill(text, {}, 1, 2) == (
        '"model" =~ /^.*$/ AND time >= 1ms and time <= 2ms GROUP BY time(10s)'
    )
    assert fill(text, {"model": "a/b (c)"}, 1, 2).startswith(r'"model" =~ /^a\/b \(c\)$/')
    assert fill(text, {"model": ["a.b", "c|d"]}, 1, 2).startswith(r'"model" =~ /^(a\.b|c\|d)$/')
    assert fill(text, {"model": ["1$"]}, 1, 2, "1m").endswith("time(1m)")


# --- alert rules ------------------------------------------------------------------------------


def test_there_is_a_rule_for_each_thing_worth_waking_up_for():
    assert [alert.title for alert in ALERTS] == [
        "Device silent",
        "Device throttled",
        "Outbox near its cap",
        "Dead letters",
        "Campaign failing",
    ]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.uid)
def test_a_rule_says_what_happened_what_to_do_and_where_to_look(alert):
    (rule,) = [one for one in group_for_file()["rules"] if one["uid"] == alert.uid]
    assert rule["annotations"]["summary"].endswith(".")
    assert len(rule["annotations"]["description"]) > 40
    labels = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert labels <= set(alert.query.by), "a label that the query does not group by is empty"
    (panel,) = [
        one for one in DASHBOARDS[alert.dashboard]["panels"] if one["id"] == rule["panelId"]
    ]
    assert panel["title"] == alert.panel
    assert rule["annotations"]["__panelId__"] == str(panel["id"])
    assert [step["refId"] for step in rule["data"]] == ["A", "B", "C"]
    assert rule["data"][2]["model"]["conditions"][0]["evaluator"]["params"] == [alert.above]


def test_only_a_silent_database_is_news_to_the_rule_about_silence():
    states = {one["uid"]: one["noDataState"] for one in group_for_file()["rules"]}
    assert states.pop("fleetmark-device-silent") == "NoData"
    assert set(states.values()) == {"OK"}
    assert {one["execErrState"] for one in group_for_file()["rules"]} == {"Error"}


def test_rules_are_the_same_in_a_file_and_through_the_api():
    def bare(rule):
        place = ("folderUID", "ruleGroup", "orgID", "dashboardUid", "panelId")
        return {key: value for key, value in rule.items() if key not in place}

    from_file = YAML(typ="safe").load(
        (ROOT / "deploy/grafana/provisioning/alerting/fleetmark.yaml").read_text("utf-8")
    )
    (group,) = from_file["groups"]
    assert list(map(bare, group["rules"])) == list(map(bare, group_for_api()["rules"]))
    assert group["interval"] == f"{group_for_api()['interval']}s"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rule: rule.update(condition="Z"),
        lambda rule: rule.update(noDataState="Fine"),
        lambda rule: rule.update({"for": "soon"}),
        lambda rule: rule["annotations"].pop("__panelId__"),
        lambda rule: rule["data"][0]["relativeTimeRange"].update({"from": 0}),
        lambda rule: rule.update(panelId=3),
    ],
)
def test_a_rule_that_grafana_would_not_take_is_not_taken_by_its_stand_in(spoil):
    rule = copy.deepcopy(group_for_api()["rules"][0])
    grafana = FakeGrafana(datasources={names.DATASOURCE_UID: {}})
    grafana._check_rule(rule, rule["folderUID"], rule["ruleGroup"])
    spoil(rule)
    with pytest.raises(Refused):
        grafana._check_rule(rule, rule["folderUID"], rule["ruleGroup"])


# --- secrets and libraries --------------------------------------------------------------------


@pytest.mark.parametrize("path", ["provisioning/datasources", "influxdb1"])
def test_files_hold_places_of_secrets_and_no_secret(path):
    text = (ROOT / "deploy/grafana" / path / "fleetmark.yaml").read_text("utf-8")
    (source,) = YAML(typ="safe").load(text)["datasources"]
    assert source["uid"] == names.DATASOURCE_UID
    assert source["jsonData"]["version"] == "InfluxQL"
    for value in source["secureJsonData"].values():
        assert re.fullmatch(r"(Token )?(\$__file\{/[\w./-]+\}|\$\{\w+\})", value)


def test_the_command_starts_without_grafanas_libraries():
    code = (
        "import sys, fleetmark_collector.cli.main, fleetmark_collector.cli.grafana; "
        "print([name for name in sys.modules if name.partition('.')[0] in "
        "('grafana_client', 'grafana_foundation_sdk', 'niquests', 'urllib3_future')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_grafanas_libraries_have_not_put_another_urllib3_in_the_place_of_urllib3():
    # urllib3-future does, unless it is installed as tools/setup.sh does it.
    assert urllib3.__version__ == importlib.metadata.version("urllib3")
