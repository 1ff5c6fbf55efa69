"""Questions in InfluxQL: what is asked, what an answer means, and what the lack of one means."""

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pydantic import SecretStr

from fakes.fake_influx import V1_PING, FakeInflux, Reply
from fleetmark_collector.config import InfluxSettings
from fleetmark_collector.sinks.influxdb.query import InfluxQL, identifier, literal
from fleetmark_collector.sinks.influxdb.reader import InfluxReader
from fleetmark_protocol.errors import ConfigError, StoreError, StoreUnavailable


def answer(*results: dict) -> str:
    return json.dumps({"results": list(results)}) + "\n"


def series(values: list[list], columns: tuple[str, ...] = ("time", "n"), **more) -> dict:
    return {"series": [{"name": "m", "columns": list(columns), "values": values, **more}]}


@contextmanager
def asking(reply: Reply, **settings) -> Iterator[tuple[InfluxQL, FakeInflux]]:
    with FakeInflux({"/query": reply}) as server:
        influxql = InfluxQL(InfluxSettings(server.url, settings.pop("bucket", "db"), **settings))
        yield influxql, server
        influxql.close()


def test_a_question_names_the_database_and_asks_for_pieces_and_nanoseconds():
    with asking(Reply(200, answer({}))) as (influxql, server):
        assert list(influxql.rows('SELECT "a" FROM "b"')) == []
        (asked,) = server.asked
    assert asked.method == "GET"
    assert asked.params == {
        "db": "db",
        "q": 'SELECT "a" FROM "b"',
        "epoch": "ns",
        "chunked": "true",
        "chunk_size": "5000",
    }
    assert "authorization" not in asked.headers


def test_a_retention_policy_is_named_where_the_settings_have_one():
    with asking(Reply(200, answer({})), bucket="db/rp") as (influxql, server):
        list(influxql.rows("SELECT a FROM b"))
        assert (server.asked[0].params["db"], server.asked[0].params["rp"]) == ("db", "rp")


@pytest.mark.parametrize(
    ("secrets", "header"),
    [
        ({"token": SecretStr("abc")}, "Token abc"),
        ({"username": "ann", "password": SecretStr("pw")}, "Basic YW5uOnB3"),
        ({"token": SecretStr("ann:pw")}, "Basic YW5uOnB3"),
    ],
)
def test_who_asks_is_said_in_a_header_and_never_in_the_address(secrets, header):
    with asking(Reply(200, answer({})), **secrets) as (influxql, server):
        list(influxql.rows("SELECT a FROM b"))
        (asked,) = server.asked
    assert asked.headers["authorization"] == header
    assert not {"u", "p"} & set(asked.params)


def test_pieces_are_put_together_and_tags_of_a_group_are_columns():
    body = answer(series([[1, 10]], tags={"device": "a"})) + answer(
        series([[2, 20], [3, 30]], tags={"device": "b"})
    )
    with asking(Reply(200, body)) as (influxql, _):
        assert list(influxql.rows("SELECT n FROM m GROUP BY device")) == [
            {"device": "a", "time": 1, "n": 10},
            {"device": "b", "time": 2, "n": 20},
            {"device": "b", "time": 3, "n": 30},
        ]


def test_tags_of_a_group_may_come_as_columns_as_from_influxdb_3():
    body = answer(series([[1, "a", 10]], ("time", "device", "n"))).replace("\n", "\r\n")
    with asking(Reply(200, body)) as (influxql, _):
        assert list(influxql.rows("SELECT n FROM m GROUP BY device")) == [
            {"device": "a", "time": 1, "n": 10}
        ]


def test_minus_zero_survives():
    with asking(Reply(200, answer(series([[1, 0]])).replace(" 0]", " -0]"))) as (influxql, _):
        (row,) = influxql.rows("SELECT n FROM m")
    assert repr(row["n"]) == "-0.0"


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        (Reply(401, '{"error":"authorization failed"}'), ConfigError, "authorization failed"),
        (Reply(403, '{"code":"forbidden","message":"no read"}'), ConfigError, "no read"),
        (Reply(404, '{"message":"bucket not found"}'), StoreUnavailable, "no data yet"),
        (Reply(400, '{"error":"error parsing query"}'), StoreError, "error parsing query"),
        (Reply(503, "busy"), StoreUnavailable, "503 busy"),
        (Reply(429, ""), StoreUnavailable, "429"),
        (Reply(200, "<html>a proxy's page</html>"), StoreError, "not an answer of InfluxDB"),
        (Reply(200, answer({"error": "database not found: db"})), StoreUnavailable, "no data yet"),
        (
            Reply(200, answer({"error": "retention policy not found: x"})),
            StoreError,
            "not found: x",
        ),
        (Reply(200, answer({"error": "query-timeout limit exceeded"})), StoreUnavailable, "limit"),
        (Reply(200, answer({"error": "mixed types"})), StoreError, "mixed types"),
        (Reply(200, '{"error":"engine is closed"}\n'), StoreUnavailable, "engine is closed"),
        (
            Reply(200, answer(series([[1, 1]])) + answer({"error": "shard is gone"})),
            StoreError,
            "shard is gone",
        ),
    ],
)
def test_what_went_wrong_is_an_error_that_says_whether_to_try_again(reply, kind, text):
    with asking(reply) as (influxql, server), pytest.raises(Exception) as caught:
        list(influxql.rows("SELECT n FROM m"))
    assert type(caught.value) is kind
    assert text in str(caught.value)
    assert server.url in str(caught.value)


