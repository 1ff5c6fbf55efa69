"""The ollama backend against the stand-in, and against the real program where there is one.

What the stand-in answers is computed by a real engine; only its times are nobody's.
"""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from fleetmark_agent.backends import registry
from fleetmark_agent.backends.base import Completion, Token
from fleetmark_agent.backends.settings import EnginesSettings, OllamaSettings
from fleetmark_agent.telemetry.listening import listener_pid
from fleetmark_protocol.errors import (
    BackendCrashed,
    BackendError,
    BackendUnavailable,
    ModelNotFound,
    ModelRejected,
    OutOfMemory,
    PromptTooLong,
)
from fleetmark_protocol.messages import Options
from ollamas import fake_ollama, real_ollama, running

pytestmark = pytest.mark.integration

PROMPT = "The capital of Italy is"
OPTIONS = Options(threads=2, context_tokens=256)


@pytest.fixture(scope="module", params=["fake", "real"])
def program(request, tmp_path_factory) -> Path:
    if request.param == "fake":
        return fake_ollama(tmp_path_factory.mktemp("bin"))
    found = real_ollama()
    if found is None:
        pytest.skip("no ollama on the PATH or in FLEETMARK_TEST_OLLAMA")
    return found


@pytest.fixture
def fake(tmp_path) -> Path:
    return fake_ollama(tmp_path / "bin")


@pytest.fixture(scope="module")
def elsewhere(program, tmp_path_factory):
    """A server that runs already."""
    with running(program, tmp_path_factory.mktemp("elsewhere")) as url:
        yield url


def make(**settings):
    return registry.create("ollama", EnginesSettings(ollama=OllamaSettings(**settings)))


def own(program: Path, **settings):
    return make(executable=program, serve="always", **settings)


def ask(backend, prompt=PROMPT, tokens=8, options=OPTIONS) -> tuple[str, Completion]:
    backend.prepare(prompt, options)
    *steps, completion = backend.generate(prompt, tokens, options)
    assert isinstance(completion, Completion)
    assert all(isinstance(step, Token) for step in steps)
    return "".join(step.text for step in steps), completion


@pytest.fixture
def started():
    """Says which processes were started since the test began, by this one and below."""
    before = set(psutil.Process().children(recursive=True))
    return lambda: [
        child for child in psutil.Process().children(recursive=True) if child not in before
    ]


def url_of(server: psutil.Process) -> str:
    (listening,) = [
        found for found in server.net_connections("tcp") if found.status == psutil.CONN_LISTEN
    ]
    return f"http://127.0.0.1:{listening.laddr.port}"


def evaluated(url: str) -> list[int]:
    with urllib.request.urlopen(f"{url}/fake/evaluated") as answer:
        return json.load(answer)


def test_a_server_of_its_own_is_started_for_the_job_and_gone_after_it(
    program, model_file, monkeypatch, tmp_path, started
):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    backend = own(program)
    assert backend.probe().available
    report = backend.load(model_file, OPTIONS)
    assert report.version == backend.probe().version
    assert report.service_port is None, "the worker's own tree holds it"
    assert report.details["started_here"]
    assert report.details["ollama_model"] == "fleetmark-b179c9523d0e"
    tree = started()
    assert len(tree) == 2
    text, completion = ask(backend)
    assert text.startswith(" Rome")
    assert (completion.prompt_tokens, completion.output_tokens) == (5, 8)
    assert completion.engine_prefill_s > 0
    assert completion.engine_decode_s > 0
    assert not completion.load_included
    backend.close()
    backend.close()
    assert psutil.wait_procs(tree, timeout=10)[1] == []
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_not_copied_for_a_server_of_its_own(fake, model_file, tmp_path):
    backend = own(fake, models_dir=tmp_path / "kept")
    backend.load(model_file, OPTIONS)
    backend.close()
    (blob,) = (tmp_path / "kept" / "blobs").iterdir()
    assert blob.is_symlink()
    assert blob.resolve() == model_file.resolve()


def test_the_same_prompt_is_evaluated_whole_every_time(fake, model_file, started):
    backend = own(fake)
    backend.load(model_file, OPTIONS)
    answers = {ask(backend)[0] for _ in range(3)}
    ask(backend, f"{PROMPT} a city that")
    url = url_of(started()[0])
    assert [count for count in evaluated(url) if count > 1] == [5, 5, 5, 8]
    assert len(answers) == 1
    # Without the eviction the same server finds the prompt again and still counts all of it.
    backend._clean = True
    assert ask(backend, f"{PROMPT} a city that")[1].prompt_tokens_evaluated == 8
    assert evaluated(url)[-1] == 1
    backend.close()


def test_what_runs_already_is_attached_to_and_given_back_unloaded(elsewhere, model_file):
    backend = make(url=elsewhere, serve="never")
    report = backend.load(model_file, OPTIONS)
    port = int(elsewhere.rpartition(":")[2])
    assert report.service_port == port
    assert not report.details["started_here"]
    service = psutil.Process(listener_pid(port))
    runners = service.children()
    assert len(runners) == 1
    first = ask(backend)
    assert service.children() == runners, "nothing is cached right after a load"
    assert ask(backend)[0] == first[0]
    again = service.children()
    assert again != runners, "whatever it kept of the prompt went with its runner"
    backend.close()
    assert psutil.wait_procs(again, timeout=10)[1] == []
    assert service.is_running(), "it is somebody else's"


def test_a_model_that_is_there_already_is_not_imported_again(elsewhere, model_file, monkeypatch):
    backend = make(url=elsewhere, serve="auto")
    first = backend.load(model_file, OPTIONS)
    monkeypatch.setattr("ollama.Client.create_blob", None)
    second = backend.load(model_file, OPTIONS)
    assert second.details["ollama_layer_sha256"] == first.details["ollama_layer_sha256"]
    backend.close()


