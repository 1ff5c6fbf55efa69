"""LangChain over each inner engine does the work that the engine's own backend does."""

import os
from pathlib import Path

import pytest

from enginetable import ENGINES, Engine, weights_for
from fleetmark_agent.backends import registry
from fleetmark_agent.backends.base import Completion, Token
from fleetmark_protocol.errors import ModelRejected, OptionNotTaken
from fleetmark_protocol.messages import Options

pytestmark = pytest.mark.integration
pytest.importorskip("langchain_community")

PROMPT = "The capital of Italy is"
PROMPTS = (
    PROMPT,
    "def area(radius):\n    return",
    "Zürich ist eine schöne Stadt, größer als",
    "<|im_start|>user\nSay hi.<|im_end|>\n<|im_start|>assistant\n",
    "北京是中国的首都\uff0c人口",
    "😀🎉 emoji party 👩\u200d👩\u200d👧",
)
INNER = {"llama_cpp": ("gguf",), "ctransformers": ("gguf-2023",), "ollama": ("gguf",)}


def options(inner: str | None, **more) -> Options:
    return Options(threads=1, context_tokens=256, inner_backend=inner, **more)


def model(inner: str) -> Path:
    return weights_for(Engine("langchain"), INNER[inner])


def settings(inner: str):
    (row,) = [row for row in ENGINES if row.backend == "langchain" and inner in str(row)]
    if not row.here:
        pytest.skip(f"{inner} is not installed")
    return row.settings()


@pytest.fixture(scope="module", params=list(INNER))
def inner(request):
    return request.param


@pytest.fixture(scope="module")
def pair(inner):
    """The backend over LangChain, and the bare one."""
    made = [registry.create(name, settings(inner)) for name in ("langchain", inner)]
    for backend in made:
        backend.load(model(inner), options(inner))
    yield made
    for backend in made:
        backend.close()


def ask(backend, prompt, tokens, chosen) -> tuple[list[Token], Completion]:
    if hasattr(backend, "prepare"):
        backend.prepare(prompt, chosen)
    *steps, completion = backend.generate(prompt, tokens, chosen)
    return steps, completion


def ids(steps: list[Token]) -> list[int]:
    return [token for step in steps for token in step.ids]


def text(steps: list[Token]) -> str:
    return "".join(step.text for step in steps)


def test_greedy_answers_are_the_bare_engines_token_by_token(pair, inner):
    for prompt in PROMPTS:
        (ours, our_end), (bare, bare_end) = (ask(one, prompt, 20, options(inner)) for one in pair)
        assert our_end.prompt_tokens == bare_end.prompt_tokens
        assert our_end.prompt_tokens_evaluated == our_end.prompt_tokens
        assert our_end.prompt_ids == bare_end.prompt_ids
        assert our_end.output_tokens == bare_end.output_tokens == 20
        assert our_end.stop_reason == bare_end.stop_reason
        assert ids(ours) == ids(bare)
        if inner == "ctransformers":
            # Its own stream keeps back, and at the end loses, what comes after the last ASCII.
            assert text(bare).startswith(text(ours).rstrip("\ufffd"))
        else:
            assert text(ours).rstrip("\ufffd") == text(bare).rstrip("\ufffd")


def test_a_seed_and_a_temperature_do_what_they_do_in_the_bare_engine(pair, inner):
    for seed in (1, 2):
        warm = options(inner, temperature=1.2, seed=seed)
        (ours, _), (bare, _) = (ask(one, PROMPT, 16, warm) for one in pair)
        assert text(ours) == text(bare)
        assert ids(ours) == ids(bare)


def test_every_token_is_counted_however_the_chunks_are_cut(pair, inner):
    for tokens in (1, 2, 17):
        steps, completion = ask(pair[0], "😀🎉 emoji", tokens, options(inner))
        assert completion.output_tokens == tokens
        times = [step.time_ns for step in steps]
        assert times == sorted(times)
        if inner != "ollama":
            assert sum(step.count for step in steps) == len(ids(steps)) == tokens


def test_llama_cpp_evaluates_a_prompt_whole_after_its_own_beginning():
    llama_cpp = pytest.importorskip("llama_cpp")
    backend = registry.create("langchain")
    chosen = options("llama_cpp")
    backend.load(model("llama_cpp"), chosen)
    for prompt in (PROMPT, PROMPT + " a city that", PROMPT + " a city that"):
        _, completion = ask(backend, prompt, 4, chosen)
        perf = llama_cpp.llama_perf_context(backend._inner._llm.client.ctx)
        assert perf.n_p_eval == completion.prompt_tokens_evaluated == completion.prompt_tokens
    backend.close()


def test_the_model_ends_by_itself_where_it_may(pair, inner):
    free = options(inner, ignore_eos=False)
    chat = "<|im_start|>user\nSay hi.<|im_end|>\n<|im_start|>assistant\n"
    (ours, our_end), (bare, bare_end) = (ask(one, chat, 120, free) for one in pair)
    assert our_end.stop_reason == bare_end.stop_reason
    assert our_end.output_tokens == bare_end.output_tokens
    assert text(ours) == text(bare)


def test_it_asks_for_an_inner_engine_and_names_those_that_it_drives():
    backend = registry.create("langchain")
    for wrong in (None, "xllamacpp"):
        with pytest.raises(OptionNotTaken, match="inner_backend") as refused:
            backend.load(model("llama_cpp"), options(wrong))
        assert "llama_cpp, ollama, ctransformers" in str(refused.value)
        with pytest.raises(OptionNotTaken):
            backend.formats_for(options(wrong))
    assert backend.formats_for(options("ctransformers")) == ("gguf-2023", "ggml")


@pytest.mark.parametrize("inner_name", ["llama_cpp", "ctransformers"])
def test_a_file_that_the_inner_engine_cannot_read_is_refused(tmp_path, inner_name):
    settings(inner_name)
    wrong = tmp_path / "wrong.gguf"
    wrong.write_text("no model at all")
    with pytest.raises(ModelRejected):
        registry.create("langchain").load(wrong, options(inner_name))


def test_prompts_are_sent_to_no_tracing_server_even_where_the_owner_traces(monkeypatch):
    monkeypatch.setenv("LANGSMITH_TRACING", "true")
    monkeypatch.setenv("LANGCHAIN_TRACING_V2", "true")
    settings("llama_cpp")
    backend = registry.create("langchain")
    backend.load(model("llama_cpp"), options("llama_cpp"))
    assert {os.environ[name] for name in ("LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2")} == {"false"}
    backend.close()
