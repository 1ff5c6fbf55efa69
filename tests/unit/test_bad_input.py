"""What a user can get wrong before anything runs, for agent and collector alike: one message that
names the place and the way out, an exit code, and never a traceback or a secret."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

SECRET = "open-sesame"
ROOT = os.geteuid() == 0
THEM = 65534
RIGHTS = "-dac_override,-dac_read_search"
"""Root may read everything, unless these rights are taken from it."""


@dataclass(frozen=True)
class Case:
    """A mistake.

    Attributes:
        toml: the settings; {dir} is the directory of the files, {state} one for state.
        says: what the message must hold.
        sides: whose mistake it can be.
        theirs: whether it is about a file of another user, which only root can arrange.
        args: more of the command line.
    """

    toml: str | bytes
    says: tuple[str, ...]
    sides: tuple[str, ...] = ("agent", "collector")
    code: int = 2
    theirs: bool = False
    args: tuple[str, ...] = ()


def broker(**settings: str) -> str:
    lines = [f"{key} = '{value}'" for key, value in settings.items()]
    return "\n".join(["[broker]", "host = 'localhost'", "port = 1", *lines])


def password(name: str, *says: str) -> Case:
    toml = broker(username="pi", password_file="{dir}/" + name)
    return Case(toml, (f"broker.password_file: {{dir}}/{name}" if name != "open" else "", *says))


def tls(*says: str, **files: str) -> Case:
    good = {"ca_file": "ca.crt", "cert_file": "pi.crt", "key_file": "pi.key", **files}
    return Case(broker(**{key: "{dir}/" + name for key, name in good.items()}), says)


AGENT, COLLECTOR = ("agent",), ("collector",)
INFLUX = "[store]\nkind = 'influxdb'\nurl = 'http://127.0.0.1:1'\ntoken_file = '{dir}/%s'"

CASES = {
    "unknown key, agent": Case("devise_id = 'x'", ("did you mean 'device_id'?",), AGENT),
    "unknown key, collector": Case("data_dri = 'x'", ("did you mean 'data_dir'?",), COLLECTOR),
    "unknown key in a table": Case("[broker]\nhots = 'x'", ("broker.hots", "mean 'host'?")),
    "no TOML": Case("[broker]\nport = = 1", ("config.toml: not TOML:", "line 3")),
    "no text": Case(b"\xff\xfe", ("config.toml: not UTF-8",)),
    "settings file away": Case("", ("nowhere.toml: No such file",), args=("nowhere.toml",)),
    "settings file a directory": Case("", ("/dir: Is a directory",), args=("dir",)),
    "settings of others": Case("", ("config.toml' is not readable",), theirs=True),
    "address and port in one": Case(
        "[broker]\nhost = 'centre.example:8883'", ("broker.host: 'centre.example:8883' is no host",)
    ),
    "an URL": Case("[broker]\nhost = 'mqtt://centre'", ("'mqtt://centre' is no host",)),
    "no host": Case("[broker]\nhost = ''", ("broker.host: '' is no host name",)),
    "password away": password("nowhere", "No such file"),
    "password a directory": password("dir", "is a directory"),
    "password empty": password("empty", "is empty"),
    "password of two lines": password("two", "more than one line"),
    "password for everybody": password(
        "open",
        "broker.password_file: every user of this machine may read {dir}/open",
        "hint: chmod o= {dir}/open",
    ),
    "password of others": replace(password("private", "Permission denied"), theirs=True),
    "CA is none": tls("broker.ca_file: {dir}/two holds no certificate", ca_file="two"),
    "key of another": tls(
        "broker.key_file: {dir}/other.key is not the key of {dir}/pi.crt", key_file="other.key"
    ),
    "key for everybody": tls(
        "broker.key_file: every user of this machine may read {dir}/open.key",
        "chmod o= {dir}/open.key",
        key_file="open.key",
    ),
    "certificate without key": Case(
        broker(ca_file="{dir}/ca.crt", cert_file="{dir}/pi.crt"), ("go together",)
    ),
    "password without user": Case(
        broker(password_file="{dir}/private"),
        ("config.toml: broker: password_file", "username and password_file go together"),
    ),
    "token for everybody": Case(
        INFLUX % "open", ("store.token_file: every user", "chmod o= {dir}/open"), COLLECTOR
    ),
    "token empty": Case(INFLUX % "empty", ("store.token_file: {dir}/empty is empty",), COLLECTOR),
    "data_dir a file": Case("data_dir = '{dir}/empty'", ("data_dir: {dir}/empty",), COLLECTOR),
    "data_dir of others": Case(
        "data_dir = '{dir}/theirs/x'",
        ("data_dir: {dir}/theirs/x: Permission denied",),
        COLLECTOR,
        theirs=True,
    ),
    "port taken": Case(
        "[http]\nlisten = '127.0.0.1:{taken}'", ("http.listen: 127.0.0.1 port {taken}:",), COLLECTOR
    ),
    "state_dir a file": Case(
        "state_dir = '{dir}/empty'", ("state_dir {dir}/empty", "choose a directory"), AGENT, 1
    ),
    "state_dir of others": Case(
        "state_dir = '{dir}/theirs/x'",
        ("state_dir {dir}/theirs/x: Permission denied", "make room on its disk"),
        AGENT,
        1,
        theirs=True,
    ),
    "no device_id": Case("device_id = 'Küche 1'", ("device_id:",), AGENT),
}

ALL = [(name, side) for name, case in CASES.items() for side in case.sides]

RUNNER = """
import json, os, sys, traceback
from fleetmark_agent.cli.main import main as agent
from fleetmark_collector.cli.main import main as collector
import fleetmark_agent.service, fleetmark_collector.service
out = {}
for key, side, argv in json.load(sys.stdin):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(write, 2)
        os.dup2(write, 1)
        sys.argv = [side, *argv]
        try:
            {"agent": agent, "collector": collector}[side]()
            code = 0
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc()
            code = 99
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)
    os.close(write)
    said = b""
    while chunk := os.read(read, 65536):
        said += chunk
    os.close(read)
    out[key] = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said.decode()]
