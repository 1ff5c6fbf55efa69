"""What is known about one file of the model store, as it lies beside it."""

import os
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from fleetmark_agent.models.gguf_file import GgufInfo
from fleetmark_protocol.ids import Sha256
from fleetmark_protocol.records import Count


class Recipe(BaseModel):
    """How a file was made out of another one.

    Attributes:
        source_sha256: the other one.
        quantization: what was asked for.
        version: of our rules; a new version makes files anew.
        tools: what computed it.
    """

    model_config = ConfigDict(frozen=True)

    source_sha256: Sha256
    quantization: str
    version: int
    tools: str


class Sidecar(BaseModel):
    """What is known about one file.

    Attributes:
        sha256: of the whole file.
        bytes: its length.
        mtime_ns: with `bytes` and `inode` what it looked like when it was hashed; None once it
            was found damaged, so that it is not trusted again.
        inode: see `mtime_ns`.
        ref: where it, or what it was made of, came from.
        origin_sha256: of the file whose weights these are.
        info: what it holds.
        recipe: how it was made here, if it was.
    """

    model_config = ConfigDict(frozen=True)

    sha256: Sha256
    bytes: Count
    mtime_ns: int | None
    inode: int
    ref: str
    origin_sha256: Sha256
    info: GgufInfo
    recipe: Recipe | None = None

    @property
    def by_hand(self) -> bool:
        """Whether the owner put the file there, and may put another in its place."""
        return self.recipe is None and self.ref.startswith("path:")

    def fits(self, path: Path) -> bool:
        """Whether the file still looks as it did when it was hashed."""
        found = path.stat()
        return (found.st_size, found.st_mtime_ns, found.st_ino) == (
            self.bytes,
            self.mtime_ns,
            self.inode,
        )


def write_at_once(file: Path, content: bytes) -> None:
    """Replace a small file so that a reader sees the old or the new one, never a part."""
    new = file.with_name(f".{file.name}.{os.getpid()}.{time.monotonic_ns()}")
    try:
        with new.open("wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)
    sync_directory(file.parent)


def sync_directory(directory: Path) -> None:
    """Make renames in a directory survive a power cut."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
