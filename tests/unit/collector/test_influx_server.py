"""Which server answers: told by what each of them really says on /ping."""

import socket
import threading

import pytest
from pydantic import SecretStr

from fakes.fake_influx import V1_PING, V2_PING, V3_PING, FakeInflux, Reply
from fleetmark_collector.config import InfluxSettings
from fleetmark_collector.sinks.influxdb.server import Server, detect
from fleetmark_protocol.errors import ConfigError, StoreUnavailable


def ping(version: str, build: str = "OSS") -> Reply:
    return Reply(headers={"X-Influxdb-Build": build, "X-Influxdb-Version": version})


@pytest.mark.parametrize(
    ("answer", "kind", "version"),
    [
        (ping("1.6.7~rc0"), "influxdb1", "1.6.7~rc0"),
        (ping("1.7.11"), "influxdb1", "1.7.11"),
        (ping("1.8.10"), "influxdb1_8", "1.8.10"),
        (ping("1.11.8"), "influxdb1_8", "1.11.8"),
        (ping("1.9.6-c1.9.6", "ENT"), "influxdb1_8", "1.9.6-c1.9.6"),
        (ping("2.0.9"), "influxdb2", "2.0.9"),
        (V2_PING, "influxdb2", "v2.7.11"),
        (V3_PING, "influxdb3", "3.9.6"),
        # The first releases of 3 Core send no header.
        (Reply(200, '{"version":"3.0.0","revision":"d2aaae4"}'), "influxdb3", "3.0.0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_influxdb_is_told_by_the_version_it_says(answer, kind, version):
    with FakeInflux({"/ping": answer}) as server:
        assert detect(InfluxSettings(server.url, "db")) == Server(kind, version)


@pytest.mark.parametrize(
    "answer",
    [Reply(headers={"X-Server-Hostname": "vm"}), ping("1.8.0")],
    ids=["as it is", "behind something that adds InfluxDB's header"],
)
def test_victoria_metrics_is_told_though_it_answers_ping_as_influxdb_does(answer):
    hostname = {"X-Server-Hostname": "vm"}
    metrics = 'flag{name="x"} 1\nvm_app_version{version="v-x", short_version="v1.120.0"} 1\n'
    with FakeInflux(
        {
            "/ping": Reply(headers={**answer.headers, **hostname}),
            "/-/healthy": Reply(200, "VictoriaMetrics is Healthy.\n", hostname),
            "/metrics": Reply(200, metrics, hostname),
        }
    ) as server:
        found = detect(InfluxSettings(server.url, "db"))
    assert found == Server("victoriametrics", "v1.120.0")
    assert str(found) == "VictoriaMetrics (v1.120.0)"
    assert not found.answers_influxql


def test_victoria_metrics_is_told_where_its_metrics_are_closed_to_us():
    with FakeInflux(
        {
            "/ping": Reply(),
            "/-/healthy": Reply(200, "VictoriaMetrics is Healthy.\n"),
            "/metrics": Reply(401, "The provided authKey doesn't match -metricsAuthKey"),
        }
    ) as server:
        assert detect(InfluxSettings(server.url, "db")) == Server("victoriametrics", "")


@pytest.mark.parametrize(
    "paths",
    [
        {"/ping": Reply(404, "404 page not found\n")},
        {"/ping": Reply(200, "<html>welcome</html>")},
        {"/ping": Reply(204)},
        {"/ping": ping("7.1.0")},
        {"/ping": Reply(301, "", {"Location": "https://elsewhere/ping"})},
    ],
    ids=["not found", "a page", "an empty yes", "an unknown version", "moved"],
)
def test_what_is_no_such_server_is_a_mistake_in_the_settings(paths):
    with FakeInflux(paths) as server, pytest.raises(ConfigError) as caught:
        detect(InfluxSettings(server.url, "db"))
    assert "store.url" in caught.value.hint
    assert ("https://elsewhere/ping" in str(caught.value)) == (paths["/ping"].status == 301)


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_asks_who_we_are_names_the_settings_for_it(status):
    with FakeInflux({"/ping": Reply(status)}) as server:
        with pytest.raises(ConfigError, match="not without a") as caught:
            detect(InfluxSettings(server.url, "db"))
        assert "store.token_file" in caught.value.hint
        with pytest.raises(ConfigError, match="not with this") as caught:
            detect(InfluxSettings(server.url, "db", token=SecretStr("sesame")))
        assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_that_cannot_answer_now_is_one_to_try_again(status):
    with FakeInflux({"/ping": Reply(status)}) as server, pytest.raises(StoreUnavailable):
        detect(InfluxSettings(server.url, "db"))


def test_nobody_there_is_something_to_try_again():
    with pytest.raises(StoreUnavailable, match="Connection refused"):
        detect(InfluxSettings("http://127.0.0.1:1", "db"))


def test_a_server_that_never_answers_is_given_up_in_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = InfluxSettings(
            f"http://127.0.0.1:{silent.getsockname()[1]}", "db", timeout_s=0.2
        )
        with pytest.raises(StoreUnavailable, match="no answer in time"):
            detect(settings)


def test_https_to_a_server_without_tls_is_a_mistake_in_the_settings():
    with FakeInflux({"/ping": V1_PING}) as server, pytest.raises(ConfigError, match="no TLS"):
        detect(InfluxSettings(server.url.replace("http:", "https:"), "db"))


def test_a_connection_that_breaks_is_something_to_try_again():
    with socket.create_server(("127.0.0.1", 0)) as rude:

        def hang_up() -> None:
            link, _ = rude.accept()
            link.recv(100)
            link.close()

        threading.Thread(target=hang_up, daemon=True).start()
        with pytest.raises(StoreUnavailable):
            detect(InfluxSettings(f"http://127.0.0.1:{rude.getsockname()[1]}", "db"))


@pytest.mark.parametrize(
    ("settings", "header"),
    [
        ({}, None),
        ({"token": SecretStr("sesame")}, "Token sesame"),
        ({"token": SecretStr("bob:pw")}, "Basic Ym9iOnB3"),
        ({"username": "bob", "password": SecretStr("pw")}, "Basic Ym9iOnB3"),
    ],
    ids=["nobody", "token", "user and password as a token", "user and password"],
)
def test_it_says_who_asks(settings, header):
    with FakeInflux({"/ping": V1_PING}) as server:
        detect(InfluxSettings(server.url, "db", **settings))
        assert server.asked[0].headers.get("authorization") == header
