"""What is known about one model of the store, as it lies beside it."""

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
        ctime_ns: see `mtime_ns`; None in a sidecar from before it was noted.
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
    ctime_ns: int | None = None
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
        if self.mtime_ns is None:
            return False
        look = look_at(path)
        ctime_ns = look.ctime_ns if self.ctime_ns is None else self.ctime_ns
        return look == Look(self.bytes, self.mtime_ns, self.inode, ctime_ns)
