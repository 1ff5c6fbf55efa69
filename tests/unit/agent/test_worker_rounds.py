"""Rounds of requests in a worker, with a server that computes nothing; see integration for real."""

from pathlib import Path

import pytest

from fakes.fake_llama_server import write_llama_server
from fleetmark_agent.backends.base import slots
from fleetmark_agent.backends.llama_program import server_arguments
from fleetmark_agent.backends.llama_server import LlamaServer
from fleetmark_agent.backends.settings import EnginesSettings
from fleetmark_agent.workerprocess import WorkerProcess
from fleetmark_protocol.errors import BackendCrashed, BackendError, OptionNotTaken, PromptTooLong
from fleetmark_protocol.messages import Options

OPTIONS = Options(threads=1, context_tokens=64, parallel=2)
MODEL = Path("model.gguf")


@pytest.fixture
def make(tmp_path, new_children):
    """A worker whose server has a fault, with its model loaded."""
    made = []

    def worker(fault=""):
        engines = {"llama_server": {"executable": str(write_llama_server(tmp_path, fault))}}
        made.append(WorkerProcess("llama_server", tmp_path / "worker.log"))
        command = {"do": "load", "model": "model.gguf", "engines": engines}
        made[-1].ask({**command, "options": OPTIONS.model_dump()}, 30)
        return made[-1]

    yield worker
    for one in made:
        one.close()
    assert new_children() == []


def ask_round(worker, *prompts):
    command = {"do": "generate_round", "prompts": prompts, "output_tokens": 3}
    return worker.ask({**command, "options": OPTIONS.model_dump()}, 30)["clients"]


def test_every_client_gets_its_own_answer_with_its_own_times_on_one_clock(make):
    answers = ask_round(make(), "a b", "a b c d")
    assert [one["text"] for one in answers] == [" one two three"] * 2
    assert [one["completion"]["prompt_tokens"] for one in answers] == [2, 4]
    for one in answers:
        times = [one["start_ns"], *one["token_times_ns"], one["end_ns"]]
        assert times == sorted(times)
        assert one["token_counts"] == [1, 1, 1]


def test_clients_do_not_wait_for_one_another(make):
    worker = make("answers two together")
    for _ in range(2):
        answers = ask_round(worker, "a", "b")
        assert [one["text"] for one in answers] == [" one two three"] * 2


def test_what_one_client_is_refused_is_its_own_and_the_worker_lives(make):
    worker = make()
    first, second, third = ask_round(worker, "a", "word " * 100, "")
    assert first["text"] == " one two three"
    assert isinstance(worker.error_of(second["failure"]), PromptTooLong)
    assert type(worker.error_of(third["failure"])) is BackendError
    assert ask_round(worker, "a")[0]["text"] == " one two three"


def test_a_server_that_dies_in_the_middle_is_told_to_every_client(make):
    worker = make("dies in the middle")
    errors = [worker.error_of(one["failure"]) for one in ask_round(worker, "a", "b", "c")]
    assert {type(error) for error in errors} == {BackendCrashed}
    assert any("a bug was met" in error.message for error in errors)


def test_a_server_that_grants_fewer_slots_than_asked_for_is_not_used(make):
    with pytest.raises(BackendError, match="serves 1 requests at once, 2 were asked for"):
        make("one slot")


def test_a_server_is_started_with_a_context_for_each_client(tmp_path, new_children):
    program = write_llama_server(tmp_path)
    backend = LlamaServer(EnginesSettings.model_validate({"llama_server": {"executable": program}}))
    backend.load(MODEL, Options(context_tokens=64, parallel=3))
    (server,) = new_children()
    words = server.cmdline()
    backend.close()
    assert words[words.index("--parallel") + 1] == "3"
    assert words[words.index("--ctx-size") + 1] == "192"
    assert {"--cont-batching", "--no-kv-unified"} <= set(words)


def test_one_request_at_a_time_needs_none_of_that():
    known = frozenset({"--parallel", "--cont-batching", "--no-kv-unified"})
    words = server_arguments(known, MODEL, 1, Options(context_tokens=64))
    assert words[words.index("--ctx-size") + 1] == "64"
    assert known & set(words) == {"--parallel"}
    assert slots(Options()) == 1


def test_a_version_that_knows_no_slots_is_not_asked_by_several():
    with pytest.raises(OptionNotTaken, match="one request at a time"):
        server_arguments(frozenset(), MODEL, 1, Options(parallel=2))
