"""A program of llama.cpp's family: what it says of itself, its flags by version, its server."""

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from fleetmark_agent.backends.base import slots
from fleetmark_agent.backends.binaries import foreign
from fleetmark_agent.backends.llama_http import LlamaHttp, new_key
from fleetmark_agent.backends.serverprocess import ServerProcess, free_port
from fleetmark_protocol.errors import BackendCrashed, BackendUnavailable, OptionNotTaken
from fleetmark_protocol.messages import Options

READY_TIMEOUT_S = 3600
"""The runner's deadline for a load is shorter."""
PORT_TRIES = 3
BRIEF_TIMEOUT_S = 20.0
"""Long enough for a start from a Raspberry Pi's SD card."""

_VERSION = re.compile(
    r"^(?:llamafile )?(?:version: *)?v?(\d\S*(?: \([^)\n]{1,60}\))?)", re.MULTILINE
)
_FLAG = re.compile(r"(?<![\w-])--?[A-Za-z][\w-]*")
_FLAG_LINE = re.compile(r"^ {0,8}-.*$", re.MULTILINE)
_BOLD = re.compile(r"\x1b\[[0-9;]*m")
_PORT_TAKEN = re.compile(
    r"(couldn't|could not|cannot|can't|failed to|unable to) bind|already in use"
    r"|bind\(\)?.{0,30}fail",
    re.IGNORECASE,
)
_NOT_LOADED = re.compile(
    r"(failed|unable) to load( the)? model|error loading model|model loading error", re.IGNORECASE
)

Flag = tuple[Sequence[str], str | None]
"""The names an option has had, newest first, and its value where it takes one."""


def ask_briefly(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> str:
    """Return what a program prints that is asked something it answers at once.

    Raises:
        BackendUnavailable: it cannot be run on this machine, or does not end.
    """
    try:
        done = subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            pass_fds=pass_fds,
            timeout=BRIEF_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BackendUnavailable(f"{command[0]} does not answer {command[-1]}") from None
    except OSError as error:
        other = foreign(Path(command[0]))
        raise BackendUnavailable(
            f"cannot run {command[0]}: {other or error.strerror}",
            hint="take a build for this machine's processor" if other else None,
        ) from error
    said = done.stdout.decode("utf-8", "replace")
    if done.returncode < 0:
        raise BackendUnavailable(
            f"{command[0]} is killed by {signal.Signals(-done.returncode).name} when it starts",
            hint="it was built for another processor: take a build for this one",
        )
    if done.returncode in (126, 127):
        # What a shell, or the loader, says of a program that this system cannot run.
        raise BackendUnavailable(f"cannot run {command[0]}: {said.strip()[-300:]}")
    return said


def version_in(said: str) -> str | None:
    """Return the version in the answer to `--version`, whichever its form; pure."""
    found = _VERSION.search(said)
    return found.group(1) if found else None


def flags_in(help_text: str) -> frozenset[str]:
    """Return the flags that a help page names at the beginning of its lines; pure."""
    plain = _BOLD.sub("", help_text)
    return frozenset(flag for line in _FLAG_LINE.findall(plain) for flag in _FLAG.findall(line))


def chosen(flags: Iterable[Flag], known: frozenset[str]) -> list[str]:
    """Return those arguments that a version knows, each by the first name that it knows; pure."""
    arguments: list[str] = []
    for names, value in flags:
        name = next((name for name in names if name in known), None)
        if name is not None:
            arguments += [name] if value is None else [name, value]
    return arguments


def server_arguments(
    known: frozenset[str], model: Path | None, port: int, options: Options
) -> list[str]:
    """Return the command line of a server after its program's name; pure.

    Args:
        known: flags of this version.
        model: None where the program has one inside.
        port: to listen at, on the loopback.
        options: of the job.

    Raises:
        OptionNotTaken: this version serves one request at a time.
    """
    served = slots(options)
    wanted: list[Flag] = [
        (("--parallel",), str(served)),
        (("--n-gpu-layers",), "0"),
        # A load is measured as a load: a hidden first run would make it look slow, and the first
        # trial fast.
        (("--no-warmup",), None),
        # Exactly what was asked, not what the program thinks fits.
        (("--fit",), "off"),
        # Nothing of one prompt is left for the next.
        (("--no-cache-prompt",), None),
        (("--cache-ram",), "0"),
        (("--ctx-checkpoints",), "0"),
        (("--no-context-shift",), None),
        (("--no-ui", "--no-webui"), None),
        (("--nobrowser",), None),
    ]
    if served > 1:
        if "--parallel" not in known:
            raise OptionNotTaken("this version of llama.cpp's server serves one request at a time")
        # Older ones let a request wait for the one before unless they are told not to.
        wanted.append((("--cont-batching",), None))
        # Each slot a context of its own, which no other can fill.
        wanted.append((("--no-kv-unified",), None))
    if options.threads is not None:
        threads = str(options.threads)
        wanted += [(("--threads",), threads), (("--threads-batch",), threads)]
    if options.batch_tokens is not None:
        wanted.append((("--batch-size",), str(options.batch_tokens)))
    return [
        *(() if model is None else ("--model", str(model))),
        *("--host", "127.0.0.1", "--port", str(port)),
        # What it is given is split among its slots.
        *("--ctx-size", str(options.context_tokens * served)),
        *chosen(wanted, known),
    ]


def start_server(
    command: Callable[[int], Sequence[str]],
    *,
    context_tokens: int,
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str],
    cwd: Path | None = None,
    name: str,
) -> tuple[ServerProcess, LlamaHttp]:
    """Start a server on a free port with a random key; return it once its model is loaded.

    Args:
        command: program and arguments for a port.
        context_tokens: of each of its slots.
        pass_fds: see `ServerProcess`; the rest too.
        env: see there.
        cwd: see there.
        name: see there.

    Raises:
        BackendCrashed, OutOfMemory, BackendUnavailable: see `ServerProcess.start`.
    """
    for tries_left in reversed(range(PORT_TRIES)):
        port, key = free_port(), new_key()
        http = LlamaHttp(f"127.0.0.1:{port}", key, context_tokens)
        try:
            server = ServerProcess.start(
                command(port),
                # Not on the command line, which everybody on the machine may read.
                env={**env, "LLAMA_API_KEY": key},
                pass_fds=pass_fds,
                cwd=cwd,
                name=name,
                ready=http.healthy,
                timeout_s=READY_TIMEOUT_S,
            )
        except BackendCrashed as error:
            if not tries_left or not port_was_taken(error.message):
                raise
            continue
        # Some take the next port when theirs is taken: then who answered is a stranger.
        if server.listens(port):
            return server, http
        server.stop()
    raise BackendCrashed(f"{name} found no free port")


def plain_environment() -> dict[str, str]:
    """Return our environment without what would set options behind the job's back."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LLAMA_")}


def port_was_taken(said: str) -> bool:
    """Whether a server ended because somebody else had taken its port; pure."""
    return _PORT_TAKEN.search(said) is not None


def model_was_refused(said: str) -> bool:
    """Whether a program ended because it could not load its model; pure."""
    return _NOT_LOADED.search(said) is not None
