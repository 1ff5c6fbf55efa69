"""What the converters share: each is a program of ours in a child process that can be cancelled.

A converter prints `DONE TOTAL` (bytes of the source) as it goes and `tools NAME VERSION...` at its
end; what is wrong with its source it writes to standard error (`CODE MESSAGE`), and exits with
`REFUSED`.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from fleetmark_agent.models.children import (
    REFUSED,
    SINGLE_THREAD,
    ChildTimeout,
    limit_memory,
    run_child,
)
from fleetmark_agent.models.watch import NOBODY, Watch
from fleetmark_protocol.errors import (
    BackendTimeout,
    FleetmarkError,
    ModelRejected,
    ModelTooLarge,
)
from fleetmark_protocol.values import clip

TIMEOUT_S = 6 * 3600.0
_PR_SET_PDEATHSIG = 1


def run_converter(
    module: str,
    source: Path,
    target: Path,
    words: Sequence[str],
    *,
    max_bytes: int,
    watch: Watch = NOBODY,
) -> str:
    """Run a converter to its end; return what computed the new file.

    Args:
        module: the converter, in this package.
        source: what is converted.
        target: what is written.
        words: more arguments.
        max_bytes: bound of every file that it writes.
        watch: told the source's bytes done; asked several times a second.

    Raises:
        ModelRejected: the source cannot be converted.
        ModelTooLarge: a file would grow over `max_bytes`.
        BackendTimeout: it took longer than six hours.
        Canceled: asked to stop.
    """
    tools: list[str] = []

    def on_line(line: str) -> None:
        word, *rest = line.split(" ", 1)
        if word == "tools":
            tools.extend(rest)
        elif word.isdigit() and rest and rest[0].isdigit():
            watch.tell(int(word), int(rest[0]))

    command = [sys.executable, "-P", "-m", f"fleetmark_agent.models.{module}"]
    command += [str(source.absolute()), str(target.absolute()), *words]
    try:
        done = run_child(
            command,
            timeout_s=TIMEOUT_S,
            watch=watch,
            on_line=on_line,
            env=SINGLE_THREAD,
            max_file_bytes=max_bytes,
        )
    except ChildTimeout:
        raise BackendTimeout(f"{source.name}: not converted within {TIMEOUT_S:g} s") from None
    if done.code == REFUSED:
        code, _, message = done.errors.strip().partition(" ")
        kind = ModelTooLarge if code == ModelTooLarge.code else ModelRejected
        raise kind(clip(message))
    if done.code == -signal.SIGXFSZ or any(
        said in done.errors for said in ("File too large", "No space left")
    ):
        raise ModelTooLarge(f"{source.name}: what it becomes does not fit in the model store")
    if done.code != 0:
        last = (done.errors.strip().splitlines() or ["no reason given"])[-1]
        raise ModelRejected(f"{source.name}: the conversion ended with {done.code}: {clip(last)}")
    return tools[0] if tools else ""


def serve(convert: Callable[[Path, Path, list[str]], str], max_memory_bytes: int | None) -> int:
    """Be the child: SOURCE TARGET WORDS...

    Args:
        convert: does it, and returns what computed the new file.
        max_memory_bytes: bound of what it may allocate; None where `convert` bounds itself.
    """
    die_with_parent()
    if max_memory_bytes is not None:
        limit_memory(max_memory_bytes)
    try:
        tools = convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
    except FleetmarkError as error:
        sys.stderr.write(f"{error.code} {error.message}")
        return REFUSED
    sys.stdout.write(f"tools {tools}\n")
    return 0


def tell(done_bytes: int, total_bytes: int) -> None:
    """Say how far the child is."""
    sys.stdout.write(f"{done_bytes} {total_bytes}\n")
    sys.stdout.flush()


def die_with_parent() -> None:
    """Let the kernel kill this process when the agent dies; nobody would want its work."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the agent is gone")
