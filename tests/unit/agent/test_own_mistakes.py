"""A mistake of ours ends neither the agent nor one of its threads: it is told, and work goes on."""

import random
import sys
import threading

import pytest

from conversing import BOOT, Device
from fleetmark_agent import parts, wishes
from fleetmark_agent.config import AgentSettings
from fleetmark_agent.database import Database
from fleetmark_agent.link import Link
from fleetmark_agent.service import _Service
from fleetmark_agent.standing import LastProblem
from fleetmark_agent.wishes import RETRY_S
from fleetmark_protocol.errors import ContractError
from fleetmark_protocol.messages import Ack, Status
from fleetmark_protocol.settings import BrokerSettings
from fleetmark_protocol.version import __version__
from servers import free_port, wait_for


@pytest.fixture
def device(tmp_path):
    return Device(tmp_path)


def test_new_settings_that_stumble_over_a_mistake_of_ours_are_refused(
    tmp_path, monkeypatch, capsys
):
    def settings(tag):
        broker = BrokerSettings(port=free_port())
        return AgentSettings(device_id="d1", state_dir=tmp_path, tags=(tag,), broker=broker)

    def start(settings):
        if settings.tags == ("new",):
            raise ValueError("Port out of range")
        return real(settings)

    real = parts.start
    monkeypatch.setattr(parts, "start", start)
    service = _Service(settings("old"), lambda: settings("new"), LastProblem())
    try:
        service._reload()
        assert service._parts.broken() is None
        assert service._settings.tags == ("old",)
        assert service.standing()["refused_settings"] == "ValueError: Port out of range"
        assert "settings_refused" in capsys.readouterr().err
    finally:
        service._parts.stop()


@pytest.mark.parametrize("part", ["Link", "ModelStore.from_settings", "Link.start", "Runner.start"])
def test_of_an_agent_whose_start_breaks_nothing_goes_on(tmp_path, monkeypatch, part):
    def broken(*_, **__):
        raise RuntimeError("a mistake")

    closed, before = [], set(threading.enumerate())
    close = Database.close
    monkeypatch.setattr(Database, "close", lambda self: closed.append(1) or close(self))
    monkeypatch.setattr(f"fleetmark_agent.parts.{part}", broken)
    broker = BrokerSettings(port=free_port())
    with pytest.raises(RuntimeError, match="a mistake"):
        parts.start(AgentSettings(device_id="d1", state_dir=tmp_path, broker=broker))
    assert closed == [1]
    assert set(threading.enumerate()) <= before


def test_the_parts_are_stopped_although_one_of_them_breaks(tmp_path, monkeypatch):
    def broken(_):
        raise RuntimeError("a mistake")

    before = set(threading.enumerate())
    broker = BrokerSettings(port=free_port())
    agent = parts.start(AgentSettings(device_id="d1", state_dir=tmp_path, broker=broker))
    agent.runner.stop()
    monkeypatch.setattr("fleetmark_agent.parts.Runner.stop", broken)
    with pytest.raises(RuntimeError, match="a mistake"):
        agent.stop()
    assert set(threading.enumerate()) <= before


def test_the_sender_outlives_a_turn_that_breaks(tmp_path, monkeypatch, device, capsys):
    settings = AgentSettings(
        device_id="d1", state_dir=tmp_path, broker=BrokerSettings(port=free_port())
    )
    status = Status(online=True, boot_id=BOOT, agent_version="1", started_ns=1)
    link = Link(settings, device.outbox, status, *[lambda _: None] * 3, random.Random(1))
    turns = []

    def turn():
        turns.append(1)
        if len(turns) == 1:
            raise KeyError("a mistake")

    monkeypatch.setattr("fleetmark_agent.link.BROKEN_TURN_S", 0.01)
    monkeypatch.setattr(link._talk, "turn", turn)
    link._sender.start()
    try:
        wait_for(lambda: len(turns) > 1)
        assert link.alive
        assert capsys.readouterr().err.count("turn_broke") == 1
    finally:
        link.stop(0)


def test_an_assignment_that_is_not_understood_any_more_holds_up_no_other(
    device, monkeypatch, capsys
):
    device.room = False
    device.wish(1, "run")
    device.wish(2, "run")
    device.room = True
    real = wishes.read

    def read(payload):
        if b"c.d1.001" in payload:
            raise ContractError("not understood")
        return real(payload)

    monkeypatch.setattr(wishes, "read", read)
    for _ in range(2):
        device.time.now_s += RETRY_S
        device.talk.turn()
    assert device.taken == [("c.d1.002", "run")]
    assert capsys.readouterr().err.count("message_refused") == 1, "and is not tried again"


def test_answers_are_taken_one_by_one_whoever_takes_them(device, monkeypatch):
    """The one that came last says how things stand."""
    inside, most = [], []
    real = device.talk.centre.takes

    def takes(ack):
        inside.append(1)
        most.append(len(inside))
        # Lets another thread in, were it let in.
        threading.Event().wait(0.001)
        inside.pop()
        return real(ack)

    monkeypatch.setattr(device.talk.centre, "takes", takes)
    ack = Ack(epoch=device.outbox.epoch, ranges=((1, 1),), collector_version=__version__)
    device.talk._late_acks.extend([ack] * 30)
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=device.talk._take_acks) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    finally:
        sys.setswitchinterval(interval_s)
    assert (len(most), max(most)) == (30, 1)
