"""The wiring: what ticks, what is said once, what ends it."""

import json
import socket
import sqlite3
import threading
import urllib.error
import urllib.request

import pytest

from fleetmark_collector.config import CollectorSettings, HttpSettings
from fleetmark_collector.culprits import MAX_FLEETS, Culprits
from fleetmark_collector.devices import DeviceRegistry
from fleetmark_collector.mqtt import stable_client_id
from fleetmark_collector.service import run_collector
from fleetmark_protocol import logs
from fleetmark_protocol.errors import ConfigError, FleetmarkError, StoreError, StoreUnavailable
from servers import free_port, wait_for


class CountingTicker:
    """Counts its ticks, and fails as told."""

    def __init__(self, trouble: FleetmarkError | None = None) -> None:
        self.ticks = 0
        self.trouble = trouble

    def tick(self) -> None:
        self.ticks += 1
        if self.trouble is not None:
            raise self.trouble

    def on_connect(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def settings(tmp_path):
    logs.configure("info", "json")
    # Nobody listens there: the collector must work, and stop, without a broker.
    return CollectorSettings(
        data_dir=tmp_path / "data", broker={"port": free_port()}, http={"listen": ""}
    )


@pytest.fixture
def run(settings, monkeypatch):
    monkeypatch.setattr("fleetmark_collector.service.TICK_S", 0.01)
    stop = threading.Event()
    failures: list[BaseException] = []
    threads: list[threading.Thread] = []

    def start(ticker, **changes) -> list[BaseException]:
        def target() -> None:
            try:
                run_collector(settings.model_copy(update=changes), lambda *_: ticker, stop)
            except BaseException as error:  # noqa: BLE001
                failures.append(error)

        threads.append(threading.Thread(target=target))
        threads[0].start()
        return failures

    def finish() -> list[BaseException]:
        stop.set()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        return failures

    start.finish = finish
    yield start
    finish()


def test_it_ticks_and_beats_until_it_is_stopped_and_leaves_no_beat_behind(run, settings):
    ticker = CountingTicker()
    run(ticker)
    wait_for(lambda: ticker.ticks >= 3, what="three ticks")
    registry = DeviceRegistry(settings.state_file)
    wait_for(registry.collector_alive, what="a heartbeat")
    assert registry.last_beat().stats["records_written"] == 0
    assert run.finish() == []
    assert registry.last_beat() is None
    registry.close()


def test_a_tick_that_fails_again_and_again_is_said_once_and_stops_nothing(run, capsys):
    ticker = CountingTicker(StoreUnavailable("locked"))
    run(ticker)
    wait_for(lambda: ticker.ticks >= 5, what="five ticks")
    assert run.finish() == []
    events = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert events.count("tick_failed") == 1
    assert events[-1] == "collector_stopped"


def test_a_collector_without_a_broker_says_so_once_and_waits(run, capsys):
    ticker = CountingTicker()
    run(ticker)
    said = ""

    def complains():
        nonlocal said
        said += capsys.readouterr().err
        return "broker_unreachable" in said

    wait_for(complains, what="the first attempt to connect")
    ticks = ticker.ticks
    wait_for(lambda: ticker.ticks >= ticks + 5, what="five ticks")
    run.finish()
    said += capsys.readouterr().err
    lines = [json.loads(line) for line in said.splitlines()]
    (complaint,) = [line for line in lines if line["event"] == "broker_unreachable"]
    assert "fleetmark broker" in complaint["hint"]


def test_a_store_that_is_none_of_ours_ends_it_before_it_begins(run, settings):
    settings.data_dir.mkdir()
    settings.store_file.write_text("something else entirely" * 100)
    failures = run(CountingTicker())
    wait_for(lambda: failures, what="the refusal")
    assert isinstance(failures[0], StoreError)


def test_a_data_directory_that_cannot_be_made_is_the_user_s_mistake(settings):
    settings.data_dir.write_text("a file")
    with pytest.raises(ConfigError, match="data_dir"):
        run_collector(settings, lambda *_: CountingTicker(), threading.Event())


def events(capsys):
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_it_says_where_it_answers_for_itself_and_stops_listening_at_its_end(run, capsys):
    port = free_port()
    ticker = CountingTicker()
    run(ticker, http=HttpSettings(listen=f"127.0.0.1:{port}"))
    wait_for(lambda: ticker.ticks >= 2, what="two ticks")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10)
    assert refused.value.code == 503, "there is no broker"
    assert "broker" in json.loads(refused.value.read())["reasons"][0]
    assert run.finish() == []
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10)
    (said,) = [line for line in events(capsys) if line["event"] == "listening"]
    assert said["health"] == f"http://127.0.0.1:{port}/healthz"


