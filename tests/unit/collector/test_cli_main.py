"""The root command: what it prints where, and its exit codes."""

import subprocess
import sys

import pytest

from fleetmark_protocol.version import __version__


def fleetmark(*args: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from fleetmark_collector.cli.main import main; main()"]
        + [str(arg) for arg in args],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_it_tells_its_version():
    done = fleetmark("--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"fleetmark {__version__}")


def test_help_names_every_group_that_is_there():
    done = fleetmark("--help")
    assert done.returncode == 0
    for group in ("broker", "collect", "devices", "doctor"):
        assert f"\n  {group} " in done.stdout


@pytest.mark.parametrize("command", ["broker", "collect", "devices", "doctor"])
def test_every_command_explains_itself_and_its_options(command):
    done = fleetmark(command, "--help")
    assert done.returncode == 0
    assert "--config" in done.stdout
    assert "--data-dir" in done.stdout


def test_help_loads_no_heavy_library():
    heavy = ("paho", "amqtt", "numpy", "scipy", "plotly", "jinja2", "pydantic")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys\nfrom fleetmark_collector.cli.main import build\nbuild()\n"
            f"print([name for name in {heavy!r} if name in sys.modules])",
        ],
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_a_wrong_setting_is_the_user_s_mistake_and_shows_no_traceback(tmp_path):
    config = tmp_path / "collector.toml"
    config.write_text("[broker]\nprot = 1884\n")
    done = fleetmark("devices", "--config", config)
    assert done.returncode == 2
    assert "did you mean 'port'" in done.stderr
    assert "Traceback" not in done.stderr


def test_data_that_is_not_there_is_a_failure_with_a_hint(tmp_path):
    done = fleetmark("devices", "--data-dir", tmp_path)
    assert done.returncode == 1
    assert f"no data yet in {tmp_path}" in done.stderr
    assert "--data-dir" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_option_is_the_user_s_mistake():
    assert fleetmark("devices", "--nonsense").returncode == 2


def test_a_reader_that_hangs_up_sees_no_traceback():
    run = "from fleetmark_collector.cli.main import main; main()"
    done = subprocess.run(  # noqa: S602 - a pipe
        f"{sys.executable} -c '{run}' --help | true",
        shell=True,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr
