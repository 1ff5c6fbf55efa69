"""What systemd is told of a collector: ready, alive or hanging, ending."""

import json
import os
import queue
import socket
import threading

import pytest

from collected import data, telemetry
from fakes.fake_writer import FakeWriter
from fleetmark_collector.config import CollectorSettings, IngestSettings
from fleetmark_collector.dead_letters import DeadLetters
from fleetmark_collector.ingest import Ingest
from fleetmark_collector.service import run_collector
from fleetmark_collector.supervision import MAIN_REQUESTS, WRITE_STUCK_S, Supervision
from fleetmark_collector.tally import Stats
from fleetmark_protocol import logs
from fleetmark_protocol.notify import Notifier
from servers import free_port, wait_for


class Systemd:
    """The socket that systemd listens at; what comes is taken at once, as systemd does."""

    def __init__(self, path):
        self.environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "30000"}
        self._came = queue.SimpleQueue()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self):
        while text := self._socket.recv(4096).decode():
            self._came.put(text)

    def heard(self):
        """Return what came since this was last asked."""
        Notifier(self.environment).say(UNTIL="here")
        came = []
        while (text := self._came.get(timeout=20)) != "UNTIL=here":
            came.append(text)
        return came

    def hear(self, start, word=""):
        """Wait for a message that begins so and holds a word, and return it."""
        while True:
            text = self._came.get(timeout=20)
            if text.startswith(start) and word in text:
                return text

    def close(self):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(20)
        self._socket.close()


@pytest.fixture
def systemd(tmp_path):
    made = Systemd(tmp_path / "notify")
    yield made
    made.close()


class Rig:
    def __init__(self, systemd, write_timeout_s=10.0):
        self.now_s = 100.0
        self.watched = Supervision(
            write_timeout_s, Notifier(systemd.environment), lambda: self.now_s
        )

    def ready(self):
        self.watched.ready()
        return self

    def works(self, working_s=0.0, **stats):
        self.now_s += 1
        self.watched.works(connected=True, stats=Stats(**stats), working_s=working_s)
        self.watched.sign()


def test_a_collector_that_works_gives_signs_of_life_with_how_it_stands(systemd):
    Rig(systemd).ready().works(records_written=7)
    assert systemd.heard() == ["READY=1", "WATCHDOG=1\nSTATUS=connected, 7 records written"]


def test_a_store_that_is_away_is_no_reason_to_be_killed(systemd):
    Rig(systemd).ready().works(store_available=False)
    said = systemd.heard()[-1]
    assert said.startswith("WATCHDOG=1\nSTATUS=connected, the store takes no records")


def test_a_writer_that_hangs_gives_none_and_says_so_once(systemd, capsys):
    rig = Rig(systemd, write_timeout_s=10).ready()
    systemd.heard()
    rig.works(working_s=WRITE_STUCK_S + 39)
    assert len(systemd.heard()) == 1
    rig.works(working_s=WRITE_STUCK_S + 41)
    rig.works(working_s=WRITE_STUCK_S + 42)
    assert systemd.heard() == []
    events = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert events == ["writer_hangs"]
    rig.works()
    assert len(systemd.heard()) == 1


def test_one_that_stands_by_lives_too(systemd):
    rig = Rig(systemd).ready()
    rig.watched.waits(4711)
    rig.watched.sign()
    assert systemd.heard()[-1] == "WATCHDOG=1\nSTATUS=standby, pid 4711 leads"


def test_a_main_thread_that_waits_for_a_slow_database_lives_and_one_that_hangs_does_not(
    systemd, capsys
):
    rig = Rig(systemd, write_timeout_s=300).ready()
    rig.works()
    systemd.heard()
    rig.now_s += WRITE_STUCK_S + MAIN_REQUESTS * 300
    rig.watched.sign()
    assert len(systemd.heard()) == 1
    rig.now_s += 1
    rig.watched.sign()
    rig.watched.sign()
    assert systemd.heard() == []
    events = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert events == ["collector_hangs"]
    rig.works()
    assert len(systemd.heard()) == 1


def test_until_it_is_ready_it_asks_for_time_unless_it_hangs(systemd):
    rig = Rig(systemd, write_timeout_s=300)
    rig.watched.sign()
    assert systemd.heard() == ["EXTEND_TIMEOUT_USEC=60000000\nSTATUS=starts"]
    rig.now_s += WRITE_STUCK_S + MAIN_REQUESTS * 300 + 1
    rig.watched.sign()
    assert systemd.heard() == []


def test_more_time_is_asked_for_before_the_last_is_up(systemd):
    systemd.environment["WATCHDOG_USEC"] = "120000000"
    Rig(systemd).watched.sign()
    assert systemd.heard() == ["EXTEND_TIMEOUT_USEC=120000000\nSTATUS=starts"]


# --- the whole process ---------------------------------------------------------------------------


