"""deploy/install-agent.sh refuses what cannot work before it changes anything, and says why.

Whole installations, upgrades and removals are tried on a booted system; docs/install.md says which.
"""

import re
import shutil
import subprocess

import pytest

from deployed import DEPLOY

SCRIPT = DEPLOY / "install-agent.sh"
CHECKS = DEPLOY / "install-agent-checks.sh"
"""Read by SCRIPT."""
UNIT = DEPLOY / "systemd" / "fleetmark-agent.service"
MAX_EXPOSURE = 2.0
"""`systemd-analyze security`: 0 is locked in, 10 is wide open."""

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed here"
)


@pytest.fixture
def install(tmp_path):
    """Runs the script on a machine whose programs answer as a test wants."""
    programs = tmp_path / "programs"
    programs.mkdir()

    def run(*words, **fakes):
        # Nothing that would change this machine is in reach, whatever the script tries.
        for name in ("systemctl", "systemd-sysusers", "install", "mkdir", "ln", "mv", "rm"):
            fakes.setdefault(name, f'echo "changed: {name} $*" >&2; exit 99')
        for name, body in fakes.items():
            file = programs / name
            file.write_text(f"#!/bin/sh\n{body}\n", "utf-8")
            file.chmod(0o755)
        return subprocess.run(
            [SCRIPT, *words],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,
            env={"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(tmp_path)},
        )

    return run


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--bogus"], "unknown option --bogus"),
        (["--with"], "--with needs a value"),
        (["--with", "llama"], "unknown engine 'llama' (known: xllamacpp, llama-cpp, ollama"),
        (["--with", "xllamacpp,"], "unknown engine '' (known: xllamacpp, llama-cpp, ollama"),
        (["--with", "xllamacpp ollama"], "'xllamacpp ollama' (known: xllamacpp"),
        (["--with", "none,ollama"], "and none alone"),
        (["--with", "xllamacpp,*"], "unknown engine '*' (known"),
        *(
            ([option, value], f"{option} needs a value")
            for option in ("--with", "--config", "--kit", "--offline", "--download")
            for value in ("", "--no-start")
        ),
        (["--config", "gone.toml"], "gone.toml cannot be read"),
        (["--config", "."], "cannot be read"),
        (["--kit", "gone"], "--kit: "),
        (["--kit", "gone"], "gone is no directory"),
        (["--offline", "gone"], "gone is no directory"),
    ],
)
def test_wrong_options_are_refused(install, words, said):
    done = install(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "changed:" not in done.stderr


PAIR = ("agent.crt", "agent.key")


@pytest.mark.parametrize(
    ("files", "lacking", "with_config"),
    [
        ((), "agent.toml", False),
        (("agent-ca.crt", *PAIR), "agent.toml", False),
        ((), "agent-ca.crt", True),
        (("agent.toml", *PAIR), "agent-ca.crt", False),
        (("agent.toml", "agent-ca.crt"), "agent.crt", False),
        (("agent-ca.crt", "agent.crt"), "agent.key", True),
        (("agent.toml", "agent-ca.crt", "agent-password", "agent.key"), "agent.crt", False),
        (("agent.toml", "agent-ca.crt", "agent-password"), None, False),
        (("agent-ca.crt", "agent-password"), None, True),
        (("agent-ca.crt", *PAIR), None, True),
    ],
)
def test_half_a_kit_is_refused_and_what_it_lacks_is_named(
    install, tmp_path, files, lacking, with_config
):
    kit = tmp_path / "kit"
    kit.mkdir()
    for name in files:
        (kit / name).write_text("it\n", "utf-8")
    own = tmp_path / "own.toml"
    own.touch()
    # A whole one goes as far as this machine lets it.
    done = install("--kit", "kit", *(("--config", own) if with_config else ()), uname="echo armv7")
    assert done.returncode == 2
    assert "changed:" not in done.stderr
    said = f"--kit: {kit}/{lacking} is not there" if lacking else "armv7 is not supported"
    assert said in done.stderr


@pytest.mark.parametrize(
    ("fakes", "said", "code"),
    [
        ({"uname": "echo armv7l"}, "armv7l is not supported", 2),
        ({"uname": "echo riscv64"}, "riscv64 is not supported", 2),
        (
            {"python3": "case $* in *maxsize*) exit 1 ;; esac; exit 0"},
            "a 32-bit one on a 64-bit kernel",
            2,
        ),
        (
            {"python3": "case $* in *ensurepip*) exit 1 ;; esac; exit 0"},
            "python3-venv is missing: apt install python3-venv",
            2,
        ),
        (
            {"python3": '[ "$1" = --version ] && echo Python 3.9.2; exit 1'},
            "this is Python 3.9.2",
            2,
        ),
        ({"id": "echo 1000"}, "run this as root", 2),
        (
            {"id": "echo 0", "df": "printf 'F B U A\\nd 9 9 102400 x\\n'", "systemctl": ":"},
            "100 MiB free, 1464 MiB needed; nothing was changed",
            1,
        ),
    ],
    ids=["armv7l", "riscv64", "32 bit", "no venv", "old python", "no rights", "full disk"],
)
def test_a_machine_that_cannot_take_it_is_told_why(install, fakes, said, code):
    done = install(**fakes)
    assert done.returncode == code
    assert said in done.stderr
    assert "changed:" not in done.stderr


@pytest.mark.parametrize(
    ("lacking", "said"),
    [
        ("python3", "python3 is missing: apt install python3 python3-venv"),
        ("systemctl", "systemd is missing; docs/install.md tells how to run the agent without it"),
    ],
)
def test_a_machine_that_lacks_a_program_is_told_which(tmp_path, lacking, said):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in {"sh", "cat", "dirname", "uname", "tr"}:
        (programs / name).symlink_to(shutil.which(name))
    for name in {"python3", "systemctl"} - {lacking}:
        (programs / name).symlink_to("/bin/true")
    fake_root = programs / "id"
    fake_root.write_text("#!/bin/sh\necho 0\n", "utf-8")
    fake_root.chmod(0o755)
    done = subprocess.run(
        [SCRIPT], capture_output=True, text=True, timeout=60, env={"PATH": str(programs)}
    )
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


def test_the_help_explains_every_option_and_the_exit_codes(install):
    done = install("--help")
    assert done.returncode == 0
    parsed = set(
        re.findall(
            r"--[a-z-]+", SCRIPT.read_text("utf-8").split("while [ $# -gt 0 ]")[1].split("esac")[0]
        )
    )
    assert parsed - {"--help"} <= set(re.findall(r"--[a-z-]+", done.stdout))
    assert "Exit codes" in done.stdout


def test_the_script_knows_the_engines_that_the_package_has_extras_for(install):
    project = (DEPLOY.parent / "pyproject.toml").read_text("utf-8")
    shown = install("--with", "x").stderr
    for engine in re.search(r"known: (.*), none\)", shown)[1].split(", "):
        assert re.search(rf"^{engine} = \[", project, re.MULTILINE), engine


@pytest.mark.parametrize(
    "file", [SCRIPT, CHECKS, DEPLOY / "systemd" / "fleetmark-agent"], ids=lambda f: f.name
)
def test_a_script_is_lawful(file):
    assert bool(file.stat().st_mode & 0o111) == (file != CHECKS)
    assert subprocess.run(["sh", "-n", file], check=False).returncode == 0
    if shutil.which("shellcheck"):
        done = subprocess.run(["shellcheck", file], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def unit_values(key):
    return re.findall(rf"^{key}=(.*)$", UNIT.read_text("utf-8"), re.MULTILINE)


@needs_systemd
def test_the_unit_is_locked_in(tmp_path):
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", UNIT],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found[1]) <= MAX_EXPOSURE


def test_the_unit_and_the_script_name_the_same_places():
    script = SCRIPT.read_text("utf-8")
    (program,) = unit_values("ExecStart")
    assert program.startswith("/opt/fleetmark-agent/current/bin/fleetmark-agent run")
    assert "home=/opt/fleetmark-agent\n" in script
    assert unit_values("AssertPathExists") == ["/etc/fleetmark/agent.toml"]
    assert "settings=/etc/fleetmark/agent.toml\n" in script
    assert f"state=/var/lib/{unit_values('StateDirectory')[0]}\n" in script
    assert 'state_dir = "/var/lib/fleetmark-agent"' in (
        DEPLOY / "systemd" / "agent.toml"
    ).read_text("utf-8")


def test_the_death_of_an_engine_does_not_end_the_service():
    assert unit_values("OOMPolicy") == ["continue"]


def test_the_service_is_kept_from_a_clouds_metadata_service():
    (denied,) = unit_values("IPAddressDeny")
    assert denied.split() == ["169.254.169.254", "fd00:ec2::254"]
    # What is allowed goes before what is denied.
    assert unit_values("IPAddressAllow") == []


def test_agents_of_one_machine_can_take_turns():
    # gate.default_lock_file
    assert unit_values("ReadWritePaths") == ["/run/lock"]
