"""`fleetmark-agent` as its user meets it: what it prints where, and its exit codes."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

from fleetmark_agent import statelock
from fleetmark_agent.cli.main import main
from fleetmark_protocol.version import __version__

HEAVY = ("gguf", "httpx", "llama_cpp", "numpy", "paho", "pydantic", "rich", "torch", "xllamacpp")


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def outside(tmp_path):
    """An environment without settings, but with a state directory of the test's own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("FLEETMARK_")}
    return {**kept, "COLUMNS": "100", "XDG_STATE_HOME": str(tmp_path)}


@pytest.fixture
def agent(tmp_path, outside, monkeypatch, capsys):
    """Runs the command in a directory of its own, in this process: an interpreter takes longer."""

    def run(*words, **environment):
        with monkeypatch.context() as patched:
            patched.setattr(os, "environ", {**outside, **environment})
            patched.setattr(sys, "argv", ["fleetmark-agent", *map(str, words)])
            patched.chdir(tmp_path)
            with pytest.raises(SystemExit) as ended:
                main()
        said = capsys.readouterr()
        return Done(ended.value.code or 0, said.out, said.err)

    return run


@pytest.fixture
def process(tmp_path, outside):
    """Runs the command as a process, as whoever starts an agent does."""

    def run(*words):
        return subprocess.run(
            [sys.executable, "-m", "fleetmark_agent", *map(str, words)],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,
            env=outside,
        )

    return run


@pytest.fixture
def config(tmp_path):
    def write(text):
        (tmp_path / "agent.toml").write_text(text, "utf-8")
        return "agent.toml"

    return write


def assert_refused(done, *said, code=2):
    """One message on standard error that names what is wrong; nothing else anywhere."""
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    for text in said:
        assert text in done.stderr


