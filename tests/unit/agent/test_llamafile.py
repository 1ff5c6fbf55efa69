"""Which llamafile may run, how it is started, and what its command is told and tells."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import psutil
import pytest

from fakes.fake_llamafile import write_llamafile
from fleetmark_agent.backends import llamafile_cli, llamafile_program
from fleetmark_agent.backends.llamafile import Llamafile
from fleetmark_agent.backends.llamafile_program import open_trusted
from fleetmark_agent.backends.settings import EnginesSettings
from fleetmark_protocol.errors import BackendUnavailable, ModelRejected, SourceNotAllowed
from fleetmark_protocol.messages import Options
from llamafiles import trusting

OLD_TIMES = """
llama_print_timings:        load time =     812.50 ms
llama_print_timings:      sample time =       1.50 ms /     8 runs   (    0.19 ms per token)
llama_print_timings: prompt eval time =     176.00 ms /     5 tokens (   35.20 ms per token)
llama_print_timings:        eval time =     272.00 ms /     7 runs   (   38.86 ms per token)
llama_print_timings:       total time =     449.00 ms /    12 tokens
Log end
"""
NEW_TIMES = """
llama_perf_sampler_print:    sampling time =       0.30 ms /    13 runs   (    0.02 ms per token)
llama_perf_context_print:        load time =     812.50 ms
llama_perf_context_print: prompt eval time =     176.00 ms /     5 tokens (   35.20 ms per token)
llama_perf_context_print:        eval time =     272.00 ms /     7 runs   (   38.86 ms per token)
llama_perf_context_print:       total time =     449.00 ms /    12 tokens
"""

# As a llama-completion of build 11669 printed them, but for the numbers.
TODAYS_TIMES = """
0.14.542.584 I common_perf_print:    sampling time =       0.98 ms
0.14.542.586 I common_perf_print:    samplers time =       0.25 ms /    13 tokens
0.14.542.588 I common_perf_print:        load time =     812.50 ms
0.14.542.589 I common_perf_print: prompt eval time =     176.00 ms /     5 tokens (   35.20 ms per
0.14.542.590 I common_perf_print:        eval time =     272.00 ms /     7 runs   (   38.86 ms per
0.14.542.591 I common_perf_print:       total time =     449.00 ms /    12 tokens
0.14.542.591 I common_perf_print: unaccounted time =       1.00 ms /   0.3 %
"""


def program(tmp_path, text="echo it runs $1") -> Path:
    """Write a program that the kernel cannot start by itself, as one for any system is."""
    file = tmp_path / "tool.llamafile"
    file.write_text(f"MZqFpD='\n'\n{text}\n")
    file.chmod(0o755)
    return file


def digest(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def run(found, *arguments):
    done = subprocess.run(
        [*found.command, *arguments], pass_fds=(found.fd,), capture_output=True, check=True
    )
    return done.stdout.decode().strip()


def test_a_trusted_one_runs_by_a_shell_where_there_is_no_loader(tmp_path, monkeypatch):
    monkeypatch.setattr(llamafile_program, "LOADER", "no-such-loader")
    file = program(tmp_path)
    found = open_trusted(file, [digest(file)])
    assert found.command[0] == "/bin/sh"
    assert run(found, "well") == "it runs well"
    found.close()


def test_the_loader_is_used_where_there_is_one(tmp_path, monkeypatch):
    file = program(tmp_path)
    loader = tmp_path / "bin" / "ape"
    loader.parent.mkdir()
    loader.write_text('#!/bin/sh\necho loader\nexec /bin/sh "$@"\n')
    loader.chmod(0o755)
    monkeypatch.setenv("PATH", f"{loader.parent}:{os.environ['PATH']}")
    found = open_trusted(file, [digest(file)])
    assert run(found, "well") == "loader\nit runs well"
    found.close()


def test_one_that_was_made_linuxs_own_is_started_by_the_kernel(tmp_path):
    file = tmp_path / "echo"
    shutil.copy("/bin/echo", file)
    found = open_trusted(file, [digest(file)])
    assert len(found.command) == 1
    assert run(found, "well") == "well"
    found.close()


def test_what_was_looked_at_is_what_runs_though_its_path_names_another_now(tmp_path):
    file = program(tmp_path)
    found = open_trusted(file, [digest(file)])
    file.unlink()
    program(tmp_path, "echo another")
    assert run(found, "well") == "it runs well"
    found.close()


def test_one_that_is_not_trusted_does_not_run_and_the_line_that_would_trust_it_is_told(tmp_path):
    file = program(tmp_path, f"touch {tmp_path}/ran")
    with pytest.raises(SourceNotAllowed, match="does not trust") as caught:
        open_trusted(file, ["0" * 64])
    assert f'trusted_sha256 = ["{digest(file)}"]' in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_a_digest_holds_for_the_content_that_it_was_made_of(tmp_path):
    file = program(tmp_path)
    trusted = [digest(file)]
    open_trusted(file, trusted).close()
    file.write_text(file.read_text() + "echo more\n")
    with pytest.raises(SourceNotAllowed):
        open_trusted(file, trusted)


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_one_that_others_may_change_is_refused(tmp_path, mode):
    file = program(tmp_path)
    file.chmod(mode)
    with pytest.raises(SourceNotAllowed, match="may change"):
        open_trusted(file, [digest(file)])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_one_of_another_user_is_refused(tmp_path):
    file = program(tmp_path)
    os.chown(file, 12345, -1)
    with pytest.raises(SourceNotAllowed, match="may change"):
        open_trusted(file, [digest(file)])


def test_one_without_leave_to_be_executed_is_told_with_the_remedy(tmp_path):
    file = program(tmp_path)
    file.chmod(0o644)
    with pytest.raises(BackendUnavailable, match=r"chmod u\+x"):
        open_trusted(file, [digest(file)])


def test_a_file_system_without_execution_is_told(tmp_path, monkeypatch):
    real = os.fstatvfs

    class NoExec:
        def __init__(self, found):
            self.f_flag = found.f_flag | os.ST_NOEXEC

    monkeypatch.setattr(os, "fstatvfs", lambda fd: NoExec(real(fd)))
    file = program(tmp_path)
    with pytest.raises(BackendUnavailable, match="noexec"):
        open_trusted(file, [digest(file)])


@pytest.mark.parametrize("content", [b"", b"GGUF", b"#!/bin/sh\necho no\n"])
def test_what_does_not_begin_as_a_llamafile_is_never_run(tmp_path, content):
    file = tmp_path / "tool"
    file.write_bytes(content)
    file.chmod(0o755)
    with pytest.raises(ModelRejected, match="no llamafile"):
        open_trusted(file, [digest(file)])


def test_one_that_is_not_there_is_told(tmp_path):
    with pytest.raises(BackendUnavailable, match="No such file"):
        open_trusted(tmp_path / "none", [])


def test_a_refusal_leaves_no_descriptor(tmp_path):
    file = program(tmp_path)
    before = psutil.Process().num_fds()
    for _ in range(3):
        with pytest.raises(SourceNotAllowed):
            open_trusted(file, [])
    assert psutil.Process().num_fds() == before


def test_the_probe_says_how_to_trust_one():
    found = Llamafile(EnginesSettings()).probe()
    assert not found.available
    assert "trusted_sha256" in found.hint


def test_the_probe_tells_the_version_of_a_trusted_bare_program(tmp_path):
    file = tmp_path / "llamafile"
    write_llamafile(file, "0.9.3")
    found = Llamafile(trusting(file, bare=file)).probe()
    assert (found.available, found.version) == (True, "0.9.3")


def test_the_probe_runs_nothing_that_is_not_trusted(tmp_path):
    file = program(tmp_path, f"touch {tmp_path}/ran")
    other = program(tmp_path / "..", "echo other")
    found = Llamafile(trusting(other, bare=file)).probe()
    assert not found.available
    assert digest(file) in found.hint
    assert not (tmp_path / "ran").exists()


def test_with_trusted_ones_that_carry_their_model_no_bare_program_is_needed(tmp_path):
    file = program(tmp_path)
    backend = Llamafile(trusting(file))
    assert backend.probe().available
    model = tmp_path / "model.gguf"
    model.write_bytes(b"GGUF")
    with pytest.raises(BackendUnavailable, match="bare"):
        backend.load(model, Options())


@pytest.mark.parametrize("said", [OLD_TIMES, NEW_TIMES, TODAYS_TIMES])
def test_the_times_of_all_generations_are_read(said):
    times = llamafile_cli.parse_times("llama_model_loader: load time 5\n" + said)
    assert times == llamafile_cli.EngineTimes(
        load_s=0.8125, prefill_s=0.176, decode_s=0.272, prompt_tokens=5, output_tokens=8
    )


def test_times_that_are_not_all_there_are_none():
    without = "\n".join(line for line in OLD_TIMES.splitlines() if " eval time" not in line)
    assert llamafile_cli.parse_times(without) is None
    assert llamafile_cli.parse_times("") is None


@pytest.mark.parametrize(
    ("version", "usable"),
    [(None, False), ((0, 4, 1), False), ((0, 6, 1), True), ((0, 9, 3), True), ((0, 10), False)],
)
def test_the_command_is_used_where_it_does_the_same_work(version, usable):
    assert llamafile_cli.usable(version) is usable


def arguments(version, known=(), **options):
    return llamafile_cli.arguments(
        frozenset(known), version, None, Path("prompt"), 8, Options(**options)
    )


def test_escapes_are_turned_off_where_they_are_on():
    assert "--no-escape" in arguments((0, 8, 13))
    assert "--no-escape" not in arguments((0, 8, 12)), "it does not know the flag"


def test_the_command_is_given_only_flags_that_it_knows_and_no_prompt():
    words = arguments((0, 6), known={"--silent-prompt", "--repeat-penalty"}, threads=3)
    assert "--silent-prompt" in words
    assert words[words.index("--repeat-penalty") + 1] == "1.0"
    assert "--threads" not in words
    assert words[words.index("--file") + 1] == "prompt"
    assert "-p" not in words
