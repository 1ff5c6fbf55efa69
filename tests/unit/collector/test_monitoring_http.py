"""What the collector answers over HTTP, to probes, to Prometheus and to strangers."""

import http.client
import json
import socket
import time

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families

from fleetmark_collector.campaigns.tables import CampaignState
from fleetmark_collector.config import CollectorSettings, HttpSettings, load_settings
from fleetmark_collector.monitoring.exposition import Facts, make_registry
from fleetmark_collector.monitoring.health import Condition, body
from fleetmark_collector.monitoring.observations import Snapshot
from fleetmark_collector.monitoring.webserver import MAX_CONNECTIONS, WebServer
from fleetmark_collector.tally import Stats, Tally
from fleetmark_protocol.errors import ConfigError, StoreError
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.version import __version__
from servers import free_port, wait_for

WELL = Condition(True, "", None, Stats())


def has_ipv6_loopback():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


class Said:
    """What the server is told to say; a test may change it."""

    def __init__(self):
        self.condition = WELL
        tally = Tally()
        for took_s in (0.004, 0.2, 0.2, 60.0):
            tally.write(took_s)
        self.facts = Facts(
            Stats(
                messages=7,
                messages_dropped=1,
                messages_dead=2,
                messages_refused=6,
                records_written=50,
                records_dead=3,
                records_deferred=4,
                queue_messages=5,
                lag_s=0.5,
                store_available=False,
            ),
            tally.write_times(),
            True,
            Snapshot(3, 2, {CampaignState.RUNNING: 1}, {JobState.FAILED: 2}),
        )


@pytest.fixture
def said():
    return Said()


@pytest.fixture
def server(said):
    made = WebServer(
        ("127.0.0.1", free_port()), lambda: said.condition, make_registry(lambda: said.facts)
    )
    made.start()
    yield made
    made.stop()


def ask(server, path, method="GET", headers=None):
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


class TestHealth:
    def test_all_well_is_200_with_json(self, server):
        status, headers, text = ask(server, "/healthz")
        assert (status, headers["Content-Type"]) == (200, "application/json")
        assert json.loads(text) == {
            "status": "ok",
            "reasons": [],
            "broker_connected": True,
            "writer_alive": True,
            "store_available": True,
            "queue_messages": 0,
            "lag_s": 0.0,
            "version": __version__,
        }

    @pytest.mark.parametrize(
        ("condition", "part", "reason"),
        [
            (Condition(False, "", None, Stats()), "broker_connected", "broker: not connected yet"),
            (
                Condition(False, "broker lost: gone", None, Stats()),
                "broker_connected",
                "broker: broker lost: gone",
            ),
            (
                Condition(True, "", StoreError("damaged"), Stats()),
                "writer_alive",
                "writer: damaged",
            ),
            (
                Condition(True, "", None, Stats(store_available=False)),
                "store_available",
                "store: does not take records; they wait on their devices",
            ),
        ],
    )
    def test_each_thing_that_is_wrong_is_503_with_its_reason(
        self, server, said, condition, part, reason
    ):
        said.condition = condition
        status, _, text = ask(server, "/healthz?verbose")
        answer = json.loads(text)
        assert (status, answer["status"], answer["reasons"]) == (503, "unavailable", [reason])
        assert [name for name, value in answer.items() if value is False] == [part]

    def test_all_that_is_wrong_is_told(self):
        wrong = Condition(False, "x", StoreError("y"), Stats(store_available=False))
        assert len(body(wrong)["reasons"]) == 3

    def test_a_probe_that_asks_for_the_head_gets_the_status_alone(self, server):
        status, headers, text = ask(server, "/healthz", "HEAD")
        assert (status, text) == (200, b"")
        assert int(headers["Content-Length"]) > 0


def families(text):
    return {family.name: family for family in text_string_to_metric_families(text.decode())}


def value(families, name, **labels):
    for family in families.values():
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    raise AssertionError(f"no sample {name} {labels}")


