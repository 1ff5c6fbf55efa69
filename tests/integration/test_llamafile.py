"""llamafile's backend before a stand-in: its flags and protocols, by real inference and weights."""

import psutil
import pytest

from engines import smollm2
from fleetmark_agent.backends.base import Completion
from fleetmark_agent.backends.llamafile import Llamafile
from fleetmark_agent.backends.settings import EnginesSettings
from fleetmark_agent.backends.xllamacpp import XLlamaCpp
from fleetmark_agent.workerprocess import WorkerProcess
from fleetmark_protocol.errors import (
    BackendCrashed,
    BackendError,
    ModelRejected,
    PromptTooLong,
)
from fleetmark_protocol.messages import Options
from llamafiles import stand_in_llamafile, trusting
from servers import wait_for

pytestmark = pytest.mark.integration

PROMPT = "The capital of Italy is"
AWKWARD = "--help\n-n 3 \\n C:\\temp 'x' $(id) 東京:\n"
WARM = Options(threads=2, context_tokens=256)
COLD = WARM.model_copy(update={"start": "cold"})
VERSIONS = ("0.6.1", "0.9.3", "0.10.0")


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    directory = tmp_path_factory.mktemp("llamafiles")
    return {version: stand_in_llamafile(directory, version) for version in VERSIONS}


@pytest.fixture(scope="module")
def expected():
    """What the same llama.cpp says to each prompt without a llamafile around it."""
    backend = XLlamaCpp(EnginesSettings())
    backend.load(smollm2(), WARM)
    said = {prompt: ask(backend, prompt) for prompt in (PROMPT, AWKWARD)}
    backend.close()
    return said


@pytest.fixture
def make(bare, new_children):
    made = []

    def backend(version):
        made.append(Llamafile(trusting(bare[version], bare=bare[version])))
        return made[-1]

    yield backend
    for one in made:
        one.close()
    assert new_children() == []


def ask(backend, prompt=PROMPT, tokens=12, options=WARM):
    *steps, end = backend.generate(prompt, tokens, options)
    assert isinstance(end, Completion)
    times = [step.time_ns for step in steps]
    assert times == sorted(times)
    return "".join(step.text for step in steps), end


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("prompt", [PROMPT, AWKWARD], ids=["plain", "awkward"])
def test_a_server_of_each_generation_does_the_same_work(make, expected, version, prompt):
    backend = make(version)
    report = backend.load(smollm2(), WARM)
    assert report.version == version
    assert report.load_s > 0
    said, end = ask(backend, prompt)
    text, reference = expected[prompt]
    assert said == text
    assert end.prompt_ids == reference.prompt_ids
    assert end.prompt_tokens_evaluated == reference.prompt_tokens
    assert (end.output_tokens, end.stop_reason) == (12, "length")
    assert end.engine_prefill_s > 0
    assert end.engine_decode_s > 0


@pytest.mark.parametrize("version", ["0.6.1", "0.9.3"])
@pytest.mark.parametrize("prompt", [PROMPT, AWKWARD], ids=["plain", "awkward"])
def test_a_command_of_each_generation_does_the_same_work(make, expected, version, prompt):
    backend = make(version)
    report = backend.load(smollm2(), COLD)
    assert (report.load_s, report.details["mode"]) == (None, "cli")
    said, end = ask(backend, prompt, options=COLD)
    text, reference = expected[prompt]
    assert said == text
    assert end.prompt_tokens == reference.prompt_tokens
    assert end.output_tokens == 12
    assert end.load_included
    assert end.engine_load_s > 0


def test_a_command_that_would_wrap_the_prompt_is_not_used(make, expected):
    backend = make("0.10.0")
    report = backend.load(smollm2(), COLD)
    assert report.load_s > 0
    assert report.details["mode"] == "server"
    assert ask(backend)[0] == expected[PROMPT][0]


@pytest.mark.parametrize("options", [WARM, COLD], ids=["server", "command"])
def test_one_with_weights_inside_needs_no_other_file(tmp_path, expected, options):
    file = stand_in_llamafile(tmp_path, "0.9.3", smollm2())
    backend = Llamafile(trusting(file))
    backend.load(file, options)
    assert ask(backend, options=options)[0] == expected[PROMPT][0]
    backend.close()


def test_a_command_leaves_nothing_behind(make, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    backend = make("0.9.3")
    backend.load(smollm2(), COLD)
    ask(backend, tokens=2, options=COLD)
    stream = backend.generate(PROMPT, 200, COLD)
    next(stream)
    stream.close()
    backend.close()
    assert list(tmp_path.iterdir()) == []


def test_the_prompt_is_on_no_command_line(make, new_children):
    backend = make("0.9.3")
    backend.load(smollm2(), COLD)
    stream = backend.generate(PROMPT, 100, COLD)
    next(stream)
    words = [word for child in new_children() for word in child.cmdline()]
    stream.close()
    assert "--cli" in words
    assert not any("Italy" in word for word in words)


@pytest.mark.parametrize("options", [WARM, COLD], ids=["server", "command"])
def test_what_does_not_fit_is_refused_and_the_next_one_works(make, options):
    backend = make("0.9.3")
    backend.load(smollm2(), options)
    with pytest.raises(PromptTooLong):
        ask(backend, "word " * 400, options=options)
    with pytest.raises(BackendError, match="no tokens"):
        ask(backend, "", options=options)
    assert ask(backend, tokens=2, options=options)[1].output_tokens == 2


def test_a_command_that_forgot_the_beginning_of_its_prompt_is_refused(make):
    small = COLD.model_copy(update={"context_tokens": 16})
    backend = make("0.9.3")
    backend.load(smollm2(), small)
    with pytest.raises(PromptTooLong, match="16"):
        ask(backend, tokens=14, options=small)


@pytest.mark.parametrize("options", [WARM, COLD], ids=["server", "command"])
def test_a_model_that_cannot_be_read_is_rejected(make, tmp_path, options):
    file = tmp_path / "bad.gguf"
    file.write_bytes(b"GGUF" + bytes(100))
    backend = make("0.9.3")

    def load_and_ask():
        backend.load(file, options)
        ask(backend, options=options)

    with pytest.raises(ModelRejected, match=r"bad\.gguf"):
        load_and_ask()


def test_a_killed_server_is_a_crash_that_says_so(make, new_children):
    backend = make("0.9.3")
    backend.load(smollm2(), WARM)
    stream = backend.generate(PROMPT, 200, WARM)
    next(stream)
    new_children()[0].kill()
    with pytest.raises(BackendCrashed, match="SIGKILL"):
        list(stream)


def test_a_killed_command_is_a_crash_that_says_so(make, new_children):
    backend = make("0.9.3")
    backend.load(smollm2(), COLD)
    stream = backend.generate(PROMPT, 200, COLD)
    next(stream)
    new_children()[0].kill()
    with pytest.raises(BackendCrashed, match="SIGKILL"):
        list(stream)


def test_a_worker_that_is_killed_leaves_no_llamafile_behind(bare, tmp_path):
    settings = trusting(bare["0.9.3"], bare=bare["0.9.3"])
    worker = WorkerProcess("llamafile", tmp_path / "worker.log")
    command = {"do": "load", "model": str(smollm2()), "options": WARM.model_dump()}
    worker.ask({**command, "engines": settings.model_dump(mode="json")}, 60)
    (server,) = psutil.Process(worker.pid).children()
    psutil.Process(worker.pid).kill()
    wait_for(lambda: not server.is_running(), what="the server's death")
    worker.close()
