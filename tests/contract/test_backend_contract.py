"""One suite for every backend: the engine is real, the weights are real."""

import os
import time
from pathlib import Path

import psutil
import pytest

from engines import backends_here
from fleetmark_agent.backends import registry
from fleetmark_agent.backends.base import Backend, Completion, Token
from fleetmark_protocol.errors import BackendError, ModelRejected, PromptTooLong
from fleetmark_protocol.messages import Options

pytestmark = pytest.mark.integration

PROMPT = "The capital of Italy is"
OPTIONS = Options(threads=2, context_tokens=256)


@pytest.fixture(scope="module", params=backends_here())
def name(request):
    return request.param


@pytest.fixture(scope="module")
def backend(name, model_file):
    made = registry.create(name)
    made.load(model_file, OPTIONS)
    yield made
    made.close()


def ask(backend: Backend, prompt: str = PROMPT, tokens: int = 16, options: Options = OPTIONS):
    steps: list[Token] = []
    completion: Completion | None = None
    for item in backend.generate(prompt, tokens, options):
        assert completion is None, "the completion is the last item"
        if isinstance(item, Completion):
            completion = item
        else:
            steps.append(item)
    assert completion is not None
    return steps, completion


def test_probe_says_the_version_without_loading_the_engine(name):
    found = registry.create(name).probe()
    assert found.available
    assert found.version


def test_load_is_timed_apart_and_tells_the_version(name, model_file):
    fresh = registry.create(name)
    started_s = time.perf_counter()
    report = fresh.load(model_file, OPTIONS)
    assert 0 < report.load_s <= time.perf_counter() - started_s
    assert report.version
    fresh.close()


def test_it_answers_sanely(backend):
    steps, _ = ask(backend)
    assert "".join(step.text for step in steps).startswith(" Rome")


def test_it_generates_exactly_as_many_tokens_as_asked_and_counts_them_itself(backend):
    for tokens in (1, 2, 33):
        steps, completion = ask(backend, tokens=tokens)
        assert completion.output_tokens == tokens
        assert sum(step.count for step in steps) == tokens
        assert completion.stop_reason == "length"


def test_each_token_has_its_id_and_time_in_order(backend):
    before_ns = time.perf_counter_ns()
    steps, _ = ask(backend)
    times = [step.time_ns for step in steps]
    assert times == sorted(times)
    assert before_ns < times[0]
    assert times[-1] <= time.perf_counter_ns()
    assert all(len(step.ids) == step.count for step in steps)


def test_the_parts_by_the_engines_clock_add_up_to_no_more_than_the_wall_clock(backend):
    before_s = time.perf_counter()
    _, completion = ask(backend, tokens=32)
    took_s = time.perf_counter() - before_s
    parts_s = completion.engine_prefill_s + completion.engine_decode_s
    assert 0.3 * took_s < parts_s <= took_s * 1.02


def test_greedy_output_is_the_same_every_time_and_nothing_is_cached(backend):
    runs = [ask(backend) for _ in range(3)]
    assert len({tuple(i for step in steps for i in step.ids) for steps, _ in runs}) == 1
    for _, completion in runs:
        assert completion.prompt_tokens == len(completion.prompt_ids) == 5
        assert completion.prompt_tokens_evaluated == completion.prompt_tokens


def test_a_longer_prompt_after_its_own_prefix_is_evaluated_whole(backend):
    ask(backend, PROMPT)
    _, completion = ask(backend, PROMPT + " a city that")
    assert completion.prompt_tokens_evaluated == completion.prompt_tokens > 5


def test_a_seed_decides_what_a_temperature_makes(backend):
    def ids(seed):
        warm = OPTIONS.model_copy(update={"temperature": 1.5, "seed": seed})
        steps, _ = ask(backend, options=warm, tokens=24)
        return [i for step in steps for i in step.ids]

    assert ids(1) == ids(1)
    assert len({tuple(ids(seed)) for seed in range(4)}) > 1


def test_without_ignore_eos_the_model_may_end_by_itself(backend):
    chat = "<|im_start|>user\nSay hi.<|im_end|>\n<|im_start|>assistant\n"
    free = OPTIONS.model_copy(update={"ignore_eos": False})
    _, completion = ask(backend, chat, 200, free)
    forced, _ = ask(backend, chat, 200)
    assert sum(step.count for step in forced) == 200
    assert completion.stop_reason in {"eos", "length"}
    assert (completion.output_tokens < 200) == (completion.stop_reason == "eos")


def test_unicode_goes_in_and_whole_characters_come_out(backend):
    steps, completion = ask(backend, "Grüße aus Köln, 東京 und 🍝: wie heißt", tokens=24)
    text = "".join(step.text for step in steps)
    assert completion.prompt_tokens > 10
    assert text
    assert "\ufffd" not in text, "a character came out in pieces"


def test_a_prompt_longer_than_the_context_is_refused_and_the_next_one_works(backend):
    with pytest.raises(PromptTooLong, match="256"):
        ask(backend, "word " * 400)
    with pytest.raises(PromptTooLong):
        ask(backend, PROMPT, tokens=252)
    assert ask(backend)[1].output_tokens == 16


def test_an_empty_prompt_is_refused(backend):
    with pytest.raises(BackendError, match="no tokens"):
        ask(backend, "")


def test_a_stream_that_is_left_in_the_middle_does_not_spoil_the_next(backend):
    stream = backend.generate(PROMPT, 100, OPTIONS)
    for _ in range(3):
        next(stream)
    stream.close()
    steps, completion = ask(backend)
    assert completion.output_tokens == 16
    assert "".join(step.text for step in steps).startswith(" Rome")


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model at all" * 100])
def test_what_is_no_model_is_rejected(name, content, tmp_path):
    file = tmp_path / "bad.gguf"
    file.write_bytes(content)
    fresh = registry.create(name)
    with pytest.raises(ModelRejected):
        fresh.load(file, OPTIONS)
    fresh.close()


def test_a_truncated_model_is_rejected(name, model_file, tmp_path):
    file = tmp_path / "half.gguf"
    file.write_bytes(model_file.read_bytes()[: 40 * 2**20])
    fresh = registry.create(name)
    with pytest.raises(ModelRejected):
        fresh.load(file, OPTIONS)
    fresh.close()


def test_twenty_loads_and_closes_leave_nothing_behind(name, model_file):
    def cycle():
        fresh = registry.create(name)
        fresh.load(model_file, OPTIONS)
        ask(fresh, tokens=2)
        fresh.close()

    process = psutil.Process()
    for _ in range(3):
        cycle()
    before = (process.num_fds(), process.num_threads(), process.memory_info().rss)
    for _ in range(20):
        cycle()
    fds, threads, rss = process.num_fds(), process.num_threads(), process.memory_info().rss
    assert fds <= before[0] + 1
    assert threads <= before[1] + os.cpu_count()
    assert rss < before[2] + 60 * 2**20, "less than the model's size, whatever the allocator keeps"
    assert process.children() == []
    listening = [c for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert len(listening) <= 1, "the module's own loaded backend at most"


def test_all_backends_of_llama_cpp_do_the_same_work(model_file: Path):
    outputs = set()
    for name in backends_here():
        fresh = registry.create(name)
        fresh.load(model_file, OPTIONS)
        steps, completion = ask(fresh, tokens=32)
        outputs.add((completion.prompt_ids, tuple(i for step in steps for i in step.ids)))
        fresh.close()
    assert len(outputs) == 1