def test_a_wrong_token_is_not_told_to_anybody():
    refused = Reply(401, '{"error":"unauthorized"}')
    with (
        asking(refused, token=SecretStr("s3cret")) as (influxql, _),
        pytest.raises(ConfigError) as caught,
    ):
        list(influxql.rows("SELECT n FROM m"))
    assert "s3cret" not in str(caught.value)
    assert "store.token_file" in str(caught.value)


def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one():
    piece = answer(series([[1, 1]])).encode()

    class Broken(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))

    with socketserver.TCPServer(("127.0.0.1", 0), Broken) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        influxql = InfluxQL(InfluxSettings(f"http://127.0.0.1:{server.server_address[1]}", "db"))
        rows = influxql.rows("SELECT n FROM m")
        assert next(rows) == {"time": 1, "n": 1}
        with pytest.raises(StoreUnavailable):
            list(rows)
        thread.join()
        influxql.close()


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("a", "'a'"),
        ("it's", r"'it\'s'"),
        ("\\", r"'\\'"),
        ("a\nb", r"'a\nb'"),
        ("'; DROP", r"'\'; DROP'"),
    ],
)
def test_a_text_is_quoted_so_that_it_stays_one(text, quoted):
    assert literal(text) == quoted


def test_a_name_is_quoted_so_that_it_stays_one():
    assert identifier('a"b\\c') == r'"a\"b\\c"'


def reading(replies: list[str]) -> FakeInflux:
    """A server that answers one question after the other, and then none."""
    left = iter(replies)
    return FakeInflux({"/ping": V1_PING, "/query": lambda _: Reply(200, next(left))})


JOB = {
    "time": 1,
    "fleet": "lab",
    "device": "pi",
    "campaign_id": "c",
    "epoch": "0b0c7b0e-4a4c-4a53-9d0c-0d3f0f5a0001",
    "seq": 4,
    "fields": 6,
    "job_id": "c.pi.1",
    "attempt": 1,
    "state": "IN_PROGRESS",
}


def job_row(**changes: object) -> str:
    row = {**JOB, **changes}
    return answer(series([list(row.values())], tuple(row)))


def test_job_records_are_read_again_only_where_their_number_has_changed():
    one, two = answer(series([[0, 1]])), answer(series([[0, 2]]))
    later = json.loads(job_row())
    later["results"][0]["series"][0]["values"].append([*{**JOB, "time": 2, "seq": 5}.values()])
    with reading([one, job_row(), one, two, json.dumps(later)]) as server:
        reader = InfluxReader(InfluxSettings(server.url, "db"))
        first, again, third = (reader.job_records("c") for _ in range(3))
        reader.close()
    assert [item.seq for item in first] == [4]
    assert again == first
    assert [item.seq for item in third] == [4, 5]
    questions = [one.params["q"].partition(" FROM")[0] for one in server.asked if one.params]
    assert questions == [
        *("SELECT count(seq) AS n", "SELECT *"),
        "SELECT count(seq) AS n",
        *("SELECT count(seq) AS n", "SELECT *"),
    ]


def test_what_was_read_is_remembered_of_a_few_campaigns_only(monkeypatch):
    monkeypatch.setattr("fleetmark_collector.sinks.influxdb.reader.MAX_CAMPAIGNS", 2)
    one = answer(series([[0, 1]]))
    with reading([*[one, job_row()] * 3, one, one, job_row()]) as server:
        reader = InfluxReader(InfluxSettings(server.url, "db"))
        for campaign_id in ("a", "b", "c", "c", "a"):
            assert len(reader.job_records(campaign_id)) == 1
        reader.close()
    read = [one.params["q"][-3:] for one in server.asked if "SELECT *" in one.params.get("q", "")]
    assert read == ["'a'", "'b'", "'c'", "'a'"]


@pytest.mark.parametrize("field", sorted(JOB.keys() - {"time", "fleet", "device", "campaign_id"}))
def test_a_record_that_is_just_being_written_is_read_once_it_is_whole(field):
    one = answer(series([[0, 1]]))
    with reading([one, job_row(**{field: None}), one, job_row(), one]) as server:
        reader = InfluxReader(InfluxSettings(server.url, "db"))
        found = [len(reader.job_records("c")) for _ in range(3)]
        reader.close()
    assert found == [0, 1, 1]


@pytest.mark.parametrize("changes", [{"state": "NONSENSE"}, {"rest": "{"}])
def test_a_row_that_is_no_record_of_ours_is_an_error_and_not_left_out(changes):
    with reading([answer(series([[0, 1]])), job_row(**changes)]) as server:
        reader = InfluxReader(InfluxSettings(server.url, "db"))
        with pytest.raises(StoreError, match="a stored job cannot be read"):
            reader.job_records("c")
        reader.close()


def test_a_server_that_does_not_answer_influxql_is_told_from_an_empty_one():
    paths = {"/ping": Reply(), "/-/healthy": Reply(200, "VictoriaMetrics is Healthy")}
    with FakeInflux({**paths, "/metrics": Reply(200, ""), "/query": Reply(200, "{}")}) as server:
        reader = InfluxReader(InfluxSettings(server.url, "db"))
        with pytest.raises(StoreError, match="does not answer InfluxQL"):
            reader.trials("c")
        reader.close()
