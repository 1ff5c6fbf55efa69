"""One suite for every backend: what it does with a model and a prompt. Engine and weights are real.

What happens when something goes wrong around it is in `test_backend_faults.py`.
"""

import subprocess
import sys

import pytest

from conformance import CORES, PROMPT, Hosted, backend_of, context_of
from enginetable import ENGINES, LACKS, engines_here
from fleetmark_protocol.errors import BackendError, PromptTooLong

pytestmark = pytest.mark.integration

HEAVY = "llama_cpp xllamacpp torch transformers ctransformers langchain_core ollama openai numpy"
ITALY = " Rome"


@pytest.fixture(scope="module", params=engines_here(), ids=str)
def engine(request):
    return request.param


@pytest.fixture(scope="module")
def fresh(engine):
    """The engine's process, whose model some tests take away."""
    made = Hosted(engine)
    yield made
    made.end()


@pytest.fixture(scope="module")
def loaded(engine):
    """The engine's process with its model; every test leaves it so."""
    made = Hosted(engine)
    made.load()
    yield made
    made.end()


def output(answer) -> tuple:
    """What was generated, as exactly as the engine tells it."""
    return tuple(answer.ids) or answer.text


PROBE = """
import sys
from fleetmark_agent.backends import registry
from fleetmark_agent.backends.settings import EnginesSettings
engines = EnginesSettings.model_validate_json(sys.argv[2])
found = registry.create(sys.argv[1], engines).probe()
print(found.available, found.version, sorted(set(sys.argv[3].split()) & set(sys.modules)))
print(found.reason)
"""


