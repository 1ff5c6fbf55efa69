"""`fleetmark grafana push` against a stand-in for Grafana: what is made, mended, left alone."""

import json
import sys

import pytest

from fakes.fake_grafana import FakeGrafana
from fleetmark_collector.cli.main import main
from fleetmark_collector.grafana.catalogue import BOARDS
from servers import free_port

INFLUX_TOKEN = "a-token-of-influxdb"
DASHBOARDS = {board.uid for board in BOARDS}


@pytest.fixture
def grafana():
    with FakeGrafana() as server:
        yield server


@pytest.fixture
def push(tmp_path, monkeypatch, capsys):
    """Run the command; return exit code, output and errors."""
    (tmp_path / "token").write_text("good-token\n", "utf-8")
    (tmp_path / "influx").write_text(INFLUX_TOKEN, "utf-8")
    monkeypatch.delenv("FLEETMARK_CONFIG", raising=False)

    def run(url, *more, token="token", influxdb=True):
        arguments = ["grafana", "push", "--url", url, "--token-file", str(tmp_path / token)]
        if influxdb:
            arguments += ["--influxdb-url", "http://influxdb:8086", "--influxdb-database", "fm"]
            arguments += ["--influxdb-token-file", str(tmp_path / "influx")]
        monkeypatch.setattr(sys, "argv", ["fleetmark", *arguments, *map(str, more)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_an_empty_grafana_gets_folders_datasource_dashboards_and_rules(grafana, push):
    code, out, err = push(grafana.url)
    assert (code, err) == (0, "")
    assert set(grafana.dashboards) == DASHBOARDS
    assert {one["meta"]["folderUid"] for one in grafana.dashboards.values()} == {"fleetmark"}
    assert set(grafana.folders) == {"fleetmark", "fleetmark-alerts"}
    assert len(grafana.groups["fleetmark-alerts", "fleetmark"]["rules"]) == 5
    source = grafana.datasources["fleetmark-influxdb"]
    assert (source["url"], source["jsonData"]["dbName"]) == ("http://influxdb:8086", "fm")
    assert source["jsonData"]["version"] == "InfluxQL"
    assert out.count(": created") == 2 + 1 + len(BOARDS) + 1


def test_a_second_push_changes_nothing_and_says_so(grafana, push):
    push(grafana.url)
    before = len(grafana.writes)
    code, out, _ = push(grafana.url)
    assert code == 0
    assert len(grafana.writes) == before
    assert "created" not in out
    assert "updated" not in out
    assert out.count(": unchanged") == 2 + 1 + len(BOARDS) + 1


def test_a_dry_run_sends_nothing_that_changes_and_tells_what_would_be(grafana, push):
    code, out, _ = push(grafana.url, "--dry-run")
    assert (code, grafana.writes) == (0, [])
    assert out.count("would be created") == 2 + 1 + len(BOARDS) + 1
    push(grafana.url)
    grafana.dashboards["fleetmark-fleet"]["dashboard"]["panels"][1]["title"] = "Mine"
    before = len(grafana.writes)
    code, out, _ = push(grafana.url, "--dry-run")
    assert (code, len(grafana.writes)) == (0, before)
    assert "dashboard Fleet: would be updated\n  panels[1].title\n" in out
    assert out.count("unchanged") == 2 + 1 + len(BOARDS)


def test_what_was_changed_in_grafana_is_mended_alone(grafana, push):
    push(grafana.url)
    grafana.dashboards["fleetmark-device"]["dashboard"]["refresh"] = "1h"
    grafana.folders["fleetmark"]["title"] = "Renamed"
    group = grafana.groups["fleetmark-alerts", "fleetmark"]
    group["rules"][0]["for"] = "3h"
    grafana.datasources["fleetmark-influxdb"]["url"] = "http://elsewhere:8086"
    before = len(grafana.writes)
    code, out, _ = push(grafana.url)
    assert code == 0
    assert grafana.writes[before:] == [
        "PUT /api/folders/fleetmark",
        "PUT /api/datasources/uid/fleetmark-influxdb",
        "POST /api/dashboards/db",
        "PUT /api/v1/provisioning/folder/fleetmark-alerts/rule-groups/fleetmark",
    ]
    assert out.count(": updated") == 4
    assert push(grafana.url)[1].count("unchanged") == 2 + 1 + len(BOARDS) + 1


def test_a_dashboard_that_was_moved_is_put_back_into_its_folder(grafana, push):
    push(grafana.url)
    grafana.dashboards["fleetmark-fleet"]["meta"]["folderUid"] = ""
    assert "dashboard Fleet: updated" in push(grafana.url)[1]
    assert grafana.dashboards["fleetmark-fleet"]["meta"]["folderUid"] == "fleetmark"


def test_a_rule_too_many_in_our_group_is_a_difference(grafana, push):
    push(grafana.url)
    group = grafana.groups["fleetmark-alerts", "fleetmark"]
    group["rules"].insert(0, {**group["rules"][0], "uid": "another"})
    assert "alert rules fleetmark: updated" in push(grafana.url)[1]
    assert len(grafana.groups["fleetmark-alerts", "fleetmark"]["rules"]) == 5


def test_what_a_newer_grafana_adds_to_a_dashboard_is_no_difference(grafana, push):
    push(grafana.url)
    kept = grafana.dashboards["fleetmark-fleet"]["dashboard"]
    kept.update(schemaVersion=42, somethingNew=True)
    kept["panels"][1]["pluginVersion"] = "12.4.3"
    assert "dashboard Fleet: unchanged" in push(grafana.url)[1]


def test_somebody_who_saves_at_the_same_time_is_not_overwritten_unseen(grafana, push):
    push(grafana.url)
    kept = grafana.dashboards["fleetmark-fleet"]["dashboard"]
    kept["title"] = "Theirs"

    def saves():
        kept["version"] += 1

    grafana.before_save = saves
    code, _, err = push(grafana.url)
    assert code == 1
    assert "412" in err
    assert "push again" in err
    assert grafana.dashboards["fleetmark-fleet"]["dashboard"]["title"] == "Theirs"


def test_secrets_go_into_secure_fields_and_nowhere_else(grafana, push):
    code, out, err = push(grafana.url)
    assert code == 0
    assert grafana.secrets["fleetmark-influxdb"] == {"httpHeaderValue1": f"Token {INFLUX_TOKEN}"}
    for request in grafana.requests:
        body = request.body if isinstance(request.body, dict) else {}
        shown = {key: value for key, value in body.items() if key != "secureJsonData"}
        assert INFLUX_TOKEN not in json.dumps(shown)
        assert "token" not in request.path
    for secret in (INFLUX_TOKEN, "good-token"):
        assert secret not in out + err


def test_a_changed_secret_is_sent_when_the_old_one_fails(grafana, push, tmp_path):
    push(grafana.url)
    (tmp_path / "influx").write_text("rotated", "utf-8")
    grafana.health_problem = lambda kept: (
        "" if kept["httpHeaderValue1"] == "Token rotated" else "unauthorized"
    )
    code, out, _ = push(grafana.url)
    assert code == 0
    assert "datasource fleetmark InfluxDB: updated" in out
    assert grafana.secrets["fleetmark-influxdb"] == {"httpHeaderValue1": "Token rotated"}


def test_a_datasource_that_grafana_cannot_ask_is_told_at_the_end(grafana, push):
    grafana.health_problem = lambda kept: "connection refused"
    code, out, err = push(grafana.url)
    assert code == 1
    assert "cannot ask InfluxDB: connection refused" in err
    assert set(grafana.dashboards) == DASHBOARDS
    assert "created" in out


def test_user_and_password_of_influxdb_1_are_pushed_too(grafana, push, tmp_path):
    (tmp_path / "password").write_text("pw", "utf-8")
    code, _, _ = push(
        grafana.url,
        *("--influxdb-url", "http://influxdb:8086", "--influxdb-database", "fm"),
        *("--influxdb-username", "reader", "--influxdb-password-file", tmp_path / "password"),
        influxdb=False,
    )
    assert code == 0
    assert grafana.datasources["fleetmark-influxdb"]["user"] == "reader"
    assert "httpHeaderName1" not in grafana.datasources["fleetmark-influxdb"]["jsonData"]
    assert grafana.secrets["fleetmark-influxdb"] == {"password": "pw"}


def test_the_collectors_settings_say_where_influxdb_is(grafana, push, tmp_path):
    config = tmp_path / "collector.toml"
    config.write_text('[store]\nkind = "influxdb"\nbucket = "db"\n', "utf-8")
    code, _, _ = push(grafana.url, "--config", config, influxdb=False)
    assert code == 0
    source = grafana.datasources["fleetmark-influxdb"]
    assert (source["url"], source["jsonData"]["dbName"]) == ("http://127.0.0.1:8086", "db")
    assert grafana.secrets["fleetmark-influxdb"] == {}


def test_without_any_influxdb_it_says_what_to_name(grafana, push):
    code, _, err = push(grafana.url, influxdb=False)
    assert (code, grafana.requests) == (2, [])
    assert "--no-datasource" in err


def test_the_datasource_is_left_alone_where_that_is_wanted(grafana, push):
    push(grafana.url)
    before = dict(grafana.datasources["fleetmark-influxdb"])
    code, out, _ = push(grafana.url, "--no-datasource", influxdb=False)
    assert code == 0
    assert "datasource" not in out
    assert grafana.datasources["fleetmark-influxdb"] == before


def test_a_grafana_under_a_path_is_found(push):
    with FakeGrafana(prefix="/tools/grafana") as grafana:
        assert push(grafana.url)[0] == 0
        assert push(grafana.url + "/")[0] == 0
        assert set(grafana.dashboards) == DASHBOARDS


def test_a_token_that_nobody_knows_is_the_users_mistake(grafana, push, tmp_path):
    (tmp_path / "wrong").write_text("nonsense", "utf-8")
    code, _, err = push(grafana.url, token="wrong")
    assert (code, grafana.writes) == (2, [])
    assert "does not take the token (401 Invalid API key)" in err
    assert "nonsense" not in err
    assert "Traceback" not in err


def test_a_token_that_may_too_little_is_told_which_role_it_takes(push, tmp_path):
    (tmp_path / "editor").write_text("editor", "utf-8")
    with FakeGrafana(tokens={"editor": "Editor"}) as grafana:
        code, _, err = push(grafana.url, token="editor")
    assert code == 2
    assert "403" in err
    assert "Admin" in err


def test_a_grafana_that_is_too_old_gets_nothing(push):
    with FakeGrafana(version="10.4.2") as grafana:
        code, _, err = push(grafana.url)
        assert (code, grafana.writes) == (2, [])
    assert "Grafana 10.4.2" in err
    assert "11.6" in err


def test_a_server_that_nobody_runs_cannot_be_reached(push):
    code, _, err = push(f"http://127.0.0.1:{free_port()}")
    assert code == 1
    assert "cannot be reached" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("answer", ["<html>hello</html>", {"message": "no such page"}])
def test_a_server_that_is_no_grafana_is_called_so(grafana, push, answer):
    grafana.failures["GET", "/api/health"] = [(404 if isinstance(answer, dict) else 200, answer)]
    code, _, err = push(grafana.url)
    assert code == 2
    assert "not as a Grafana" in err


def test_an_error_of_the_server_is_handed_on_with_what_was_about_to_happen(grafana, push):
    grafana.failures["POST", "/api/dashboards/db"] = [(500, {"message": "database is locked"})]
    code, out, err = push(grafana.url)
    assert code == 1
    assert "dashboard Fleet: Grafana says 500" in err
    assert "database is locked" in err
    assert "folder fleetmark: created" in out, "what came before is done"
    assert push(grafana.url)[0] == 0, "and the next push goes on"


def test_a_datasource_of_the_same_name_is_not_taken_over(grafana, push):
    push(grafana.url)
    source = grafana.datasources.pop("fleetmark-influxdb")
    grafana.datasources["other"] = {**source, "uid": "other"}
    grafana.secrets["other"] = {}
    code, _, err = push(grafana.url)
    assert code == 1
    assert "409" in err


def test_what_files_provision_is_left_alone_while_equal_and_named_when_not(grafana, push):
    push(grafana.url)
    grafana.dashboards["fleetmark-fleet"]["meta"]["provisioned"] = True
    grafana.datasources["fleetmark-influxdb"]["readOnly"] = True
    assert push(grafana.url)[0] == 0
    grafana.datasources["fleetmark-influxdb"]["url"] = "http://elsewhere:8086"
    code, _, err = push(grafana.url)
    assert code == 2
    assert "read-only" in err
    assert "files provision" in err


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://grafana.example:3000", "in clear"),
        ("grafana:3000", "not an address"),
        ("ftp://127.0.0.1", "not an address"),
        ("http://admin:pw@127.0.0.1:3000", "without user, password"),
        ("http://127.0.0.1:99999", "not an address"),
    ],
)
def test_an_address_that_cannot_be_right_is_refused_before_anything_is_sent(push, url, words):
    code, _, err = push(url)
    assert code == 2
    assert words in err


@pytest.mark.parametrize("content", ["", "two\nlines", None])
def test_a_token_file_without_one_token_is_refused(grafana, push, tmp_path, content):
    if content is not None:
        (tmp_path / "bad").write_text(content, "utf-8")
    code, _, err = push(grafana.url, token="bad")
    assert (code, grafana.requests) == (2, [])
    assert "--token-file" in err
