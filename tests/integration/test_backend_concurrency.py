"""One suite for every backend that serves several requests at once. Engine and weights are real.

What it does with one prompt at a time is in `test_backend_conformance.py`.
"""

import psutil
import pytest

from conformance import PROMPT, Hosted, backend_of, model_of, options_of
from enginetable import engines_here
from fleetmark_agent.rounds import round_fields
from fleetmark_agent.trials import measured_fields
from fleetmark_agent.workerprocess import WorkerProcess
from fleetmark_protocol.errors import BackendTimeout, PromptTooLong
from servers import wait_for

pytestmark = pytest.mark.integration

CLIENTS = 3
PROMPTS = [PROMPT, "The sun is", "Two and two make"]
SERVERS = {"xllamacpp", "llama_server", "llamafile", "ollama", "openai"}


def serves(engine) -> bool:
    return "parallel" in backend_of(engine).takes


HERE = [engine for engine in engines_here() if serves(engine)]


@pytest.fixture(scope="module", params=HERE, ids=str)
def engine(request):
    return request.param


@pytest.fixture(scope="module")
def loaded(engine):
    """The engine's process, ready for several clients; every test leaves it so."""
    made = Hosted(engine)
    made.load(parallel=CLIENTS)
    yield made
    made.end()


def together(loaded, prompts, tokens=16):
    return loaded.ask_together(prompts, tokens, parallel=CLIENTS)


def alone(loaded, prompt, tokens=16):
    return loaded.ask(prompt, tokens, parallel=CLIENTS)


def output(answer) -> tuple:
    return tuple(answer.ids) or answer.text


def overlap(answers) -> bool:
    """Whether every client had tokens before any client had its last one."""
    firsts = [answer.steps[0].time_ns for answer in answers]
    lasts = [answer.steps[-1].time_ns for answer in answers]
    return max(firsts) < min(lasts)


def test_these_backends_serve_several_at_once_and_no_other():
    for engine in engines_here():
        assert serves(engine) == (engine.backend in SERVERS), engine


def test_answers_come_at_the_same_time_and_not_one_after_another(loaded):
    answers = together(loaded, [PROMPT] * CLIENTS, tokens=24)
    assert max(answer.before_ns for answer in answers) < min(a.after_ns for a in answers)
    assert overlap(answers)


def test_the_same_prompt_from_all_is_evaluated_whole_for_each_of_them_every_time(loaded):
    whole = alone(loaded, PROMPT)
    for _ in range(2):
        answers = together(loaded, [PROMPT] * CLIENTS)
        assert {output(answer) for answer in answers} == {output(whole)}
        for answer in answers:
            done = answer.completion
            assert done.prompt_tokens_evaluated == done.prompt_tokens == 5
            assert done.output_tokens == 16


def test_each_client_gets_the_answer_to_its_own_prompt(loaded):
    one_by_one = [alone(loaded, prompt) for prompt in PROMPTS]
    answers = together(loaded, PROMPTS)
    assert [output(answer) for answer in answers] == [output(answer) for answer in one_by_one]
    for answer, before in zip(answers, one_by_one, strict=True):
        done = answer.completion
        assert done.prompt_tokens == done.prompt_tokens_evaluated == before.completion.prompt_tokens
        assert done.output_tokens == 16
        if "output_ids" not in loaded.engine.lacks:
            assert sum(step.count for step in answer.steps) == 16


def test_a_prompt_of_one_client_is_not_found_again_by_another_later(loaded):
    together(loaded, PROMPTS)
    answers = together(loaded, [prompt + " a word that" for prompt in reversed(PROMPTS)])
    for answer in answers:
        done = answer.completion
        assert done.prompt_tokens_evaluated == done.prompt_tokens > 5
    done = alone(loaded, PROMPT).completion
    assert done.prompt_tokens_evaluated == done.prompt_tokens


def test_every_client_has_the_whole_context_for_itself(loaded):
    prompts = [f"{word} " * 120 for word in ("one", "two", "red")]
    answers = together(loaded, prompts, tokens=100)
    assert [answer.completion.output_tokens for answer in answers] == [100] * CLIENTS
    assert overlap(answers)


def test_what_is_refused_to_one_client_leaves_the_others_alone(loaded):
    whole = alone(loaded, PROMPT)
    answers = together(loaded, [PROMPT, "word " * 6000, PROMPT])
    assert isinstance(answers[1], PromptTooLong)
    assert output(answers[0]) == output(answers[2]) == output(whole)
    assert [output(one) for one in together(loaded, [PROMPT] * CLIENTS)] == [output(whole)] * 3


@pytest.fixture
def worker(engine, tmp_path):
    made = WorkerProcess(engine.backend, tmp_path / "worker.log")
    settings = engine.settings().model_dump(mode="json")
    asked = {"options": options_of(engine, parallel=CLIENTS, context_tokens=2048).model_dump()}
    made.ask({"do": "load", "model": str(model_of(engine)), "engines": settings, **asked}, 240)
    made.ask({"do": "prepare_round", "prompts": PROMPTS[:2], **asked}, 240)
    yield made
    made.close()


def ask_round(worker, engine, tokens, timeout_s):
    options = options_of(engine, parallel=CLIENTS, context_tokens=2048).model_dump()
    asked = {"prompts": PROMPTS[:2], "output_tokens": tokens, "options": options}
    return worker.ask({"do": "generate_round", **asked}, timeout_s)["clients"]


def test_the_throughput_of_two_clients_is_measured_over_their_whole_round(worker, engine):
    answers = ask_round(worker, engine, 16, 240)
    measured = [measured_fields(answer) for answer in answers]
    assert [fields["output_tokens"] for fields in measured] == [16, 16]
    took_s = max(fields["latency_s"] for fields in measured)
    rate = round_fields(answers, 16, ignore_eos=True)["throughput_tps"]
    # As many tokens as both made, in a time that both began at nearly the same moment.
    assert 32 / (took_s + 0.5) < rate <= 32 / took_s


def test_a_round_past_its_deadline_is_killed_with_all_its_clients(worker, engine):
    tree = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
    with pytest.raises(BackendTimeout, match="generate_round"):
        ask_round(worker, engine, 1900, 0.5)
    wait_for(lambda: not any(map(lives, tree)), 10, "the end of all processes")


def lives(process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