def test_an_address_that_was_asked_for_and_is_taken_is_the_user_s_mistake(settings):
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        asked = settings.model_copy(update={"http": HttpSettings(listen=listen)})
        with pytest.raises(ConfigError, match=r"http\.listen"):
            run_collector(asked, lambda *_: CountingTicker(), threading.Event())


def test_the_usual_address_that_is_taken_is_told_and_does_not_stop_the_collecting(run, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        # As if nobody had set it, and this were the default.
        usual = HttpSettings.model_construct(_fields_set=set(), listen=listen)
        ticker = CountingTicker()
        run(ticker, http=usual)
        wait_for(lambda: ticker.ticks >= 2, what="two ticks")
        assert run.finish() == []
    (said,) = [line for line in events(capsys) if line["event"] == "not_listening"]
    assert listen.rpartition(":")[2] in said["reason"]


def test_the_client_id_is_made_once_and_kept(tmp_path):
    first = stable_client_id(tmp_path / "client_id")
    assert first.startswith("fleetmark-collector-")
    assert stable_client_id(tmp_path / "client_id") == first
    assert stable_client_id(tmp_path / "other") != first


def test_state_and_store_are_files_of_their_own(run, settings):
    ticker = CountingTicker()
    run(ticker)
    wait_for(lambda: ticker.ticks >= 2, what="two ticks")
    run.finish()
    names = {file.name for file in settings.data_dir.iterdir()}
    assert {"store.db", "state.db", "collector.lock", "client_id"} <= names
    tables = sqlite3.connect(settings.store_file).execute("SELECT name FROM sqlite_schema")
    assert ("trial",) in tables.fetchall()


def test_fleets_that_the_registry_knows_are_not_new_after_a_restart(run, settings, monkeypatch):
    fleets = [f"f{number}" for number in range(2 * MAX_FLEETS)]
    registry = DeviceRegistry(settings.state_file)
    for fleet in fleets:
        registry.seen([(fleet, "pi")])
    registry.flush()
    registry.close()
    made = []

    def make():
        made.append(Culprits())
        return made[-1]

    monkeypatch.setattr("fleetmark_collector.service.Culprits", make)
    ticker = CountingTicker()
    run(ticker)
    wait_for(lambda: ticker.ticks > 0, what="the first tick")
    assert run.finish() == []
    assert [made[0].ignored((fleet, "pi")) for fleet in fleets] == [False] * len(fleets)


@pytest.mark.parametrize("missed", ["culprits.Culprits.ask_again", "ingest.Ingest.relieved"])
def test_what_devices_say_of_themselves_is_asked_for_again_where_some_was_missed(
    run, monkeypatch, missed
):
    asked = []
    monkeypatch.setattr("fleetmark_collector.reception.ASK_AGAIN_S", 0.0)
    monkeypatch.setattr(f"fleetmark_collector.{missed}", lambda _: True)
    monkeypatch.setattr(
        "fleetmark_collector.mqtt.Bus.ask_again", lambda _, topic_filter: asked.append(topic_filter)
    )
    ticker = CountingTicker()
    run(ticker)
    wait_for(lambda: ticker.ticks >= 3, what="some ticks")
    assert run.finish() == []
    # Once each at the start and at the subscription; the rest is of ticks.
    assert {one.split("/")[-1] for one in asked if asked.count(one) > 2} == {"status", "inventory"}
