"""The writer against a server that answers as real ones do where they cannot be run here."""

import threading
import time

import pytest
from pydantic import SecretStr

from collected import stored, telemetry
from fakes.fake_influx import V1_PING, V2_PING, V3_PING, Asked, FakeInflux, Reply
from fleetmark_collector.config import InfluxSettings
from fleetmark_collector.sinks.influxdb.writing import InfluxSink
from fleetmark_protocol.errors import ConfigError, PartialWrite, StoreUnavailable
from servers import free_port

TOO_LATE = telemetry().model_copy(update={"time_ns": 2**63 - 1})
"""A time that the wire takes and InfluxDB does not."""

V2_WRITE = "/api/v2/write"
V2_REFUSED = Reply(
    422,
    '{"code":"unprocessable entity","message":"failure writing points to database: partial write: '
    'points beyond retention policy dropped=1"}',
)


def items(count=4):
    return [stored(telemetry(n), seq=n) for n in range(1, count + 1)]


def refusing(word: bytes, reply: Reply):
    """Return an answer that refuses what holds a word, and takes the rest."""
    return lambda asked: reply if word in asked.body else Reply()


def sink(server: FakeInflux, **settings) -> InfluxSink:
    return InfluxSink(
        InfluxSettings(server.url, **{"bucket": "db/rp", "timeout_s": 5.0, **settings})
    )


def test_influxdb_before_1_8_is_written_to_directly():
    with FakeInflux({"/ping": V1_PING, "/write": Reply()}) as server:
        sink(server, username="bob", password=SecretStr("pw")).write(items(2))
        (asked,) = server.writes()
    assert asked.params == {"db": "db", "rp": "rp", "precision": "ns"}
    assert asked.headers["authorization"] == "Basic Ym9iOnB3"
    assert [line[:9] for line in asked.body.split(b"\n")] == [b"telemetry"] * 2


@pytest.mark.parametrize("ping", [V2_PING, V3_PING], ids=["2", "3"])
def test_later_ones_are_written_to_by_their_own_client(ping):
    with FakeInflux({"/ping": ping, V2_WRITE: Reply()}) as server:
        sink(server, org="lab", token=SecretStr("sesame")).write(items(2))
        (asked,) = server.writes()
    assert asked.params == {"bucket": "db/rp", "org": "lab", "precision": "ns"}
    assert asked.headers["authorization"] == "Token sesame"
    assert asked.headers["user-agent"].startswith("influxdb-client-python/")
    assert len(asked.body.split(b"\n")) == 2


@pytest.mark.parametrize(
    "paths",
    [{"/ping": V1_PING, "/write": Reply()}, {"/ping": V2_PING, V2_WRITE: Reply()}],
    ids=["1", "2"],
)
def test_lines_are_compressed_for_another_machine_only(paths, monkeypatch):
    with FakeInflux(paths) as server:
        sink(server).write(items())
        monkeypatch.setattr("fleetmark_collector.config.is_loopback", lambda host: False)
        sink(server).write(items())
        near, far = server.writes()
    assert "content-encoding" not in near.headers
    assert far.headers["content-encoding"] == "gzip"
    assert near.body == far.body
    assert int(far.headers["content-length"]) < int(near.headers["content-length"])


def test_nothing_is_sent_twice_by_the_client_itself():
    with FakeInflux({"/ping": V2_PING, V2_WRITE: Reply()}) as server:
        one = sink(server)
        one.connect()
        server.paths[V2_WRITE] = Reply(503, headers={"Retry-After": "3"})
        with pytest.raises(StoreUnavailable) as caught:
            one.write(items())
        assert len(server.writes()) == 1
    assert caught.value.retry_after_s == 3


def test_a_page_to_log_in_with_is_no_yes():
    page = Reply(200, "<html>log in</html>")
    with (
        FakeInflux({"/ping": V2_PING, V2_WRITE: page}) as server,
        pytest.raises(StoreUnavailable, match="answers 200"),
    ):
        sink(server).write(items())


@pytest.mark.parametrize(
    ("ping", "path", "reply", "bad"),
    [
        (V2_PING, V2_WRITE, V2_REFUSED, {2}),
        (V2_PING, V2_WRITE, Reply(400, '{"code":"invalid","message":"unable to parse"}'), {2}),
        (
            V3_PING,
            V2_WRITE,
            Reply(500, '{"code":"internal error","message":"partial write of line protocol"}'),
            {2},
        ),
        (V1_PING, "/write", Reply(400, '{"error":"partial write: odd dropped=1"}'), {2}),
    ],
    ids=["2 late", "2 parse", "3.9", "1"],
)
def test_a_bad_record_is_found_and_the_others_are_written(ping, path, reply, bad):
    with FakeInflux({"/ping": ping, path: refusing(b"seq=3i", reply)}) as server:
        with pytest.raises(PartialWrite) as caught:
            sink(server).write(items(8))
        assert caught.value.rejected.keys() == bad
        assert sorted(caught.value.accepted) == [0, 1, 3, 4, 5, 6, 7]
        taken = b"\n".join(one.body for one in server.writes() if b"seq=3i" not in one.body)
    assert all(b"seq=%di" % seq in taken for seq in (1, 2, 4, 5, 6, 7, 8))