def test_help_names_every_command(agent):
    done = agent("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for command in ("run", "doctor", "model"):
        assert f"\n  {command} " in done.stdout


def test_no_arguments_show_the_help(agent):
    assert "Commands:" in agent().stdout + agent().stderr


@pytest.mark.parametrize(
    "words",
    [("run",), ("doctor",), *[("model", one) for one in ("add", "list", "show", "rm", "verify")]],
    ids=" ".join,
)
def test_every_command_explains_itself_and_names_its_settings_file(agent, words):
    done = agent(*words, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--config" in done.stdout
    assert "FLEETMARK_CONFIG" in done.stdout


def test_help_of_run_names_every_flag_with_what_it_is_for(agent):
    shown = agent("run", "--help").stdout
    for flag in ("device-id", "fleet", "broker-host", "broker-port", "state-dir", "log-level"):
        (line,) = [line for line in shown.splitlines() if f"--{flag} " in line]
        assert len(line.split()) > 3, f"--{flag} is not explained"


def test_it_tells_its_version(process):
    done = process("--version")
    assert (done.returncode, done.stdout) == (0, f"fleetmark-agent {__version__}\n")


def test_the_command_line_is_there_before_anything_heavy_is_loaded():
    code = (
        "import sys, json, fleetmark_agent.cli.main;"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("words", [("frobnicate",), ("run", "--frob"), ("model", "eat")])
def test_an_unknown_command_or_option_points_to_the_help(agent, words):
    assert_refused(agent(*words), words[-1], "--help")


def test_a_settings_file_that_is_not_there_is_named(process):
    assert_refused(process("run", "--config", "missing.toml"), "missing.toml: No such file")


def test_a_settings_file_named_by_the_environment_counts(agent):
    assert_refused(agent("run", FLEETMARK_CONFIG="there.toml"), "there.toml: No such file")


def test_a_settings_file_that_is_no_toml_is_named_with_the_line(agent, config):
    file = config('fleet = "home"\n\nport = = 1\n')
    assert_refused(agent("run", "--config", file), "agent.toml: not TOML", "line 3")


def test_an_unknown_key_is_named_with_the_key_that_was_meant(agent, config):
    file = config('[broker]\nhots = "10.0.0.1"\n')
    assert_refused(agent("run", "-c", file), "agent.toml: broker.hots: unknown key", "'host'")


def test_a_value_of_the_wrong_type_is_named_with_what_was_given(agent, config):
    file = config('[telemetry]\ninterval_s = "soon"\n')
    assert_refused(agent("run", "-c", file), "agent.toml: telemetry.interval_s:", "'soon'")


@pytest.mark.parametrize("name", ["Pi 4", "pi/4", "../pi", "-pi", "", "a" * 64])
def test_a_device_id_that_makes_no_topic_is_refused(agent, name):
    assert_refused(agent("run", f"--device-id={name}"), "--device-id: device_id:", repr(name))


@pytest.mark.parametrize("port", ["99999", "0", "-1"])
def test_a_port_that_is_none_is_refused(agent, port):
    assert_refused(agent("run", f"--broker-port={port}"), "--broker-port: broker.port:", port)


def test_a_port_that_is_no_number_is_refused(agent):
    assert_refused(agent("run", "--broker-port", "mqtt"), "'--broker-port'", "integer")


def test_a_level_of_logging_that_does_not_exist_is_refused_with_those_that_do(agent):
    assert_refused(agent("run", "--log-level", "loud"), "log_level", "'loud'", "'warning'")


def test_a_wrong_variable_is_named_as_the_user_wrote_it(agent):
    done = agent("run", FLEETMARK_BROKER__PORT="mqtt")
    assert_refused(done, "FLEETMARK_BROKER__PORT: broker.port:", "'mqtt'")


def test_a_password_in_clear_over_the_network_is_refused(agent, config):
    file = config(
        '[broker]\nhost = "broker.example"\nusername = "pi"\npassword_file = "p"\ntls = false\n'
    )
    done = agent("run", "-c", file)
    assert_refused(done, "agent.toml: broker:", "broker.example", "ca_file")


def test_a_password_file_that_cannot_be_read_is_named_before_anything_starts(process, config):
    file = config('[broker]\nusername = "pi"\npassword_file = "nowhere/password"\n')
    assert_refused(process("run", "-c", file), "broker.password_file", "nowhere/password")


def test_a_ca_file_that_cannot_be_read_is_named_before_anything_starts(process, config):
    file = config('[broker]\nca_file = "nowhere/ca.crt"\n')
    assert_refused(process("run", "-c", file), "broker.ca_file")


@pytest.mark.parametrize("path", ["taken", "taken/below"])
def test_a_state_dir_that_cannot_be_made_is_a_failure_with_a_hint(process, tmp_path, path):
    # A file in its place, because root may write everywhere.
    (tmp_path / "taken").write_text("not a directory")
    done = process("run", "--state-dir", path)
    assert_refused(done, f"state_dir {path}:", "hint: choose a directory", code=1)


def test_a_second_agent_on_one_state_dir_is_refused_and_told_the_first_ones_pid(process, tmp_path):
    with statelock.held(tmp_path / "state"):
        done = process("run", "--state-dir", "state")
    assert_refused(done, f"pid {os.getpid()}", "state_dir state", "state_dir of its own")


def test_the_lock_is_free_again_when_its_holder_is_gone(tmp_path):
    assert statelock.holder(tmp_path) is None
    with statelock.held(tmp_path):
        assert statelock.holder(tmp_path) == str(os.getpid())
    assert statelock.holder(tmp_path) is None
    with statelock.held(tmp_path):
        pass


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_is_told_how_to_complete(agent, shell):
    done = agent("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0, done.stderr
    assert "_COMPLETE" in done.stdout


@pytest.mark.parametrize(
    ("command", "package", "typed", "offered"),
    [
        ("fleetmark-agent", "fleetmark_agent", "do", "doctor"),
        ("fleetmark-agent", "fleetmark_agent", "run --device", "--device-id"),
        ("fleetmark", "fleetmark_collector", "camp", "campaign"),
        ("fleetmark", "fleetmark_collector", "collect --broker-h", "--broker-host"),
    ],
)
def test_the_shell_completes_commands_and_options(command, package, typed, offered):
    code = f"import sys; sys.argv[0] = {command!r}; from {package}.cli import main; main()"
    asked = {
        f"_{command.replace('-', '_').upper()}_COMPLETE": "complete_bash",
        "COMP_WORDS": f"{command} {typed}",
        "COMP_CWORD": str(len(typed.split())),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **asked}
    )
    assert done.stdout.split() == [offered], done.stderr
