"""What the openai backend makes of an endpoint's answers; no engine is asked."""

import json

import pytest
from pydantic import ValidationError

from fakes.fake_openai import Canned, FakeOpenAI
from fleetmark_agent.backends.base import Completion, Token
from fleetmark_agent.backends.openai import OpenAI
from fleetmark_agent.backends.settings import EnginesSettings, OpenAISettings
from fleetmark_protocol.errors import (
    BackendCrashed,
    BackendError,
    BackendUnavailable,
    ModelNotFound,
    PromptTooLong,
)
from fleetmark_protocol.messages import Options

KEY = "sk-not-to-be-shown-1234567890"
OPTIONS = Options(seed=7)


@pytest.fixture
def endpoint():
    with FakeOpenAI() as running:
        yield running


def make(endpoint, **settings):
    return OpenAI(EnginesSettings(openai=OpenAISettings(url=endpoint.url, **settings)))


def events(*chunks, end="data: [DONE]"):
    return [f"data: {json.dumps(chunk)}" for chunk in chunks] + [end]


def piece(text, finish=None):
    return {"choices": [{"index": 0, "text": text, "finish_reason": finish}]}


def usage(prompt, made, **details):
    counts = {"prompt_tokens": prompt, "completion_tokens": made}
    return {"choices": [], "usage": {**counts, **details}}


def ask(backend):
    backend.load("some-model", OPTIONS)
    return list(backend.generate("Hello", 4, OPTIONS))


def test_counts_are_the_endpoints_and_chunks_are_not_tokens(endpoint):
    endpoint.canned = Canned(lines=events(piece(" a b"), piece(" c", "length"), usage(3, 4)))
    *steps, completion = ask(make(endpoint))
    assert [step.text for step in steps] == [" a b", " c"]
    assert all(isinstance(step, Token) for step in steps)
    assert completion == Completion(3, 3, 4, "length")


def test_cached_tokens_of_the_prompt_are_told(endpoint):
    cached = usage(2000, 4, prompt_tokens_details={"cached_tokens": 1024})
    endpoint.canned = Canned(lines=events(piece("a", "stop"), cached))
    completion = ask(make(endpoint))[-1]
    assert (completion.prompt_tokens, completion.prompt_tokens_evaluated) == (2000, 976)
    assert completion.stop_reason == "eos"