def test_a_lonely_bad_record_is_rejected_once_the_server_took_a_line_beyond_reproach():
    with FakeInflux({"/ping": V2_PING, V2_WRITE: refusing(b"telemetry", V2_REFUSED)}) as server:
        with pytest.raises(PartialWrite) as caught:
            sink(server).write(items(1))
        assert b"fleetmark_probe" in server.writes()[-1].body
    assert "beyond retention policy" in caught.value.rejected[0]


def test_where_nothing_at_all_is_taken_the_records_are_not_to_blame():
    broken = Reply(400, "<html>Request Header Or Cookie Too Large</html>")
    with (
        FakeInflux({"/ping": V2_PING, V2_WRITE: broken}) as server,
        pytest.raises(StoreUnavailable, match=r"takes nothing at all.*Cookie"),
    ):
        sink(server).write(items())


def test_a_limit_of_the_server_rejects_no_record():
    full = Reply(400, '{"error":"partial write: max-series-per-database limit exceeded: (9)"}')
    with (
        FakeInflux({"/ping": V1_PING, "/write": refusing(b"seq=2i", full)}) as server,
        pytest.raises(PartialWrite, match="max-series-per-database") as caught,
    ):
        sink(server).write(items())
    assert caught.value.rejected == {}
    assert sorted(caught.value.accepted) == [0, 2, 3]


def test_a_record_that_makes_no_line_holds_nobody_back():
    batch = [*items(2), stored(TOO_LATE, seq=3)]
    with FakeInflux({"/ping": V1_PING, "/write": Reply()}) as server:
        with pytest.raises(PartialWrite) as caught:
            sink(server).write(batch)
        (asked,) = server.writes()
    assert caught.value.accepted == [0, 1]
    assert "time" in caught.value.rejected[2]
    assert len(asked.body.split(b"\n")) == 2


def test_where_no_record_makes_a_line_nothing_is_sent():
    with FakeInflux({"/ping": V1_PING, "/write": Reply()}) as server:
        with pytest.raises(PartialWrite):
            sink(server).write([stored(TOO_LATE)])
        assert server.writes() == []


@pytest.mark.parametrize(
    ("status", "body", "hint"),
    [
        (401, '{"code":"unauthorized","message":"unauthorized access"}', "token_file"),
        (404, '{"code":"not found","message":"bucket \\"db/rp\\" not found"}', "store.bucket"),
        (403, '{"code":"forbidden","message":"insufficient permissions for write"}', "token_file"),
    ],
)
def test_a_server_that_would_not_let_us_write_is_told_of_before_there_is_anything_to_write(
    status, body, hint
):
    with (
        FakeInflux({"/ping": V2_PING, V2_WRITE: Reply(status, body)}) as server,
        pytest.raises(ConfigError) as caught,
    ):
        sink(server, token=SecretStr("sesame")).connect()
    assert hint in caught.value.hint
    assert "sesame" not in str(caught.value)


def test_a_server_that_misses_points_in_nothing_lets_us_write():
    picky = Reply(400, '{"code":"invalid","message":"writing requires points"}')
    with FakeInflux({"/ping": V2_PING, V2_WRITE: picky}) as server:
        assert sink(server).connect().kind == "influxdb2"


def test_rights_that_are_taken_away_later_stop_the_next_write():
    with FakeInflux({"/ping": V2_PING, V2_WRITE: Reply()}) as server:
        one = sink(server)
        one.write(items())
        server.paths[V2_WRITE] = Reply(401, "")
        with pytest.raises(ConfigError):
            one.write(items())


def test_a_server_that_comes_later_than_the_collector_is_found_then(capsys):
    port = free_port()
    settings = InfluxSettings(f"http://127.0.0.1:{port}", "db")
    with pytest.raises(StoreUnavailable, match="Connection refused"):
        InfluxSink(settings).write(items())
    with FakeInflux({"/ping": V1_PING, "/write": Reply()}) as server:
        one = sink(server)
        one.write(items())
        one.write(items())
    log = capsys.readouterr().err
    assert log.count("store_found") == 1
    assert "InfluxDB 1 (1.6.7)" in log


def test_a_server_that_takes_a_write_and_says_nothing_gets_it_again():
    answered = threading.Event()

    def slow(asked: Asked) -> Reply:
        if asked.body:
            answered.wait(5)
        return Reply()

    with FakeInflux({"/ping": V2_PING, V2_WRITE: slow}) as server:
        with pytest.raises(StoreUnavailable, match="no answer in time"):
            sink(server, timeout_s=0.3).write(items())
        answered.set()


def test_many_threads_write_at_once_and_one_of_them_looks_for_the_server(capsys):
    with FakeInflux({"/ping": V1_PING, "/write": Reply()}) as server:
        one = sink(server)
        threads = [threading.Thread(target=one.write, args=(items(50),)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.writes()) == 6
    assert capsys.readouterr().err.count("store_found") == 1


def test_the_time_of_the_probe_is_now_so_that_no_retention_refuses_it():
    with FakeInflux({"/ping": V1_PING, "/write": refusing(b"telemetry", V2_REFUSED)}) as server:
        before_ns = time.time_ns()
        with pytest.raises(PartialWrite):
            sink(server).write(items(1))
        probe = server.writes()[-1].body
    assert before_ns <= int(probe.split()[-1]) <= time.time_ns()
