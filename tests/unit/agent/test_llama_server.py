"""The llama_server backend with a program that fails in every way; see integration for the real."""

import stat
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from fakes.fake_llama_server import handler, write_llama_server
from fleetmark_agent.backends import llama_program, serverprocess
from fleetmark_agent.backends.base import Completion
from fleetmark_agent.backends.llama_server import LlamaServer
from fleetmark_agent.backends.settings import EnginesSettings
from fleetmark_protocol.errors import (
    BackendCrashed,
    BackendTimeout,
    BackendUnavailable,
    ModelRejected,
    OutOfMemory,
)
from fleetmark_protocol.messages import Options

OPTIONS = Options(threads=2, context_tokens=64)
MODEL = Path("model.gguf")


@pytest.fixture
def make(tmp_path, new_children):
    made = []

    def backend(fault=""):
        program = write_llama_server(tmp_path, fault)
        settings = EnginesSettings.model_validate({"llama_server": {"executable": program}})
        made.append(LlamaServer(settings))
        return made[-1]

    yield backend
    for one in made:
        one.close()
    assert new_children() == []


def ask(backend):
    *steps, end = backend.generate("a b", 3, OPTIONS)
    assert isinstance(end, Completion)
    return "".join(step.text for step in steps)


def test_the_probe_tells_version_and_features(make):
    found = make().probe()
    assert (found.available, found.version) == (True, "4567 (abcdef12)")
    assert found.features == ("AVX2", "FMA")


def test_a_program_for_another_processor_is_not_available_and_says_why(make):
    found = make("cannot run").probe()
    assert not found.available
    assert "SIGILL" in found.reason
    assert "processor" in found.hint


def test_without_a_program_the_probe_says_what_installs_one(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    found = LlamaServer(EnginesSettings()).probe()
    assert not found.available
    assert "llama.cpp-tools" in found.hint


@pytest.mark.parametrize("place", ["beside Python", "on the PATH"])
def test_one_beside_python_or_on_the_path_is_used(monkeypatch, tmp_path, place):
    empty = tmp_path / "empty"
    empty.mkdir()
    write_llama_server(tmp_path)
    monkeypatch.setattr("sys.executable", f"{tmp_path if 'beside' in place else empty}/python")
    monkeypatch.setenv("PATH", f"{tmp_path if 'PATH' in place else empty}")
    assert LlamaServer(EnginesSettings()).probe().version == "4567 (abcdef12)"


def test_a_program_that_was_named_but_is_not_executable_is_unavailable(make, tmp_path):
    backend = make()
    (tmp_path / "llama-server").chmod(stat.S_IRUSR)
    with pytest.raises(BackendUnavailable, match="not executable"):
        backend.load(MODEL, OPTIONS)


def test_it_is_given_only_flags_that_it_knows(make, new_children):
    backend = make()
    report = backend.load(MODEL, OPTIONS)
    assert report.version == "4567 (abcdef12)"
    (server,) = new_children()
    words = server.cmdline()
    assert words[words.index("--threads") + 1] == "2"
    assert words[words.index("--parallel") + 1] == "1"
    assert "--cache-ram" not in words
    assert ask(backend) == " one two three"


def test_the_key_is_in_its_environment_and_not_on_its_command_line(make, new_children, monkeypatch):
    monkeypatch.setenv("LLAMA_ARG_N_PARALLEL", "7")
    make().load(MODEL, OPTIONS)
    (server,) = new_children()
    key = server.environ()["LLAMA_API_KEY"]
    assert len(key) == 32
    assert key not in " ".join(server.cmdline())
    assert "LLAMA_ARG_N_PARALLEL" not in server.environ(), "an option behind the job's back"


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("dies at start", BackendCrashed, r"exit code 1.*something is broken"),
        ("no memory", OutOfMemory, "failed to allocate"),
        ("no model", ModelRejected, r"model\.gguf"),
    ],
)
def test_a_death_at_the_start_is_typed(make, fault, kind, message):
    with pytest.raises(kind, match=message):
        make(fault).load(MODEL, OPTIONS)


def test_a_port_that_somebody_took_meanwhile_is_no_failure(make):
    backend = make("port taken")
    backend.load(MODEL, OPTIONS)
    assert ask(backend) == " one two three"


def test_a_stranger_who_answers_in_its_place_is_not_taken_for_it(make, monkeypatch):
    stranger = ThreadingHTTPServer(("127.0.0.1", 0), handler())
    threading.Thread(target=stranger.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(llama_program, "free_port", lambda: stranger.server_port)
    with pytest.raises(BackendCrashed, match="no free port"):
        make("next port").load(MODEL, OPTIONS)
    stranger.shutdown()
    stranger.server_close()


def test_one_that_is_never_ready_is_ended(make, monkeypatch):
    monkeypatch.setattr(llama_program, "READY_TIMEOUT_S", 0.5)
    with pytest.raises(BackendTimeout, match="not ready"):
        make("never ready").load(MODEL, OPTIONS)


def test_a_death_in_the_middle_is_told_with_its_last_words(make):
    backend = make("dies in the middle")
    backend.load(MODEL, OPTIONS)
    with pytest.raises(BackendCrashed, match=r"exit code 9.*a bug was met"):
        ask(backend)
    with pytest.raises(BackendCrashed, match="exit code 9"):
        ask(backend)
    backend.load(MODEL, OPTIONS)


def test_a_connection_that_breaks_off_while_the_server_lives_is_told(make, monkeypatch):
    monkeypatch.setattr(serverprocess, "EXPLAIN_WAIT_S", 0.1)
    backend = make("breaks off")
    backend.load(MODEL, OPTIONS)
    with pytest.raises(BackendCrashed, match="early"):
        ask(backend)


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("version: 4567 (abcdef12)\nbuilt with cc for x86_64", "4567 (abcdef12)"),
        (
            "version: 0.7.0 (build 11669, commit Debian)\nbuilt with GNU",
            "0.7.0 (build 11669, commit Debian)",
        ),
        ("warning: something 1.2\nversion: 0.1.0-dev (build 1, commit 7e4)", "0.1.0-dev (build 1,"),
        ("llamafile v0.9.3\n", "0.9.3"),
        ("error: unknown argument: --version", None),
    ],
)
def test_a_version_is_read_in_each_of_its_forms(said, version):
    found = llama_program.version_in(said)
    assert found == version if version is None else found.startswith(version)


def test_flags_are_read_from_help_pages_of_both_kinds():
    today = "-t,    --threads N      number of threads (see --nothing)\n   more about --other\n"
    manual = "       \x1b[1m-m \x1b[4m\x1b[22mFNAME\x1b[24m, \x1b[1m--model \x1b[4m\x1b[22mFNAME\n"
    assert {"-t", "--threads"} <= llama_program.flags_in(today)
    assert "--other" not in llama_program.flags_in(today)
    assert llama_program.flags_in(manual) == {"-m", "--model"}


def test_of_a_flags_names_the_first_that_is_known_is_chosen():
    known = frozenset({"--no-webui", "--fit"})
    wanted = [(("--no-ui", "--no-webui"), None), (("--fit",), "off"), (("--new",), "1")]
    assert llama_program.chosen(wanted, known) == ["--no-webui", "--fit", "off"]
