"""The wiring: what ticks, what is said once, what ends it."""

import json
import sqlite3
import threading

import pytest

from fleetmark_collector.config import CollectorSettings
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


@pytest.fixture
def settings(tmp_path):
    logs.configure("info", "json")
    # Nobody listens there: the collector must work, and stop, without a broker.
    return CollectorSettings(data_dir=tmp_path / "data", broker={"port": free_port()})


@pytest.fixture
def run(settings, monkeypatch):
    monkeypatch.setattr("fleetmark_collector.service.TICK_S", 0.01)
    stop = threading.Event()
    failures: list[BaseException] = []
    threads: list[threading.Thread] = []

    def start(ticker) -> list[BaseException]:
        def target() -> None:
            try:
                run_collector(settings, lambda *_: ticker, stop)
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
    wait_for(lambda: ticker.ticks >= 5, what="five ticks")
    run.finish()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
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
