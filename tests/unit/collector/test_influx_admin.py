"""What is made on a server, and what is said about it, where the server cannot be had here."""

import time

import pytest
from pydantic import SecretStr

from fakes.fake_influx import FakeInflux, Reply
from fakes.fake_influx_admin import FakeInflux2, FakeInflux3, probe_found
from fleetmark_collector.config import InfluxSettings
from fleetmark_collector.sinks.influxdb.admin import examine, prepare
from fleetmark_protocol.errors import ConfigError, StoreUnavailable

DAY_S = 24 * 3600


def settings(server: FakeInflux, bucket: str = "fm", token: str = "right", **more):
    return InfluxSettings(server.url, bucket, token=SecretStr(token), **{"org": "lab", **more})


def changed(server: FakeInflux) -> list[str]:
    """Method and path of what changed something."""
    return [f"{one.method} {one.path}" for one in server.asked if one.method != "GET"]


def found(settings) -> dict[str, tuple[str, str]]:
    return {one.name: (one.level, one.text) for one in examine(settings)}


def test_on_influxdb_2_bucket_and_mapping_are_made_once():
    fake = FakeInflux2()
    with fake.server() as server:
        first = list(prepare(settings(server), None))
        assert changed(server) == ["POST /api/v2/buckets", "POST /api/v2/dbrps"]
        second = list(prepare(settings(server), None))
        assert len(changed(server)) == 2
    assert first == [
        f"{server.url} is InfluxDB 2 (v2.7.11)",
        "made the bucket fm: records are kept for ever",
        "made the mapping by which InfluxQL finds it: database fm, retention policy autogen",
    ]
    assert second[1:] == [
        "the bucket fm is there: records are kept for ever",
        "InfluxQL finds it: database fm, retention policy autogen",
    ]


def test_on_influxdb_2_a_mapping_that_the_server_made_itself_is_enough():
    fake = FakeInflux2(virtual=True)
    with fake.server() as server:
        list(prepare(settings(server), None))
        assert changed(server) == ["POST /api/v2/buckets"]


def test_on_influxdb_2_a_slash_names_database_and_retention_policy():
    fake = FakeInflux2()
    with fake.server() as server:
        list(prepare(settings(server, "fm/year"), 365 * DAY_S))
    assert list(fake.buckets) == ["fm/year"]
    assert fake.buckets["fm/year"]["retentionRules"] == [
        {"type": "expire", "everySeconds": 365 * DAY_S}
    ]
    (mapping,) = fake.mappings
    assert (mapping["database"], mapping["retention_policy"]) == ("fm", "year")


def test_on_influxdb_2_retention_is_changed_only_when_it_is_asked_for():
    fake = FakeInflux2()
    with fake.server() as server:
        list(prepare(settings(server), 90 * DAY_S))
        kept = list(prepare(settings(server), None))
        set_anew = list(prepare(settings(server), 30 * DAY_S))
        for_ever = list(prepare(settings(server), 0))
    assert kept[1] == "the bucket fm is there: records are kept for 90 days"
    assert set_anew[1] == "set the bucket fm: records are kept for 30 days"
    assert for_ever[1] == "set the bucket fm: records are kept for ever"
    assert fake.buckets["fm"]["retentionRules"] == [{"type": "expire", "everySeconds": 0}]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"token": "wrong"}, "the token may not see buckets"),
        ({"org": "nobody"}, "no organization 'nobody'"),
    ],
)
def test_on_influxdb_2_a_wrong_token_or_organization_is_the_user_s_mistake(changes, text):
    with FakeInflux2().server() as server, pytest.raises(ConfigError, match=text) as caught:
        list(prepare(settings(server, **changes), None))
    assert "wrong" not in str(caught.value)
    assert caught.value.hint


def test_a_check_of_influxdb_2_says_what_is_missing_and_then_that_all_is_well():
    fake = FakeInflux2()
    with fake.server() as server:
        before = found(settings(server))
        list(prepare(settings(server), None))
        fake.mappings.clear()
        between = found(settings(server))
        list(prepare(settings(server), None))
        after = found(settings(server))
    assert before["server"] == ("ok", f"InfluxDB 2 (v2.7.11) at {server.url}")
    assert before["database"][0] == before["write"][0] == "missing"
    assert between["database"] == ("ok", "bucket fm")
    assert between["mapping"][0] == "missing"
    assert between["read"][0] == "missing"
    assert {level for level, _ in after.values()} == {"ok"}
    assert {"database", "retention", "mapping", "write", "read"} <= set(after)


@pytest.mark.parametrize("plain", [True, False])
def test_on_influxdb_3_the_database_is_made_once_and_checked(plain):
    fake = FakeInflux3(plain=plain)
    with fake.server() as server:
        assert found(settings(server))["database"][0] == "missing"
        first = list(prepare(settings(server), 30 * DAY_S))
        second = list(prepare(settings(server), None))
        third = list(prepare(settings(server), 90 * DAY_S))
        assert found(settings(server))["database"] == ("ok", "fm")
    assert fake.databases == {"fm": "720h"}
    assert first[1] == "made the database fm: records are kept for 30 days"
    assert second[1:] == ["the database fm is there"]
    assert "is not changed" in third[2]


def test_on_victoriametrics_there_is_nothing_to_make_and_the_check_says_what_it_is_not():
    paths = {"/ping": Reply(), "/-/healthy": Reply(200, "VictoriaMetrics is Healthy")}
    with FakeInflux({**paths, "/metrics": Reply(200, ""), "/api/v2/write": Reply()}) as server:
        assert "nothing to make" in list(prepare(settings(server), None))[1]
        checked = found(settings(server))
    assert checked["database"][0] == "warn"
    assert checked["write"][0] == "ok"
    assert "read" not in checked


@pytest.mark.parametrize("ahead_s", [-600, 0, 600])
def test_clocks_that_differ_are_a_warning(ahead_s):
    with FakeInflux3(databases={"fm": ""}).server() as server:
        here = lambda: time.time_ns() - ahead_s * 10**9  # noqa: E731
        (clock,) = [one for one in examine(settings(server), here) if one.name == "clock"]
    assert clock.level == ("warn" if ahead_s else "ok")
    if ahead_s:
        assert ("ahead of" if ahead_s > 0 else "behind") in clock.text


def test_a_point_that_is_not_found_again_is_missing():
    fake = FakeInflux3(databases={"fm": ""})
    with fake.server() as server:
        server.paths["/query"] = Reply(200, '{"results":[{}]}')
        assert found(settings(server))["read"][0] == "missing"
        server.paths["/query"] = probe_found
        assert found(settings(server))["read"][0] == "ok"


def test_a_server_that_does_not_answer_is_one_finding():
    nobody = InfluxSettings("http://127.0.0.1:1", "fm")
    (only,) = examine(nobody)
    assert (only.name, only.level) == ("server", "missing")
    assert only.todo
    with pytest.raises(StoreUnavailable):
        list(prepare(nobody, None))
