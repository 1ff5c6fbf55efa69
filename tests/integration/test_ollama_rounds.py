"""Several requests at the same time to an Ollama of our own: the stand-in's books tell what it did.

Ollama itself does not say what it found again; the stand-in notes what it really evaluated.
"""

import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from fleetmark_agent.backends import registry
from fleetmark_agent.backends.base import Completion
from fleetmark_agent.backends.settings import EnginesSettings, OllamaSettings
from fleetmark_protocol.errors import PromptTooLong
from fleetmark_protocol.messages import Options
from ollamas import fake_ollama

pytestmark = pytest.mark.integration

PROMPT = "The capital of Italy is"
PROMPT_TOKENS = 5
CLIENTS = 3
OPTIONS = Options(threads=1, context_tokens=256, parallel=CLIENTS)


@pytest.fixture
def backend(tmp_path, model_file):
    settings = OllamaSettings(executable=fake_ollama(tmp_path / "bin"), serve="always")
    made = registry.create("ollama", EnginesSettings(ollama=settings))
    made.load(model_file, OPTIONS)
    yield made
    made.close()


def ask(backend, prompt, tokens=6) -> Completion:
    return list(backend.generate(prompt, tokens, OPTIONS))[-1]


def ask_round(backend, *prompts) -> list:
    def one(prompt):
        try:
            return ask(backend, prompt)
        except PromptTooLong as error:
            return error

    backend.prepare_round(prompts, OPTIONS)
    with ThreadPoolExecutor(len(prompts)) as clients:
        return list(clients.map(one, prompts))


def evaluated(backend) -> list[int]:
    """Tokens that it worked on, request by request; a prompt of one token is our own."""
    with urllib.request.urlopen(f"{backend.place[0]}/fake/evaluated") as answer:
        return [count for count in json.load(answer) if count > 1]


def test_nothing_is_found_again_from_round_to_round_nor_after_one(backend):
    for _ in range(2):
        assert len(ask_round(backend, *[PROMPT] * CLIENTS)) == CLIENTS
    for _ in range(2):
        backend.prepare(PROMPT, OPTIONS)
        ask(backend, PROMPT)
    assert evaluated(backend) == [PROMPT_TOKENS] * (2 * CLIENTS + 2)


def test_a_client_that_was_refused_leaves_nothing_to_be_found_by_the_next(backend):
    answers = ask_round(backend, PROMPT, "word " * 400, PROMPT)
    assert isinstance(answers[1], PromptTooLong)
    ask_round(backend, PROMPT, PROMPT)
    ask(backend, PROMPT)
    ask(backend, PROMPT)
    whole = [count for count in evaluated(backend) if count < 100]
    assert whole == [PROMPT_TOKENS] * 6


def test_the_server_is_told_how_many_it_is_to_serve(backend):
    (server,) = [
        child for child in psutil.Process().children() if "serve" in " ".join(child.cmdline())
    ]
    assert server.environ()["OLLAMA_NUM_PARALLEL"] == str(CLIENTS)
