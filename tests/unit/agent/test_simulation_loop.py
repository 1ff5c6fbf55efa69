"""The simulation's loop: what is due is run in order, and nobody starves."""

import socket
import threading

import pytest

from fakes.fake_time import FakeTime
from fleetmark_agent.simulation.loop import Loop


@pytest.fixture
def time():
    return FakeTime()


@pytest.fixture
def loop(time):
    made = Loop(time, time.selector)
    yield made
    made.close()


def run_for(loop, time, seconds):
    end_s = time.now_s + seconds
    loop.run_until(lambda: time.now_s >= end_s)


def test_actions_run_at_their_time_and_in_order(loop, time):
    ran = []
    for delay_s, name in ((2.0, "c"), (1.0, "a"), (1.0, "b")):
        loop.after(delay_s, lambda name=name: ran.append((name, time.now_s)))
    run_for(loop, time, 3)
    assert ran == [("a", 101.0), ("b", 101.0), ("c", 102.0)]


def test_an_action_that_asks_for_itself_again_does_not_keep_the_others_waiting(loop, time):
    ran = []

    def again():
        ran.append("again")
        loop.soon(again)

    loop.soon(again)
    loop.at(time.now_s, lambda: ran.append("timer"))
    left, right = socket.socketpair()
    loop.watch(right, lambda mask: ran.append(right.recv(10)))
    left.send(b"bytes")
    for _ in range(3):
        loop.round()
    assert "timer" in ran
    assert b"bytes" in ran
    for end in (left, right):
        end.close()


def test_it_says_by_how_much_it_is_late(loop, time):
    loop.after(1.0, lambda: None)
    run_for(loop, time, 1)
    assert loop.late_s == 0

    def slow():
        time.now_s += 5

    loop.after(1.0, slow)
    loop.after(2.0, lambda: None)
    run_for(loop, time, 7)
    assert loop.late_s == 4


def test_a_socket_is_written_to_only_while_somebody_wants_it(loop):
    left, right = socket.socketpair()
    masks = []
    loop.watch(right, masks.append)
    loop.round(0)
    assert masks == []
    loop.want_write(right, True)
    loop.round(0)
    assert len(masks) == 1
    loop.want_write(right, False)
    loop.round(0)
    assert len(masks) == 1
    for end in (left, right):
        end.close()


def test_a_socket_that_is_forgotten_or_was_never_known_is_no_matter(loop):
    left, right = socket.socketpair()
    loop.watch(right, lambda mask: pytest.fail("it was forgotten"))
    loop.unwatch(right)
    loop.unwatch(left)
    left.send(b"x")
    loop.round(0)
    for end in (left, right):
        end.close()


def test_another_thread_wakes_it():
    loop = Loop()
    ran = threading.Event()
    threading.Timer(0.05, lambda: loop.from_thread(ran.set)).start()
    loop.run_until(ran.is_set)
    loop.close()
