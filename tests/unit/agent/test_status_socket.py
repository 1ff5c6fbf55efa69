"""The socket that tells how an agent stands, to any number of those who ask."""

import contextlib
import socket
import threading

import pytest

from fleetmark_agent import statussocket
from fleetmark_agent.standing import Acks, LastProblem
from fleetmark_agent.statussocket import SOCKET_NAME, ask, served
from fleetmark_protocol import logs


def test_who_asks_gets_the_answer_of_that_moment(tmp_path):
    counts = iter(range(10))
    with served(tmp_path, lambda: {"asked": next(counts)}):
        assert [ask(tmp_path), ask(tmp_path)] == [{"asked": 0}, {"asked": 1}]


def test_nobody_answers_before_and_after(tmp_path):
    assert ask(tmp_path) is None
    with served(tmp_path, dict):
        assert ask(tmp_path) == {}
    assert ask(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_state_directory_that_is_not_there_has_no_agent(tmp_path):
    assert ask(tmp_path / "nowhere") is None


def test_what_an_agent_left_that_was_killed_does_not_stand_in_the_way(tmp_path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / SOCKET_NAME))
    assert ask(tmp_path) is None
    with served(tmp_path, lambda: {"alive": True}):
        assert ask(tmp_path) == {"alive": True}


def test_a_path_longer_than_an_address_of_a_socket_will_do(tmp_path):
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    with served(deep, lambda: {"deep": True}):
        assert ask(deep) == {"deep": True}


def test_what_is_sent_to_it_changes_nothing(tmp_path):
    with served(tmp_path, lambda: {"n": 1}):
        with socket.socket(socket.AF_UNIX) as rude:
            rude.connect(str(tmp_path / SOCKET_NAME))
            with contextlib.suppress(BrokenPipeError):
                rude.sendall(b"\x00" * 4096)
        assert ask(tmp_path) == {"n": 1}


def test_who_connects_and_reads_nothing_keeps_others_waiting_only_so_long(tmp_path, monkeypatch):
    monkeypatch.setattr(statussocket, "ANSWER_S", 0.2)
    large = {"text": "x" * 10_000_000}
    answers = iter([large])
    with (
        served(tmp_path, lambda: next(answers, {"n": 1})),
        socket.socket(socket.AF_UNIX) as lazy,
    ):
        lazy.connect(str(tmp_path / SOCKET_NAME))
        assert ask(tmp_path) == {"n": 1}


def test_a_mistake_in_the_answer_ends_that_answer_only(tmp_path):
    answers = iter([{"bad": {1, 2}}, {"n": 1}])
    with served(tmp_path, lambda: next(answers)):
        with pytest.raises(ValueError, match="Expecting value"):
            ask(tmp_path)
        assert ask(tmp_path) == {"n": 1}


def test_many_may_ask_at_once(tmp_path):
    said = []
    with served(tmp_path, lambda: {"n": 1}):
        threads = [threading.Thread(target=lambda: said.append(ask(tmp_path))) for _ in range(20)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    assert said == [{"n": 1}] * 20


def test_without_a_place_for_the_socket_the_agent_works_on(tmp_path):
    (tmp_path / SOCKET_NAME).mkdir()
    with served(tmp_path, dict):
        pass


def test_the_newest_warning_or_error_is_kept_with_its_values():
    problems, log = LastProblem(), logs.get("test_standing")
    logs.logging.getLogger(logs.OURS).addHandler(problems)
    try:
        log.warning("first", n=1)
        log.error("second", reason="no route")
        log.info("all_is_well")
    finally:
        logs.logging.getLogger(logs.OURS).removeHandler(problems)
    text, time_ns = problems.newest()
    assert text == "test_standing: second reason=no route"
    assert time_ns > 1_700_000_000_000_000_000


def test_an_ack_that_frees_nothing_is_no_sign_of_delivery():
    acks = Acks(clock_ns=lambda: 7)
    acks.acked([(1, 2)], freed=0)
    assert acks.last_ns is None
    acks.acked([(1, 2)], freed=2)
    assert acks.last_ns == 7
