"""Every query of every panel, variable, note and rule, asked of a real database full of records."""

import json
import math
import time

import pytest

from fleetmark_collector.grafana.alerts import ALERTS, rule
from fleetmark_collector.grafana.board import to_json
from fleetmark_collector.grafana.catalogue import BOARDS, panels
from fleetmark_collector.grafana.interpolate import fill
from fleetmark_collector.sinks.base import Point
from fleetmark_collector.sinks.influxdb.lines import point_line
from grafanakindsmeaning import MEANING_OF_KINDS
from grafanameaning import MEANING as MEANING_OF_CELLS
from grafanameaning import VARIABLE, points
from grafanaworld import BENCH, EC2, FLEET, PI, World, make_world
from influxservers import ask

pytestmark = pytest.mark.integration

LISTED = panels()
MEANING = MEANING_OF_CELLS | MEANING_OF_KINDS
ON_BENCH = {
    *("Power", "Swap", "Warnings and errors", "Temperature", "Frequency", "Throttling"),
    *("Connection", "Agent", "Board", "Outbox used"),
}
"""Panels of a device that only the one with meters has something, or enough, for."""


@pytest.fixture(scope="module")
def world(tmp_path_factory, influxd_server) -> World:
    return make_world(tmp_path_factory.mktemp("grafana"), influxd_server)


def chosen(world, one):
    """What stands above the dashboard; what is not here stands at "All"."""
    if one.dashboard == "Device":
        return {"fleet": FLEET, "device": BENCH if one.panel in ON_BENCH else PI}
    if one.dashboard == "Campaign":
        return {"campaign": world.failed_id if one.panel == "Failures" else world.campaign_id}
    return {"campaign": world.campaign_id} if one.dashboard == "Compare" else {}


def answer(world, one, choice):
    """Ask as Grafana does, and read the answer into the form of `grafanameaning`."""
    text = fill(one.query, choice, world.start_ms, world.end_ms)
    result = world.database.query(text, epoch="ms")["results"][0]
    assert "error" not in result, (result, text)
    series = result.get("series", [])
    if "LIMIT" in text:
        rows = [
            dict(zip(part["columns"], row, strict=True))
            for part in series
            for row in part["values"]
        ]
        return [
            {name: value for name, value in row.items() if value not in (None, "")} for row in rows
        ]
    return {
        frozenset(part.get("tags", {}).items()): _columns(
            part, windowed=text.endswith("fill(none)")
        )
        for part in series
    }


def _columns(part, windowed):
    at = part["columns"].index("time")
    found = {}
    for place, name in enumerate(part["columns"]):
        some = {row[at]: row[place] for row in part["values"] if row[place] is not None}
        if place != at and some:
            found[name] = some if windowed else next(iter(some.values()))
    return found


def same(one, other):
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float | int) and isinstance(other, float | int):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    return one == other


def test_every_panel_has_a_meaning_and_every_meaning_a_panel():
    assert {(one.dashboard, one.panel) for one in LISTED} == MEANING.keys()


@pytest.mark.parametrize("one", LISTED, ids=lambda one: f"{one.dashboard}-{one.panel}-{one.ref_id}")
def test_a_panel_shows_what_its_title_says(world, one):
    choice = chosen(world, one)
    promise = MEANING[one.dashboard, one.panel]["ABCDEFGHIJ".index(one.ref_id)]
    expected = promise(world, choice)
    assert expected, "the records hold nothing that would be shown here"
    found = answer(world, one, choice)
    if isinstance(expected, list):
        expected, found = _sorted(expected), _sorted(found)
    assert same(found, expected), f"\nfound    {found}\nexpected {expected}"


def _sorted(rows):
    """Points of the same time come in any order, and lists are JSON in the database."""
    flat = [
        {
            name: json.dumps(v, separators=(",", ":")) if isinstance(v, list | tuple) else v
            for name, v in row.items()
        }
        for row in rows
    ]
    return sorted(flat, key=lambda row: (-row["time"], json.dumps(row, sort_keys=True)))


