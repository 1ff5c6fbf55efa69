"""The openai backend against llama.cpp's own server: an independent endpoint, real weights."""

from pathlib import Path

import pytest

from fleetmark_agent.backends.base import Completion
from fleetmark_agent.backends.openai import OpenAI
from fleetmark_agent.backends.settings import EnginesSettings, OpenAISettings
from fleetmark_protocol.errors import BackendError, ModelNotFound, PromptTooLong
from fleetmark_protocol.messages import Options

pytestmark = pytest.mark.integration
xllamacpp = pytest.importorskip("xllamacpp")

KEY = "a-key-of-this-test"
PROMPT = "The capital of Italy is"
MODEL = Path("smollm2")
OPTIONS = Options()


@pytest.fixture(scope="module")
def url(model_file):
    params = xllamacpp.CommonParams()
    params.model.path = str(model_file)
    params.model_alias = {"smollm2"}
    params.n_ctx = 256
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
    params.warmup = False
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [KEY]
    params.ui = False
    params.verbosity = 0
    server = xllamacpp.Server(params)
    yield f"{server.listening_address}/v1"
    del server


@pytest.fixture
def key_file(tmp_path):
    file = tmp_path / "key"
    file.write_text(KEY)
    return file


def make(url, key_file, **settings):
    given = OpenAISettings(url=url, api_key_file=key_file, **settings)
    backend = OpenAI(EnginesSettings(openai=given))
    backend.load(MODEL, OPTIONS)
    return backend


def ask(backend, prompt=PROMPT, tokens=8, options=OPTIONS):
    backend.prepare(prompt, options)
    *steps, completion = backend.generate(prompt, tokens, options)
    assert isinstance(completion, Completion)
    return "".join(step.text for step in steps), steps, completion


def test_a_completion_is_streamed_and_counted(url, key_file):
    text, steps, completion = ask(make(url, key_file))
    assert text.startswith(" Rome")
    assert completion.output_tokens == 8
    assert completion.prompt_tokens == 5
    assert completion.stop_reason == "length"
    times = [step.time_ns for step in steps]
    assert times == sorted(times)


def test_a_prompt_that_the_endpoint_had_before_is_told_as_cached(url, key_file):
    backend = make(url, key_file)
    prompt = "Once upon a time there lived a king who had"
    first = ask(backend, prompt)[2]
    again = ask(backend, prompt)[2]
    assert first.prompt_tokens_evaluated == first.prompt_tokens
    assert again.prompt_tokens == first.prompt_tokens
    assert again.prompt_tokens_evaluated < again.prompt_tokens


def test_chat_is_answered_in_the_models_own_template(url, key_file):
    text, _, completion = ask(make(url, key_file, api="chat"), "Say hi.", tokens=100)
    assert text
    assert completion.prompt_tokens > 5, "the template's tokens are counted too"
    assert completion.stop_reason == ("eos" if completion.output_tokens < 100 else "length")


def test_a_seed_decides_what_a_temperature_makes(url, key_file):
    backend = make(url, key_file)
    warm = [Options(temperature=1.5, seed=seed) for seed in (1, 1, 2, 3)]
    texts = [ask(backend, options=options, tokens=16)[0] for options in warm]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1


def test_an_answer_that_is_left_in_the_middle_does_not_spoil_the_next(url, key_file):
    backend = make(url, key_file)
    stream = backend.generate(PROMPT, 200, OPTIONS)
    next(stream)
    stream.close()
    assert ask(backend)[0].startswith(" Rome")


def test_what_the_endpoint_refuses_has_a_type(url, key_file, tmp_path):
    backend = make(url, key_file)
    with pytest.raises(PromptTooLong):
        ask(backend, "word " * 400)
    with pytest.raises(BackendError, match="no tokens"):
        ask(backend, "")
    assert ask(backend)[0].startswith(" Rome")
    with pytest.raises(ModelNotFound, match="nobody"):
        backend.load(Path("nobody"), OPTIONS)
    wrong = tmp_path / "wrong"
    wrong.write_text("another-key")
    with pytest.raises(BackendError, match="401") as raised:
        ask(make(url, wrong))
    assert "another-key" not in str(raised.value)