class Ticker:
    """Ticks until it is told to hang."""

    def __init__(self):
        self.ticks = 0
        self.go_on = threading.Event()
        self.go_on.set()

    def tick(self):
        self.ticks += 1
        self.go_on.wait()

    def on_connect(self):
        pass

    def close(self):
        pass


class Process:
    """A collector in a thread."""

    def __init__(self, settings):
        self.ticker, self.stop = Ticker(), threading.Event()
        self.thread = threading.Thread(
            target=run_collector, args=(settings, lambda *_: self.ticker, self.stop)
        )
        self.thread.start()

    def end(self):
        self.ticker.go_on.set()
        self.stop.set()
        self.thread.join(30)
        assert not self.thread.is_alive()


def any_sign(systemd, one):
    """Whether a sign of life comes in ten times the watchdog's interval between two."""
    systemd.heard()
    one.stop.wait(0.1)
    return systemd.heard() != []


@pytest.fixture
def start(tmp_path, systemd, monkeypatch):
    monkeypatch.setattr("fleetmark_collector.service.TICK_S", 0.01)
    monkeypatch.setattr("fleetmark_collector.leadership.WAIT_S", 0.02)
    for name, value in systemd.environment.items():
        monkeypatch.setitem(os.environ, name, value)
    logs.configure("info", "json")
    settings = CollectorSettings(
        data_dir=tmp_path / "data", broker={"port": free_port()}, http={"listen": ""}
    )
    running = []

    def make():
        running.append(Process(settings))
        return running[-1]

    yield make
    for one in running:
        one.end()


def test_it_is_ready_without_a_broker_and_says_when_it_ends(start, systemd):
    one = start()
    systemd.hear("READY=1")
    systemd.hear("WATCHDOG=1", "not connected")
    one.end()
    systemd.hear("STOPPING=1")


def test_who_ends_asks_for_the_time_of_a_store_that_hangs_too(systemd):
    Rig(systemd, write_timeout_s=7).watched.stopping()
    assert systemd.heard() == ["STOPPING=1\nEXTEND_TIMEOUT_USEC=67000000"]


def test_a_dispatcher_that_waits_for_its_database_lives(start, systemd):
    one = start()
    one.ticker.go_on.clear()
    ticks = one.ticker.ticks
    wait_for(lambda: one.ticker.ticks > ticks, what="a tick that waits")
    systemd.heard()
    for _ in range(5):
        systemd.hear("WATCHDOG=1")
    one.ticker.go_on.set()


def test_a_dispatcher_that_hangs_gives_no_sign_of_life(start, systemd, monkeypatch):
    monkeypatch.setattr("fleetmark_collector.supervision.WRITE_STUCK_S", 0.2)
    monkeypatch.setattr("fleetmark_collector.supervision.MAIN_REQUESTS", 0)
    one = start()
    systemd.hear("WATCHDOG=1")
    one.ticker.go_on.clear()
    ticks = one.ticker.ticks
    wait_for(lambda: one.ticker.ticks > ticks, what="a tick that hangs")
    wait_for(lambda: not any_sign(systemd, one), what="silence")
    # Many times as long as the watchdog would let it be silent.
    assert not one.stop.wait(0.3)
    assert systemd.heard() == []
    one.ticker.go_on.set()
    systemd.hear("WATCHDOG=1")


def test_one_that_stands_by_is_ready_and_lives_and_takes_over(start, systemd):
    first = start()
    systemd.hear("READY=1")
    wait_for(lambda: first.ticker.ticks > 0, what="the first leads")
    systemd.heard()
    second = start()
    systemd.hear("READY=1")
    systemd.hear("WATCHDOG=1", f"standby, pid {os.getpid()} leads")
    first.end()
    wait_for(lambda: second.ticker.ticks > 0, what="the second leads")
    systemd.hear("WATCHDOG=1", "not connected")


# --- ingest ---------------------------------------------------------------------------------------


def test_a_write_that_hangs_is_seen_and_does_not_hold_the_end_up(tmp_path, monkeypatch):
    monkeypatch.setattr("fleetmark_collector.ingest.STOP_S", 0.05)
    writer = FakeWriter()
    acks = []
    ingest = Ingest(
        IngestSettings(batch_age_s=0.01),
        writer,
        DeadLetters(tmp_path / "dead.jsonl"),
        lambda *ack: acks.append(ack),
    )
    ingest.start()
    assert ingest.working_s() == 0, "to wait for messages is not to hang"
    writer.gate.clear()
    ingest.receive("fleetmark/v1/lab/pi/data", data((1, telemetry(1))))
    assert writer.entered.wait(20)
    before_s = ingest.working_s()
    wait_for(lambda: ingest.working_s() > before_s, what="time to pass")
    ingest.stop()
    assert ingest.hangs
    assert acks == [], "its agent still has it"
    writer.gate.set()
    wait_for(lambda: not ingest.hangs, what="the end of the writer")
    assert ingest.working_s() == 0
