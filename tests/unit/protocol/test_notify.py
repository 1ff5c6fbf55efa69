"""What systemd is told, over a real socket such as it opens."""

import os
import socket

import pytest

from fleetmark_protocol.notify import WATCHDOG_SHARE, Notifier


@pytest.fixture(params=["file", "abstract"])
def systemd(request, tmp_path):
    """A socket as systemd makes them, and its address as it writes it."""
    name = str(tmp_path / "notify")
    address = name if request.param == "file" else f"\0{name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.settimeout(5)
        yield listener, address.replace("\0", "@")


def test_all_assignments_come_in_one_message_a_line_each(systemd):
    listener, address = systemd
    assert Notifier({"NOTIFY_SOCKET": address}).say(READY=1, STATUS="connected, idle")
    assert listener.recv(4096) == b"READY=1\nSTATUS=connected, idle"


def test_a_value_cannot_bring_an_assignment_of_its_own(systemd):
    listener, address = systemd
    Notifier({"NOTIFY_SOCKET": address}).say(STATUS="runs x\nMAINPID=1")
    assert listener.recv(4096) == b"STATUS=runs x MAINPID=1"


def test_without_systemd_nothing_is_said_and_nothing_goes_wrong():
    assert not Notifier({}).say(READY=1)


def test_a_socket_that_is_gone_does_no_harm(tmp_path):
    assert not Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).say(READY=1)


def test_signs_of_life_come_more_often_than_the_watchdog_asks_for():
    interval_s = Notifier({"WATCHDOG_USEC": "60000000"}).interval_s
    assert interval_s == 60 / WATCHDOG_SHARE
    assert interval_s <= 30


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid() + 1)},
    ],
)
def test_a_watchdog_that_is_not_ours_is_not_fed(environment):
    assert Notifier(environment).interval_s is None


def test_a_watchdog_of_this_very_process_is_fed():
    environment = {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}
    assert Notifier(environment).interval_s == 1.0


def test_a_systemd_that_hangs_does_not_hold_the_service_up(systemd, monkeypatch):
    monkeypatch.setattr("fleetmark_protocol.notify.SAY_S", 0.05)
    _, address = systemd
    notifier = Notifier({"NOTIFY_SOCKET": address})
    # Nobody reads: sooner or later there is no room for more.
    assert not all(notifier.say(WATCHDOG=1) for _ in range(2000))