@pytest.mark.parametrize(
    "choice",
    [
        {"device": EC2},
        {"device": BENCH, "model": "smollm2 (135M) 1/2"},
        {"backend": "engine-rapl", "quantization": "Q4_1", "fleet": FLEET},
    ],
    ids=str,
)
@pytest.mark.parametrize("panel", ["Cells", "Single-prompt response time", "Model load"])
def test_a_choice_narrows_a_comparison_whatever_the_value_looks_like(world, choice, panel):
    for one in LISTED:
        if (one.dashboard, one.panel) != ("Compare", panel):
            continue
        promise = MEANING["Compare", panel]["ABCD".index(one.ref_id)]
        everything = promise(world, {"campaign": world.campaign_id})
        wanted = {
            tags: columns for tags, columns in everything.items() if set(choice.items()) <= tags
        }
        found = answer(world, one, {"campaign": world.campaign_id, **choice})
        assert same(found, wanted), (one.ref_id, found)


def test_several_values_can_be_chosen(world):
    (one,) = [x for x in LISTED if (x.dashboard, x.panel) == ("Fleet", "Devices online")]
    each = [answer(world, one, {"device": name}) for name in (PI, EC2)]
    together = answer(world, one, {"device": [PI, EC2]})
    assert together[frozenset()]["online"] == sum(x[frozenset()]["online"] for x in each) == 1


def test_what_no_device_has_is_an_empty_panel_and_no_error(world):
    (one,) = [x for x in LISTED if (x.dashboard, x.panel) == ("Device", "Power")]
    assert answer(world, one, {"fleet": FLEET, "device": EC2}) == {}


def test_cells_of_two_options_never_share_a_bar(world):
    (one,) = [x for x in LISTED if (x.panel, x.ref_id) == ("Single-prompt response time", "A")]
    options = {dict(tags)["options"] for tags in answer(world, one, chosen(world, one))}
    assert options == {"context_tokens=256 threads=1", "note=a.b*c threads=4"}


# --- variables and notes ----------------------------------------------------------------------

DASHBOARDS = {board.title: to_json(board) for board in BOARDS}


@pytest.mark.parametrize(
    ("dashboard", "name"),
    [
        (title, variable["name"])
        for title, board in DASHBOARDS.items()
        for variable in board["templating"]["list"]
    ],
)
def test_a_variable_offers_what_there_is_to_choose(world, dashboard, name):
    (variable,) = [x for x in DASHBOARDS[dashboard]["templating"]["list"] if x["name"] == name]
    in_campaign = dashboard in ("Compare", "Campaign") and name != "campaign"
    choice = {"campaign": world.campaign_id} if in_campaign else {}
    measurement = {"Collector": "collector"}.get(dashboard, "trial" if in_campaign else "device")
    if name == "campaign":
        measurement = "campaign"
    tag = VARIABLE.get(name, name)
    expected = {one.tags[tag] for one in points(world, measurement, choice)}
    rows = world.database.rows(fill(variable["query"], choice, world.start_ms, world.end_ms))
    found = {row["value"] for row in rows}
    assert found == expected
    assert found


