"""llama.cpp's HTTP protocol, in the forms that it has had."""

import threading
from http.server import ThreadingHTTPServer

import pytest

from fakes.fake_llama_server import handler, today
from fleetmark_agent.backends.base import Completion
from fleetmark_agent.backends.llama_http import LlamaHttp
from fleetmark_agent.backends.serverprocess import free_port
from fleetmark_protocol.errors import BackendCrashed, BackendError, PromptTooLong
from fleetmark_protocol.messages import Options

OLD_END = {
    "content": "",
    "stop": True,
    "stopped_limit": True,
    "stopped_eos": False,
    "tokens_predicted": 3,
    "tokens_evaluated": 2,
    "timings": {"prompt_n": 2, "prompt_ms": 20.0, "predicted_ms": 30.0},
}


@pytest.fixture
def serve():
    servers = []

    def start(**answers):
        answering = handler(**answers)
        server = ThreadingHTTPServer(("127.0.0.1", 0), answering)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return LlamaHttp(f"127.0.0.1:{server.server_port}", "key", 64), answering

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def ask(http, prompt="a b", tokens=3):
    *steps, end = http.complete(prompt, tokens, Options())
    assert isinstance(end, Completion)
    return steps, end


def old_steps(*texts, **end):
    steps = [{"content": text, "stop": False, "slot_id": 0} for text in texts]
    return (*steps, {**OLD_END, **end})


def test_todays_steps_have_counts_and_ids(serve):
    http, _ = serve()
    steps, end = ask(http)
    assert [(step.text, step.count, step.ids) for step in steps] == [
        (" one", 1, (0,)),
        (" two", 1, (1,)),
        (" three", 1, (2,)),
    ]
    assert end.prompt_ids == (0, 1)
    assert (end.output_tokens, end.stop_reason) == (3, "length")
    assert (end.engine_prefill_s, end.engine_decode_s) == (0.02, 0.03)


def test_a_step_of_several_tokens_says_so_and_gives_no_ids_it_does_not_have(serve):
    first, second, third, end = today(2)
    http, _ = serve(steps=(first, third, end))
    steps, _ = ask(http)
    assert [(step.count, step.ids) for step in steps] == [(1, (0,)), (2, ())]
    assert second["tokens_predicted"] == 2, "the one that was left out"


def test_old_steps_are_one_each_and_the_total_is_the_servers(serve):
    http, _ = serve(steps=old_steps(" one", " two three"))
    steps, end = ask(http)
    assert [step.count for step in steps] == [1, 1]
    assert end.output_tokens == 3


def test_old_steps_without_text_are_no_tokens(serve):
    http, _ = serve(steps=old_steps(" one", "", " two", " three"))
    assert [step.text for step in ask(http)[0]] == [" one", " two", " three"]


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ({"stop_type": "limit"}, "length"),
        ({"stop_type": "eos"}, "eos"),
        ({"stop_type": "word"}, "stop"),
        ({"stopped_eos": True}, "eos"),
        ({"stopped_limit": True}, "length"),
        ({"stopped_limit": False}, "stop"),
    ],
)
def test_both_ways_to_say_why_it_stopped_are_understood(serve, end, reason):
    http, _ = serve(steps=old_steps(" one", **end))
    assert ask(http)[1].stop_reason == reason


def test_prompt_ids_are_told_only_where_they_are_what_was_evaluated(serve):
    http, _ = serve(steps=old_steps(" one", tokens_evaluated=3))
    _, end = ask(http)
    assert (end.prompt_tokens, end.prompt_ids) == (3, ())


def test_a_cached_prefix_shows_in_what_was_evaluated(serve):
    timings = {"prompt_n": 1, "prompt_ms": 1.0, "predicted_ms": 1.0}
    http, _ = serve(steps=old_steps(" one", timings=timings))
    _, end = ask(http)
    assert (end.prompt_tokens, end.prompt_tokens_evaluated) == (2, 1)


def test_an_answer_that_was_cut_to_fit_is_refused(serve):
    http, _ = serve(steps=old_steps(" one", truncated=True))
    with pytest.raises(PromptTooLong):
        ask(http)


def test_what_does_not_fit_is_refused_before_it_is_asked(serve):
    http, answering = serve()
    with pytest.raises(PromptTooLong, match="64"):
        ask(http, tokens=63)
    with pytest.raises(BackendError, match="no tokens"):
        ask(http, prompt="")
    assert all(one["path"] == "/tokenize" for one in answering.asked)


@pytest.mark.parametrize(
    ("raw", "kind", "message"),
    [
        (b'data: {"error":{"message":"no slot"}}\n\n', BackendError, "no slot"),
        (b'error: {"code":500,"message":"oh"}\n\n', BackendError, "oh"),
        (
            b'data: {"error":{"type":"exceed_context_size_error","message":"big"}}\n\n',
            PromptTooLong,
            "big",
        ),
        (b'data: {"content":"a","stop":false}\n\n', BackendCrashed, "early"),
        (b"\n", BackendCrashed, "early"),
    ],
)
def test_what_goes_wrong_in_the_middle_is_typed(serve, raw, kind, message):
    http, _ = serve(raw_steps=raw)
    with pytest.raises(kind, match=message):
        ask(http)


def test_a_server_that_tells_pieces_is_sent_ids_and_an_older_one_text(serve):
    http, answering = serve()
    found = http.asked_for_ids()
    assert found.tells_ids
    ask(found)
    old = LlamaHttp(found.address, found.key, 64, tells_ids=False)
    ask(old, prompt="a b")
    prompts = [one["prompt"] for one in answering.asked if one["path"] == "/completion"]
    assert prompts == [[0, 1], "a b"]


def test_every_request_turns_caching_and_every_sampler_but_temperature_off(serve):
    http, answering = serve()
    ask(http)
    sent = answering.asked[-1]
    assert sent["cache_prompt"] is False
    assert sent["samplers"] == ["temperature"]
    assert (sent["repeat_penalty"], sent["top_k"], sent["top_p"], sent["min_p"]) == (1, 0, 1, 0)


def test_where_nobody_listens_is_not_healthy_and_a_crash_when_asked():
    http = LlamaHttp(f"127.0.0.1:{free_port()}", "key", 64)
    assert not http.healthy()
    with pytest.raises(BackendCrashed, match="connection"):
        ask(http)


def test_the_key_is_in_no_text_of_the_client():
    assert "secret" not in repr(LlamaHttp("127.0.0.1:1", "secret", 64))
