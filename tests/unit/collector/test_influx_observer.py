"""Observations: written when that goes, lost when it does not, and never in anybody's way."""

import threading

import pytest

from fakes.fake_influx import V1_PING, V2_PING, Asked, FakeInflux, Reply
from fleetmark_collector.config import CollectorSettings, InfluxSettings
from fleetmark_collector.sinks.base import Point
from fleetmark_collector.sinks.influxdb.observing import MAX_POINTS, MAX_WAITING, InfluxObserver
from fleetmark_collector.sinks.stores import open_observer, open_writer
from fleetmark_protocol.errors import ConfigError
from servers import wait_for


def point(number: int = 1, **fields) -> Point:
    return Point("device", {"device": f"d{number}"}, fields or {"online": 1}, 1_000_000 + number)


@pytest.fixture
def observer():
    made: list[InfluxObserver] = []

    def make(url: str) -> InfluxObserver:
        made.append(InfluxObserver(InfluxSettings(url, "db"), timeout_s=2.0))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize(
    ("ping", "path"), [(V1_PING, "/write"), (V2_PING, "/api/v2/write")], ids=["1", "2"]
)
def test_points_are_written_the_way_records_are(observer, ping, path):
    with FakeInflux({"/ping": ping, path: Reply()}) as server:
        observer(server.url).observe([point(1), point(2, online=0, version="1.2")])
        wait_for(lambda: server.writes(), what="the write")
        (asked,) = server.writes()
    assert asked.body == (
        b'device,device=d1 online=1i 1000001\ndevice,device=d2 online=0i,version="1.2" 1000002'
    )


def test_closing_writes_what_waits(observer):
    with FakeInflux({"/ping": V1_PING, "/write": Reply()}) as server:
        one = observer(server.url)
        for number in range(5):
            one.observe([point(number)])
        one.close()
        assert len(server.writes()) == 5
        one.observe([point()])
        assert len(server.writes()) == 5, "nothing is taken after the end"


def test_a_server_that_hangs_holds_nobody_up_and_what_is_old_is_lost(observer):
    go_on = threading.Event()

    def hang(asked: Asked) -> Reply:
        go_on.wait(2)
        return Reply()

    with FakeInflux({"/ping": V1_PING, "/write": hang}) as server:
        one = observer(server.url)
        one.observe([point(0)])
        wait_for(lambda: server.writes(), what="the server to be busy")
        for number in range(1, 3 * MAX_WAITING):
            one.observe([point(number)])
        go_on.set()
        one.close()
        written = [asked.body.split()[0] for asked in server.writes()]
    assert len(written) == 1 + MAX_WAITING
    assert written[-1] == f"device,device=d{3 * MAX_WAITING - 1}".encode(), "the newest is kept"


def test_very_many_points_are_sent_in_parts(observer):
    with FakeInflux({"/ping": V1_PING, "/write": Reply()}) as server:
        one = observer(server.url)
        one.observe([point(number) for number in range(MAX_POINTS + 1)])
        one.close()
        assert [len(asked.body.splitlines()) for asked in server.writes()] == [MAX_POINTS, 1]


def test_without_a_server_it_raises_nothing_and_says_so_once(observer, capsys):
    one = observer("http://127.0.0.1:1")
    for number in range(5):
        one.observe([point(number)])
    one.close()
    assert capsys.readouterr().err.count("observations_not_written") == 1


def test_a_refusal_is_logged_once_and_again_after_it_had_gone(observer, capsys):
    refused = Reply(400, '{"error":"partial write: field type conflict dropped=1"}')
    answers = [refused, refused, Reply(), refused]

    def say(asked: Asked) -> Reply:
        return answers.pop(0)

    with FakeInflux({"/ping": V1_PING, "/write": say}) as server:
        one = observer(server.url)
        for number in range(4):
            one.observe([point(number)])
        one.close()
    assert capsys.readouterr().err.count("field type conflict") == 2


def test_a_point_that_makes_no_line_holds_the_others_not_up(observer, capsys):
    with FakeInflux({"/ping": V1_PING, "/write": Reply()}) as server:
        one = observer(server.url)
        one.observe([point(1, online=float("nan")), point(2)])
        one.close()
        (asked,) = server.writes()
    assert asked.body.startswith(b"device,device=d2")
    assert "observations_not_written" in capsys.readouterr().err


def test_nothing_to_observe_starts_nothing(observer):
    with FakeInflux({"/ping": V1_PING, "/write": Reply()}) as server:
        one = observer(server.url)
        one.observe([])
        one.close()
        assert server.asked == []


def settings(**store) -> CollectorSettings:
    return CollectorSettings.model_validate({"store": {"kind": "influxdb", **store}})


def test_the_embedded_store_takes_no_observations(tmp_path):
    assert open_observer(CollectorSettings(data_dir=tmp_path)) is None


def test_a_collector_may_start_before_its_server_and_says_that_it_waits(capsys):
    writer = open_writer(settings(url="http://127.0.0.1:1"))
    assert writer.threads > 1
    writer.close()
    assert "store_not_found_yet" in capsys.readouterr().err


def test_a_collector_does_not_start_where_it_may_not_write():
    with (
        FakeInflux(
            {"/ping": V1_PING, "/write": Reply(404, '{"error":"database not found"}')}
        ) as fake,
        pytest.raises(ConfigError, match="database not found"),
    ):
        open_writer(settings(url=fake.url))