def test_a_probe_says_the_version_and_imports_no_engine(engine):
    settings = engine.settings().model_dump_json()
    done = subprocess.run(
        [sys.executable, "-c", PROBE, engine.backend, settings, HEAVY],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("True "), done.stdout
    assert ("True None" in done.stdout) == ("version" in engine.lacks)
    assert done.stdout.splitlines()[0].endswith("[]"), "the probe imported these"


def test_the_bindings_of_llama_cpp_say_what_they_were_built_with(engine):
    features = backend_of(engine).probe().features
    assert not engine.llama_cpp or {"AVX2", "NEON", "SSE3"} & set(features)
    assert all(name == name.strip() and " " not in name for name in features)


def test_a_load_is_timed_apart_and_tells_the_version(fresh):
    report = fresh.load()
    assert report.load_s > 0
    assert (report.version is None) == ("version" in fresh.engine.lacks)


def test_a_load_replaces_the_one_before(fresh):
    fresh.load()
    before = fresh.held()
    fresh.load()
    after = fresh.held()
    assert (after.children, after.listening) == (before.children, before.listening)
    assert fresh.ask().text.startswith(ITALY)


def test_a_cold_load_leaves_nothing_of_the_one_before(fresh):
    for _ in range(2):
        report = fresh.load(start="cold")
        answer = fresh.ask(start="cold")
        # A program that is started for each prompt loads then.
        assert report.load_s is None or report.load_s > 0
        assert answer.completion.load_included == (report.load_s is None)
        assert answer.text.startswith(ITALY)
        assert answer.completion.prompt_tokens_evaluated == answer.completion.prompt_tokens


def test_it_may_be_closed_twice_and_then_generates_nothing(fresh):
    fresh.load()
    fresh.close_backend()
    fresh.close_backend()
    assert fresh.held().children == 0
    with pytest.raises(BackendError):
        fresh.ask()


def test_it_answers_sanely(loaded):
    assert loaded.ask().text.startswith(ITALY)


@pytest.mark.parametrize("tokens", [1, 2, 33])
def test_it_generates_as_many_tokens_as_asked_or_says_why_not(loaded, tokens):
    answer = loaded.ask(tokens=tokens)
    done = answer.completion
    assert done.output_tokens == tokens or "ignore_eos" in loaded.engine.lacks
    assert done.output_tokens <= tokens
    assert done.stop_reason == ("length" if done.output_tokens == tokens else "eos")


def test_the_steps_of_a_stream_count_as_many_tokens_as_the_engine(loaded):
    answer = loaded.ask(tokens=33)
    if "output_ids" in loaded.engine.lacks:
        assert answer.ids == []
    else:
        assert sum(step.count for step in answer.steps) == answer.completion.output_tokens
        assert all(len(step.ids) == step.count for step in answer.steps)
    assert len(answer.steps) > 10, "tokens come one by one, not all at the end"


def test_the_times_of_tokens_are_in_order_and_within_the_request(loaded):
    answer = loaded.ask()
    times = [step.time_ns for step in answer.steps]
    assert times == sorted(times)
    assert answer.before_ns < times[0]
    assert times[-1] <= answer.after_ns


def test_the_parts_by_the_engines_clock_add_up_to_no_more_than_the_wall_clock(loaded):
    answer = loaded.ask(tokens=32)
    done, took_s = answer.completion, (answer.after_ns - answer.before_ns) / 1e9
    if "clock" not in loaded.engine.lacks:
        parts_s = done.engine_prefill_s + done.engine_decode_s
        assert 0.3 * took_s < parts_s <= took_s * 1.02
    else:
        assert done.engine_prefill_s is done.engine_decode_s is None


def test_greedy_output_is_the_same_every_time_and_nothing_is_cached(loaded):
    answers = [loaded.ask() for _ in range(3)]
    assert len({output(answer) for answer in answers}) == 1
    for answer in answers:
        done = answer.completion
        assert done.prompt_tokens == done.prompt_tokens_evaluated == 5
        assert len(done.prompt_ids) == (0 if "prompt_ids" in loaded.engine.lacks else 5)


def test_a_longer_prompt_after_its_own_prefix_is_evaluated_whole(loaded):
    loaded.ask(PROMPT)
    done = loaded.ask(PROMPT + " a city that").completion
    assert done.prompt_tokens_evaluated == done.prompt_tokens > 5


def test_a_seed_decides_what_a_temperature_makes(loaded):
    def made(seed):
        return output(loaded.ask(tokens=24, temperature=1.5, seed=seed))

    assert made(1) == made(1)
    assert len({made(seed) for seed in range(4)}) > 1


def test_without_ignore_eos_the_model_may_end_by_itself(loaded):
    chat = "<|im_start|>user\nSay hi.<|im_end|>\n<|im_start|>assistant\n"
    done = loaded.ask(chat, 150, ignore_eos=False).completion
    assert done.stop_reason in {"eos", "length"}
    assert (done.output_tokens < 150) == (done.stop_reason == "eos")
    if "ignore_eos" not in loaded.engine.lacks:
        assert loaded.ask(chat, 150).completion.output_tokens == 150


def test_unicode_goes_in_and_whole_characters_come_out(loaded):
    answer = loaded.ask("Grüße aus Köln, 東京 und 🍝: wie heißt", tokens=24)
    assert answer.completion.prompt_tokens > 10
    assert answer.text
    assert "\ufffd" not in answer.text, "a character came out in pieces"


def test_a_prompt_longer_than_the_context_is_refused_and_the_next_one_works(loaded):
    context_tokens = context_of(loaded.engine)
    with pytest.raises(PromptTooLong, match=str(context_tokens)):
        loaded.ask("word " * (context_tokens + 100))
    if not loaded.engine.remote:
        with pytest.raises(PromptTooLong):
            loaded.ask(tokens=context_tokens - 4)
    assert loaded.ask().text.startswith(ITALY)


def test_an_empty_prompt_is_refused(loaded):
    with pytest.raises(BackendError, match="no tokens"):
        loaded.ask("")
    assert loaded.ask().text.startswith(ITALY)


def test_a_stream_that_is_left_in_the_middle_does_not_spoil_the_next(loaded):
    whole = loaded.ask()
    loaded.leave(3)
    assert output(loaded.ask()) == output(whole)


def test_twenty_loads_and_closes_leave_nothing_behind(fresh):
    fresh.close_backend()
    before = fresh.cycles(3)
    after = fresh.cycles(20)
    assert after.descriptors <= before.descriptors + 1
    assert after.threads <= before.threads + CORES
    assert (after.children, after.listening) == (0, 0)
    held_bytes = after.rss_bytes - before.rss_bytes
    assert held_bytes < 60 * 2**20, "less than the model's size, whatever the allocator keeps"


def test_every_llama_cpp_does_the_same_work():
    made = {}
    for engine in engines_here():
        if engine.llama_cpp:
            hosted = Hosted(engine)
            hosted.load()
            answer = hosted.ask(tokens=32)
            made[str(engine)] = (answer.completion.prompt_ids, tuple(answer.ids))
            hosted.end()
    assert len(set(made.values())) == 1, made


def test_every_engine_that_tells_its_prompts_tokens_makes_the_same_ones():
    chat = "<|im_start|>user\nGrüße, 東京 & 🍝!<|im_end|>\n<|im_start|>assistant\n"
    made = {}
    for engine in engines_here():
        if "prompt_ids" not in engine.lacks:
            hosted = Hosted(engine)
            hosted.load()
            made[str(engine)] = hosted.ask(chat, tokens=1).completion.prompt_ids
            hosted.end()
    assert len(made) > 1
    assert len(set(made.values())) == 1, made


def test_every_registered_backend_is_in_the_suite():
    from fleetmark_agent.backends import registry

    assert set(registry.names()) == {engine.backend for engine in ENGINES}


def test_rows_of_the_suite_have_names_of_their_own_and_lack_what_is_known():
    assert len({str(engine) for engine in ENGINES}) == len(ENGINES)
    assert all(engine.lacks <= LACKS.keys() for engine in ENGINES)