print(json.dumps(out))
"""


def make_files(directory: Path) -> None:
    directory.chmod(0o755)
    for name, text, mode in (
        ("empty", "", 0o600),
        ("two", f"{SECRET}\n{SECRET}\n", 0o600),
        ("open", f"{SECRET}\n", 0o644),
        ("private", f"{SECRET}\n", 0o600),
    ):
        (directory / name).write_text(text)
        (directory / name).chmod(mode)
    (directory / "dir").mkdir()
    (directory / "theirs").mkdir()
    if ROOT:
        os.chown(directory / "private", THEM, THEM)
        os.chown(directory / "theirs", THEM, THEM)
    for name in ("ca", "pi", "other"):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
            + ["-nodes", "-subj", f"/CN={name}", "-days", "2", "-keyout", directory / f"{name}.key"]
            + ["-out", directory / f"{name}.crt"],
            check=True,
            capture_output=True,
        )
    (directory / "open.key").write_bytes((directory / "pi.key").read_bytes())
    (directory / "open.key").chmod(0o644)


@pytest.fixture(scope="module")
def done():
    """(name, side) -> exit code, what was said, and what stands for the places in it."""
    # Those of pytest are for their user alone, so that nothing in them is open to everybody.
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as name,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        directory = Path(name)
        make_files(directory)
        places = {"dir": name, "taken": str(listener.getsockname()[1])}
        asked = []
        for number, (case_name, side) in enumerate(ALL):
            case = CASES[case_name]
            own = directory / f"case{number}"
            own.mkdir()
            config = own / "config.toml"
            toml = case.toml
            if isinstance(toml, str):
                for key, value in places.items():
                    toml = toml.replace("{" + key + "}", value)
                state = {"agent": "state_dir", "collector": "data_dir"}[side]
                own_state = "" if state in toml else f"{state} = '{own}/state'\n"
                toml = (own_state + toml).encode()
            config.write_bytes(toml)
            config.chmod(0o600)
            if ROOT and case_name == "settings of others":
                os.chown(config, THEM, THEM)
            file = directory / case.args[0] if case.args else config
            command = "run" if side == "agent" else "collect"
            asked.append((f"{case_name}/{side}", side, [command, "--config", str(file)]))
        command = ["setpriv", f"--inh-caps={RIGHTS}", f"--bounding-set={RIGHTS}"] if ROOT else []
        env = {k: v for k, v in os.environ.items() if not k.startswith("FLEETMARK_")}
        ran = subprocess.run(
            [*command, sys.executable, "-c", RUNNER],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=120,
            env=env,
            cwd=directory,
        )
        assert ran.returncode == 0, ran.stderr
        yield json.loads(ran.stdout), places


@pytest.mark.parametrize(("name", "side"), ALL, ids=[f"{side}: {name}" for name, side in ALL])
def test_a_mistake_ends_the_command_with_what_to_do(done, name, side):
    found, places = done
    case = CASES[name]
    if case.theirs and not ROOT:
        pytest.skip("only root may make a file of another user")
    code, said = found[f"{name}/{side}"]
    assert "Traceback" not in said, said
    assert SECRET not in said
    for text in case.says:
        for key, value in places.items():
            text = text.replace("{" + key + "}", value)
        assert text in said
    assert code == case.code, said
