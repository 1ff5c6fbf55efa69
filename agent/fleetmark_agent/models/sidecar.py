"""What is known about one model of the store, as it lies beside it."""

import os
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from fleetmark_agent.models.facts import ModelFacts
from fleetmark_agent.models.model_files import Look, look_at
from fleetmark_agent.models.targets import Tool
from fleetmark_protocol.ids import Sha256
from fleetmark_protocol.values import Count


class Recipe(BaseModel):
    """How a model was made out of another one.

    Attributes:
        source_sha256: the other one.
        format: what it was made into: `gguf`, `gguf-2023` or `safetensors`.
        quantization: what was asked for; None where the weights were to stay as they are.
        tool: whose quantizer, `gguf` or `llama.cpp`: two make different files.
        version: of our rules; a new version makes files anew.
        tools: what computed it, with versions.
    """

    model_config = ConfigDict(frozen=True)

    source_sha256: Sha256
    format: str = "gguf"
    quantization: str | None = None
    tool: Tool = "gguf"
    version: int
    tools: str


class Sidecar(BaseModel):
    """What is known about one model.

    Attributes:
        sha256: of the whole of it (see `model_files`).
        bytes: its length.
        mtime_ns: with `bytes` and `inode` what it looked like when it was hashed; None once it
            was found damaged, so that it is not trusted again.
        inode: see `mtime_ns`.
        ref: where it, or what it was made of, came from.
        origin_sha256: of the model whose weights these are.
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
    info: ModelFacts
    recipe: Recipe | None = None

    @property
    def by_hand(self) -> bool:
        """Whether the owner put the file there, and may put another in its place."""
        return self.recipe is None and self.ref.startswith("path:")

    def fits(self, path: Path) -> bool:
        """Whether the model still looks as it did when it was hashed.

        Raises:
            OSError, ModelRejected: it is not there, or no model any more.
        """
        return self.mtime_ns is not None and look_at(path) == Look(
            self.bytes, self.mtime_ns, self.inode
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