def test_it_asks_for_what_the_job_says_and_only_for_what_all_endpoints_know(endpoint):
    endpoint.canned = Canned(lines=events(piece("a", "length"), usage(1, 1)))
    ask(make(endpoint))
    path, headers, body = endpoint.asked[0]
    assert path == "/v1/completions"
    assert "authorization" not in headers
    assert body == {
        "model": "some-model",
        "prompt": "Hello",
        "max_tokens": 4,
        "temperature": 0.0,
        "seed": 7,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_chat_wraps_the_prompt_and_reads_deltas_reasoning_included(endpoint):
    deltas = [
        {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
        {"choices": [{"delta": {"reasoning_content": "hm"}}]},
        {"choices": [{"delta": {"content": " yes"}, "finish_reason": "length"}]},
    ]
    endpoint.canned = Canned(lines=[": still here", *events(*deltas, usage(9, 2))])
    *steps, _ = ask(make(endpoint, api="chat"))
    assert [step.text for step in steps] == ["hm", " yes"]
    path, _, body = endpoint.asked[0]
    assert path == "/v1/chat/completions"
    assert body["messages"] == [{"role": "user", "content": "Hello"}]


def test_without_counts_there_is_no_measurement(endpoint):
    endpoint.canned = Canned(lines=events(piece("a", "length")))
    with pytest.raises(BackendError, match="no token counts") as raised:
        ask(make(endpoint))
    assert "include_usage" in raised.value.hint


@pytest.mark.parametrize(
    ("canned", "kind", "said"),
    [
        (Canned(401, {"error": {"message": f"bad key {KEY}"}}), BackendError, "401: bad key"),
        (Canned(404, {"error": {"message": "no such model"}}), ModelNotFound, "no such model"),
        (Canned(429, {"error": {"message": "slow down"}}), BackendError, "429: slow down"),
        (Canned(500, "<html>oops</html>"), BackendError, "500: <html>oops"),
        (
            Canned(400, {"error": {"code": "context_length_exceeded", "message": "too long"}}),
            PromptTooLong,
            "too long",
        ),
        (Canned(lines=events({"error": {"message": f"gone {KEY}"}})), BackendError, "gone"),
        (Canned(lines=["data: {broken"]), BackendError, "no JSON"),
        (Canned(lines=events(piece("a"), end=""), cut=True), BackendCrashed, "broke"),
        (Canned(lines=events(piece("a"), end="")), BackendCrashed, "in the middle"),
    ],
)
def test_what_goes_wrong_has_its_type_and_the_endpoints_words_but_never_the_key(
    endpoint, tmp_path, canned, kind, said
):
    endpoint.canned = canned
    key_file = tmp_path / "key"
    key_file.write_text(f"{KEY}\n")
    with pytest.raises(kind, match=said) as raised:
        ask(make(endpoint, api_key_file=key_file))
    assert endpoint.asked[0][1]["authorization"] == f"Bearer {KEY}"
    assert KEY not in repr(raised.getrepr())


def test_a_model_that_is_not_among_the_listed_is_not_found(endpoint):
    endpoint.models = {"data": [{"id": "other-model"}]}
    with pytest.raises(ModelNotFound, match="some-model") as raised:
        ask(make(endpoint))
    assert "other-model" in raised.value.hint
    assert endpoint.asked == []


def test_nobody_at_the_url_is_told_at_load():
    backend = OpenAI(EnginesSettings(openai=OpenAISettings(url="http://127.0.0.1:9/v1")))
    assert backend.probe().available, "asking would cost time, or money"
    with pytest.raises(BackendUnavailable, match=r"127\.0\.0\.1:9"):
        ask(backend)


def test_without_a_url_it_says_what_to_set():
    found = OpenAI(EnginesSettings()).probe()
    assert not found.available
    assert "engines.openai.url" in found.hint


@pytest.mark.parametrize("content", ["", "two words", "line\nline", None])
def test_a_key_file_that_holds_no_key_is_told_without_its_content(endpoint, tmp_path, content):
    key_file = tmp_path / "key"
    if content is not None:
        key_file.write_text(content)
    found = make(endpoint, api_key_file=key_file).probe()
    assert not found.available
    assert "api_key_file" in found.reason
    assert content is None or not content or content not in found.reason


@pytest.mark.parametrize(
    "url", ["ftp://host/v1", "host:80", "https://user:word@host/v1", "https://host/v1?key=1"]
)
def test_a_url_is_a_web_address_without_secrets_in_it(url):
    with pytest.raises(ValidationError, match="url"):
        OpenAISettings(url=url)


def test_a_key_goes_out_encrypted_or_not_at_all(tmp_path):
    with pytest.raises(ValidationError, match="in clear"):
        OpenAISettings(url="http://example.org/v1", api_key_file=tmp_path / "key")
    OpenAISettings(url="https://example.org/v1", api_key_file=tmp_path / "key")
    OpenAISettings(url="http://127.0.0.1:8080/v1", api_key_file=tmp_path / "key")


def test_before_a_round_every_client_has_a_connection_of_its_own_open():
    with FakeOpenAI(keeps_open=True) as endpoint:
        endpoint.models = {"data": [{"id": "some-model"}]}
        endpoint.canned = Canned(lines=events(piece(" a", "length"), usage(1, 1)))
        backend = make(endpoint)
        backend.load("some-model", OPTIONS)
        backend.prepare_round(["a", "b", "c"], OPTIONS)
        opened = {port for _, port in endpoint.connections}
        assert len({port for _, port in endpoint.connections[-3:]}) == 3
        list(backend.generate("a", 1, OPTIONS))
        assert endpoint.connections[-1][0] == "POST"
        assert endpoint.connections[-1][1] in opened
        backend.close()


def test_an_endpoint_is_asked_by_as_many_as_a_job_says():
    assert "parallel" in OpenAI(EnginesSettings()).takes