class TestMetrics:
    def test_prometheus_s_own_parser_reads_what_is_counted(self, server):
        status, headers, text = ask(server, "/metrics")
        assert status == 200
        assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
        found = families(text)
        expected = {
            "fleetmark_messages_received_total": 7,
            "fleetmark_messages_dropped_total": 1,
            "fleetmark_records_written_total": 50,
            "fleetmark_records_deferred_total": 4,
            "fleetmark_messages_refused_total": 6,
            "fleetmark_queue_messages": 5,
            "fleetmark_ingest_lag_seconds": 0.5,
            "fleetmark_store_available": 0,
            "fleetmark_broker_connected": 1,
            "fleetmark_devices_known": 3,
            "fleetmark_devices_online": 2,
            "fleetmark_store_write_seconds_count": 4,
            "fleetmark_store_write_seconds_sum": 60.404,
        }
        for name, number in expected.items():
            assert value(found, name) == pytest.approx(number), name
        assert value(found, "fleetmark_dead_letters_total", kind="message") == 2
        assert value(found, "fleetmark_dead_letters_total", kind="record") == 3
        assert value(found, "fleetmark_campaigns", state="RUNNING") == 1
        assert value(found, "fleetmark_campaigns", state="FAILED") == 0
        assert value(found, "fleetmark_jobs", state="FAILED") == 2
        assert value(found, "fleetmark_build_info", version=__version__) == 1
        assert value(found, "process_resident_memory_bytes") > 1e6

    def test_the_histogram_s_buckets_are_cumulative_and_end_at_infinity(self, server):
        found = families(ask(server, "/metrics")[2])
        buckets = {
            sample.labels["le"]: sample.value
            for sample in found["fleetmark_store_write_seconds"].samples
            if sample.name.endswith("_bucket")
        }
        assert buckets["0.005"] == 1
        assert buckets["0.1"] == 1
        assert buckets["0.25"] == 3
        assert buckets["10.0"] == 3
        assert buckets["+Inf"] == 4

    def test_names_follow_prometheus_s_conventions(self, server):
        for name, family in families(ask(server, "/metrics")[2]).items():
            assert family.documentation, name
            assert family.type in ("counter", "gauge", "histogram"), name
            if name.startswith("fleetmark_"):
                assert not name.endswith(("_count", "_sum", "_total"))
                counters = [s for s in family.samples if family.type == "counter"]
                assert all(sample.name.endswith("_total") for sample in counters)

    def test_a_scraper_that_wants_openmetrics_gets_it(self, server):
        wanted = {"Accept": "application/openmetrics-text; version=1.0.0"}
        _, headers, text = ask(server, "/metrics", headers=wanted)
        assert headers["Content-Type"].startswith("application/openmetrics-text")
        assert "fleetmark_records_written" in {one.name for one in parse_openmetrics(text.decode())}

    @pytest.mark.parametrize(
        "accept", ["", "*/*", "text/plain; version=x", "application/openmetrics-text; version=1.x"]
    )
    def test_whatever_a_client_accepts_it_gets_an_answer(self, server, accept):
        status, _, text = ask(server, "/metrics", headers={"Accept": accept})
        assert status == 200
        assert b"fleetmark_records_written_total 50.0" in text

    def test_before_the_first_look_what_is_not_known_is_absent(self, server, said):
        said.facts = Facts(said.facts.stats, said.facts.write_times, False, None)
        found = families(ask(server, "/metrics")[2])
        assert value(found, "fleetmark_broker_connected") == 0
        assert "fleetmark_devices_known" not in found


class TestStrangers:
    @pytest.mark.parametrize("path", ["/", "/healthz/", "/../etc/passwd", "/metrics.txt"])
    def test_nothing_else_is_there(self, server, path):
        status, _, text = ask(server, path)
        assert status == 404
        assert b"/healthz" in text

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
    def test_nothing_can_be_done_but_looking(self, server, method):
        assert ask(server, "/metrics", method)[0] == 501

    def test_the_answer_does_not_say_what_it_is_made_with(self, server):
        assert ask(server, "/healthz")[1]["Server"].strip() == "fleetmark"

    def test_silent_connections_do_not_pile_up_nor_lock_others_out_for_good(self, server):
        host, port = server.url.removeprefix("http://").split(":")
        silent = [socket.create_connection((host, int(port))) for _ in range(MAX_CONNECTIONS)]
        try:
            time.sleep(0.1)
            with pytest.raises((http.client.HTTPException, OSError)):
                ask(server, "/healthz")
        finally:
            for one in silent:
                one.close()

        def answers():
            try:
                return ask(server, "/healthz")[0] == 200
            except (http.client.HTTPException, OSError):
                return False

        wait_for(answers, what="an answer")

    def test_bytes_that_are_no_request_end_one_connection_only(self, server, capsys):
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as odd:
            odd.sendall(b"\x00\xff" * 50 + b"\r\n\r\n")
            odd.recv(1000)
        assert ask(server, "/healthz")[0] == 200
        assert "request_failed" not in capsys.readouterr().err


class TestAddress:
    def test_a_busy_port_is_a_mistake_that_says_what_to_do(self, server):
        host, port = server.url.removeprefix("http://").split(":")
        with pytest.raises(ConfigError, match=r"http\.listen") as caught:
            WebServer((host, int(port)), lambda: WELL, make_registry(lambda: None))
        assert 'listen = ""' in caught.value.hint

    def test_an_address_of_another_machine_is_a_mistake(self):
        with pytest.raises(ConfigError, match=r"http\.listen"):
            WebServer(("192.0.2.1", free_port()), lambda: WELL, make_registry(lambda: None))

    @pytest.mark.skipif(not has_ipv6_loopback(), reason="this kernel has no IPv6")
    def test_it_listens_on_ipv6_too(self):
        server = WebServer(("::1", free_port()), lambda: WELL, make_registry(lambda: None))
        server.start()
        try:
            assert server.url.startswith("http://[::1]:")
            assert ask(server, "/healthz")[0] == 200
        finally:
            server.stop()

    @pytest.mark.parametrize(
        ("listen", "address"),
        [
            ("127.0.0.1:9108", ("127.0.0.1", 9108)),
            ("[::1]:80", ("::1", 80)),
            ("0.0.0.0:9108", ("0.0.0.0", 9108)),
            ("127.0.0.1:0", None),
            ("", None),
        ],
    )
    def test_an_address_is_read_or_turned_off(self, listen, address):
        assert HttpSettings(listen=listen).address == address

    @pytest.mark.parametrize(
        "listen", ["9108", ":9108", "localhost", "a:b", "h:70000", "u@h:1", "h:1/x", "::1:80"]
    )
    def test_what_is_no_address_is_refused_with_an_example(self, listen, monkeypatch):
        monkeypatch.setenv("FLEETMARK_HTTP__LISTEN", listen)
        with pytest.raises(ConfigError, match=r"FLEETMARK_HTTP__LISTEN: http.listen: not ADDRESS"):
            load_settings(None)

    def test_loopback_is_the_default_and_known_to_be_one(self):
        settings = CollectorSettings().http
        assert settings.address == ("127.0.0.1", 9108)
        assert settings.is_default
        assert not HttpSettings(listen="127.0.0.1:9108").is_default