def test_a_model_of_its_library_is_used_by_its_name(elsewhere, model_file):
    backend = make(url=elsewhere)
    backend.load(model_file, OPTIONS)
    report = backend.load(Path("fleetmark-b179c9523d0e"), OPTIONS)
    assert len(report.details["ollama_digest"]) == 64
    assert report.details["quantization"] == "Q4_1"
    assert ask(backend)[0].startswith(" Rome")
    with pytest.raises(ModelNotFound, match="ollama pull nobody:7b"):
        backend.load(Path("nobody:7b"), OPTIONS)
    backend.close()


def test_a_name_means_nothing_to_a_server_of_its_own(fake):
    with pytest.raises(BackendUnavailable, match="library"):
        own(fake).load(Path("llama3"), OPTIONS)


def test_a_prompt_that_ollama_would_cut_without_a_word_is_refused(program, model_file):
    small = Options(threads=2, context_tokens=64)
    backend = own(program)
    backend.load(model_file, small)
    with pytest.raises(PromptTooLong, match="64"):
        ask(backend, "word " * 100, options=small)
    with pytest.raises(PromptTooLong, match="64"):
        ask(backend, tokens=60, options=small)
    with pytest.raises(BackendError, match="no tokens"):
        ask(backend, "", options=small)
    assert ask(backend, options=small)[1].output_tokens == 8
    backend.close()


def test_an_end_token_ends_the_answer_and_is_counted(program, model_file):
    backend = own(program)
    backend.load(model_file, OPTIONS)
    chat = "<|im_start|>user\nSay hi.<|im_end|>\n<|im_start|>assistant\n"
    *steps, completion = backend.generate(chat, 200, OPTIONS)
    assert completion.stop_reason == "eos"
    assert completion.output_tokens == len(steps) < 200
    backend.close()


def test_what_is_no_model_is_refused_before_it_is_loaded(program, tmp_path, started):
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"not a model at all" * 100)
    with pytest.raises(ModelRejected, match=r"bad\.gguf"):
        own(program).load(bad, OPTIONS)
    with pytest.raises(ModelNotFound, match=r"none\.gguf"):
        own(program).load(tmp_path / "none.gguf", OPTIONS)
    assert started() == []


def test_a_server_that_is_killed_in_the_middle_is_a_crash(program, model_file, started):
    backend = own(program)
    backend.load(model_file, OPTIONS)
    tree = started()
    stream = backend.generate(PROMPT, 200, OPTIONS)
    next(stream)
    os.kill(tree[0].pid, signal.SIGKILL)
    with pytest.raises(BackendCrashed, match="SIGKILL"):
        list(stream)
    with pytest.raises(BackendError, match="no model is loaded"):
        ask(backend)
    for process in tree:
        if process.is_running():
            process.kill()


def test_a_runner_that_is_killed_in_the_middle_is_a_crash(program, model_file, started):
    backend = own(program)
    backend.load(model_file, OPTIONS)
    _server, runner = started()
    stream = backend.generate(PROMPT, 200, OPTIONS)
    next(stream)
    runner.kill()
    with pytest.raises(BackendError):
        list(stream)
    backend.close()
    assert started() == []


def test_an_answer_that_is_left_in_the_middle_does_not_spoil_the_next(program, model_file):
    backend = own(program)
    backend.load(model_file, OPTIONS)
    stream = backend.generate(PROMPT, 200, OPTIONS)
    for _ in range(3):
        next(stream)
    stream.close()
    assert ask(backend)[0].startswith(" Rome")
    backend.close()


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        ("no_memory", OutOfMemory, "more system memory"),
        ("error_line", BackendCrashed, "unexpectedly stopped"),
        ("cut", BackendCrashed, "broke off"),
    ],
)
def test_what_goes_wrong_at_the_server_has_its_type(tmp_path, model_file, fault, kind, said):
    backend = own(fake_ollama(tmp_path, fault))

    def use():
        backend.load(model_file, OPTIONS)
        ask(backend)

    with pytest.raises(kind, match=said):
        use()
    backend.close()


def test_a_program_that_ends_at_once_says_why(tmp_path):
    program = tmp_path / "ollama"
    program.write_text("#!/bin/sh\necho no such library >&2\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(BackendCrashed, match="no such library"):
        own(program).load(Path("/nowhere.gguf"), OPTIONS)


def test_without_server_and_program_it_says_what_would_help(tmp_path):
    nowhere = {"url": "http://127.0.0.1:9", "executable": tmp_path / "none"}
    found = make(**nowhere).probe()
    assert not found.available
    assert "127.0.0.1:9" in found.reason
    assert "ollama.com/install.sh" in found.hint
    for serve in ("auto", "always", "never"):
        with pytest.raises(BackendUnavailable):
            make(serve=serve, **nowhere).load(tmp_path / "any.gguf", OPTIONS)


def test_nothing_is_left_of_its_server_when_the_worker_is_killed_without_warning(
    program, model_file, started
):
    code = (
        "import sys; from pathlib import Path; from fleetmark_agent.backends import registry;"
        "from fleetmark_agent.backends.settings import EnginesSettings, OllamaSettings;"
        "from fleetmark_protocol.messages import Options;"
        "engines = EnginesSettings(ollama=OllamaSettings(executable=sys.argv[1], serve='always'));"
        "registry.create('ollama', engines).load(Path(sys.argv[2]), Options());"
        "print('loaded', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(program), str(model_file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        assert worker.stdout.readline() == "loaded\n"
        tree = started()
        assert len(tree) == 3, "the worker, its server, the server's runner"
        worker.kill()
    assert psutil.wait_procs(tree, timeout=20)[1] == []
