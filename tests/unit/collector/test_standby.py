"""Two collectors on one data directory, in threads: one leads, the other waits and says so."""

import json
import os
import threading
import urllib.request
from contextlib import closing
from functools import partial

import pytest

from fleetmark_collector import datalock
from fleetmark_collector.bootclock import BootTime
from fleetmark_collector.config import CollectorSettings, HttpSettings
from fleetmark_collector.leadership import wait_to_lead
from fleetmark_collector.lease import LEASE_S, Lease
from fleetmark_collector.service import run_collector
from fleetmark_collector.sqlitefile import connect, transaction
from fleetmark_protocol.errors import ConfigError
from servers import free_port, wait_for


class Ticker:
    """Ticks as long as its collector leads."""

    def __init__(self):
        self.ticks, self.closed = 0, 0

    def tick(self):
        self.ticks += 1

    def on_connect(self):
        pass

    def close(self):
        self.closed += 1


class Collector:
    """One of several, as a process would be."""

    def __init__(self, settings, listen=""):
        self.ticker, self.stop, self.failures = Ticker(), threading.Event(), []
        self.settings = settings.model_copy(update={"http": HttpSettings(listen=listen)})
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        try:
            run_collector(self.settings, lambda *_: self.ticker, self.stop)
        except BaseException as error:  # noqa: BLE001
            self.failures.append(error)

    def leads(self):
        return self.ticker.ticks > 0

    def end(self):
        self.stop.set()
        self.thread.join(30)
        assert not self.thread.is_alive()
        assert self.failures == []


@pytest.fixture
def start(tmp_path, monkeypatch):
    monkeypatch.setattr("fleetmark_collector.service.TICK_S", 0.01)
    monkeypatch.setattr("fleetmark_collector.leadership.WAIT_S", 0.02)
    # Whoever leads here in a second's turn was made room for: no lease runs out in a test.
    monkeypatch.setattr("fleetmark_collector.service.Lease", partial(Lease, lease_s=600))
    settings = CollectorSettings(data_dir=tmp_path / "data", broker={"port": free_port()})
    running = []

    def make(listen=""):
        running.append(Collector(settings, listen))
        return running[-1]

    make.settings = settings
    yield make
    for one in running:
        one.stop.set()
    for one in running:
        one.thread.join(30)


def events(capsys):
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def asked(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return answer.status, answer.read().decode()


def test_the_second_waits_says_so_and_leads_as_soon_as_the_first_has_ended(start, capsys):
    first = start()
    wait_for(first.leads, what="the first leading")
    port = free_port()
    second = start(f"127.0.0.1:{port}")

    def answers():
        try:
            return asked(port, "/healthz")
        except OSError:
            return None

    wait_for(answers, what="an answer")
    status, text = answers()
    said = json.loads(text)
    assert (status, said["status"], said["reasons"]) == (200, "standby", [])
    assert said["leader_pid"] > 0
    assert "fleetmark_collector_leader 0.0" in asked(port, "/metrics")[1]
    assert not second.leads()
    first.end()
    wait_for(second.leads, what="the second leading")
    wait_for(
        lambda: "fleetmark_collector_leader 1.0" in asked(port, "/metrics")[1],
        what="the metric of one that leads",
    )
    second.end()
    said = [line for line in events(capsys) if line["event"] in ("leading", "standby")]
    assert [line["event"] for line in said] == ["leading", "standby", "leading"]
    assert [line.get("term") for line in said] == [1, None, 2]


def test_one_that_waits_ends_at_once_when_it_is_told_to(start, capsys):
    first = start()
    wait_for(first.leads, what="the first leading")
    second = start()
    said = []

    def waits():
        said.extend(line["event"] for line in events(capsys))
        return "standby" in said

    wait_for(waits, what="the second waiting")
    second.end()
    assert not second.leads()
    assert second.ticker.closed == 0
    first.end()


def test_one_that_finds_another_in_its_place_steps_down_and_waits(start, capsys):
    first = start()
    wait_for(first.leads, what="the first leading")
    # As if it had slept: somebody else has the next term.
    thief = Lease(start.settings.state_file, lease_s=600)
    thief._free = lambda _: True
    assert thief.claim() is None
    wait_for(lambda: first.ticker.closed == 1, what="the first stepping down")
    first.ticker.ticks = 0
    thief.release()
    thief.close()
    wait_for(first.leads, what="the first leading again")
    first.end()
    found = [
        line["event"]
        for line in events(capsys)
        if line["event"] in ("leading", "leadership_lost", "standby", "tick_failed")
    ]
    assert [one for one in found if one != "standby"] == ["leading", "leadership_lost", "leading"]


def test_an_address_that_the_leader_holds_is_taken_when_it_is_free(start):
    port = free_port()
    first = start(f"127.0.0.1:{port}")
    wait_for(first.leads, what="the first leading")
    second = start(f"127.0.0.1:{port}")
    first.end()
    wait_for(second.leads, what="the second leading, its address taken or not")

    def leads():
        try:
            return "fleetmark_collector_leader 1.0" in asked(port, "/metrics")[1]
        except OSError:
            return False

    wait_for(leads, what="the second answering there")
    second.end()


def test_while_a_command_replaces_the_files_none_starts(start):
    start.settings.data_dir.mkdir()
    ended = threading.Event()
    ended.set()
    with (
        datalock.held(start.settings.data_dir),
        pytest.raises(ConfigError, match="another collector"),
    ):
        run_collector(start.settings, lambda *_: Ticker(), ended)


def test_and_while_one_waits_no_command_replaces_them(start):
    first = start()
    wait_for(first.leads, what="the first leading")
    second = start()
    first.end()
    wait_for(second.leads, what="the second leading")
    with (
        pytest.raises(ConfigError, match=r"another collector \(pid \d+\) has"),
        datalock.held(start.settings.data_dir),
    ):
        pass
    second.end()
    with datalock.held(start.settings.data_dir):
        pass


def test_where_one_has_frozen_in_the_middle_of_a_write_the_other_says_what_to_do(
    start, capsys, monkeypatch
):
    monkeypatch.setattr("fleetmark_collector.sqlitefile.BUSY_TIMEOUT_S", 0.05)
    file = start.settings.state_file
    now = BootTime("boot", 0)
    waits, stop, led = threading.Event(), threading.Event(), []
    with (
        closing(Lease(file, lambda: now)) as frozen,
        closing(Lease(file, lambda: now)) as second,
        closing(connect(file, "rwc")) as held,
    ):
        frozen.claim()
        thread = threading.Thread(
            target=lambda: led.append(wait_to_lead(second, stop, lambda leader: waits.set()))
        )
        thread.start()
        try:
            assert waits.wait(30)
            with transaction(held):
                now = BootTime("boot", int(2 * LEASE_S * 1e9))
                said = ""
                while "lease_not_read" not in said:
                    said += capsys.readouterr().err
                    assert not led, "nobody leads as long as the file is locked"
                    stop.wait(0.01)
            thread.join(30)
            assert led == [True]
        finally:
            stop.set()
            thread.join(30)
            second.release()
    (line,) = [one for one in said.splitlines() if "lease_not_read" in one]
    assert f"kill -9 {os.getpid()}" in json.loads(line)["hint"]