def test_jobs_are_notes_at_the_time_their_state_changed(world):
    (notes,) = DASHBOARDS["Device"]["annotations"]["list"]
    target = notes["target"]
    choice = {"fleet": FLEET, "device": PI}
    text = fill(target["query"], choice, world.start_ms, world.end_ms)
    found = {
        (row["time"], row[target["textColumn"]], row[target["tagsColumn"]])
        for row in world.database.rows(text, epoch="ms")
    }
    expected = {
        (one.time_ns // 10**6, one.fields["job_id"], one.fields["state"])
        for one in points(world, "job", choice)
    }
    assert found == expected
    assert {state for _, _, state in found} == {"IN_PROGRESS", "SUCCEEDED", "FAILED"}


# --- alert rules ------------------------------------------------------------------------------


def evaluate(database, alert, now_ms):
    """Evaluate a rendered rule as Grafana does: query, reduce, threshold; return who fires."""
    query, reduce, threshold = rule(alert)["data"]
    window = query["relativeTimeRange"]
    text = fill(query["model"]["query"], {}, now_ms - 1000 * window["from"], now_ms)
    result = database.query(text, epoch="ms")["results"][0]
    assert "error" not in result, (result, text)
    reducer = {"last": lambda some: some[-1], "max": max}[reduce["model"]["reducer"]]
    (limit,) = threshold["model"]["conditions"][0]["evaluator"]["params"]
    firing = {}
    for part in result.get("series", []):
        (column,) = [name for name in part["columns"] if name != "time"]
        place = part["columns"].index(column)
        some = [row[place] for row in part["values"] if row[place] is not None]
        if some and reducer(some) > limit:
            firing[tuple(part["tags"].values())] = reducer(some)
    return firing


def device_points(name, now_ns, **fields):
    return Point("telemetry", {"fleet": "lab", "device": name}, fields, now_ns)


def troubles(now_ns):
    """Measurement for measurement somebody who is well and somebody who is not."""
    s = 10**9
    yield Point("device", {"fleet": "lab", "device": "well"}, {"silent_s": 3.0}, now_ns)
    yield Point("device", {"fleet": "lab", "device": "new"}, {"online": 0}, now_ns)
    yield Point("device", {"fleet": "lab", "device": "ill"}, {"silent_s": 12.0}, now_ns - 60 * s)
    yield Point("device", {"fleet": "lab", "device": "ill"}, {"silent_s": 400.0}, now_ns)
    yield device_points("well", now_ns, throttled=0, outbox_used_percent=79.0)
    yield device_points("ill", now_ns - 200 * s, throttled=1, outbox_used_percent=2.0)
    yield device_points("ill", now_ns, throttled=0, outbox_used_percent=81.5)
    yield device_points("was-ill", now_ns - 4000 * s, throttled=1, outbox_used_percent=99.0)
    for host, numbers in (("well", (5, 5, 5)), ("ill", (5, 6, 8)), ("begun-again", (5, 5, 0))):
        for place, number in enumerate(numbers):
            fields = {"records_dead": number, "messages_dead": 0}
            yield Point("collector", {"collector": host}, fields, now_ns - (100 - 40 * place) * s)
    yield Point(
        "collector",
        {"collector": "garbled"},
        {"records_dead": 0, "messages_dead": 0},
        now_ns - 60 * s,
    )
    yield Point(
        "collector", {"collector": "garbled"}, {"records_dead": 0, "messages_dead": 1}, now_ns
    )
    yield Point("campaign", {"campaign_id": "well"}, {"failed_percent": 9.0}, now_ns)
    yield Point("campaign", {"campaign_id": "ill"}, {"failed_percent": 40.0}, now_ns)
    yield Point("campaign", {"campaign_id": "over"}, {"failed_percent": 40.0}, now_ns - 4000 * s)


FIRES = {
    "fleetmark-device-silent": {("ill", "lab"): 400},
    "fleetmark-device-throttled": {("ill", "lab"): 1},
    "fleetmark-outbox-near-cap": {("ill", "lab"): 81.5},
    "fleetmark-dead-letters": {("ill",): 3, ("garbled",): 1},
    "fleetmark-campaign-failing": {("ill",): 40},
}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.uid)
def test_a_rule_fires_for_who_is_not_well_and_for_nobody_else(influxd, alert):
    now_ns = time.time_ns()
    body = b"\n".join(map(point_line, troubles(now_ns)))
    assert ask(influxd.url, "/write", {"db": influxd.name}, body).status == 204
    assert evaluate(influxd, alert, now_ns // 10**6 + 1) == FIRES[alert.uid]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.uid)
def test_a_rule_that_finds_nothing_finds_no_error(influxd, alert):
    assert evaluate(influxd, alert, time.time_ns() // 10**6) == {}
