"""How somebody follows a long piece of work, and stops it."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fleetmark_protocol.errors import Canceled

CHUNK_BYTES = 2**20

Progress = Callable[[int, int | None], None]
"""Called with the bytes done and the bytes in all (None when nobody knows)."""
Cancelled = Callable[[], bool]
"""Asked often; true ends the work."""


@dataclass(frozen=True)
class Watch:
    """Who looks on.

    Attributes:
        progress: told how far the work is.
        cancelled: asked whether to go on.
    """

    progress: Progress | None = None
    cancelled: Cancelled | None = None

    def check(self) -> None:
        """Stop when asked to.

        Raises:
            Canceled: asked to stop.
        """
        if self.cancelled is not None and self.cancelled():
            raise Canceled("canceled while the model was being prepared")

    def tell(self, done_bytes: int, total_bytes: int | None) -> None:
        """Say how far the work is."""
        if self.progress is not None:
            self.progress(done_bytes, total_bytes)


NOBODY = Watch()


def hash_file(path: Path, watch: Watch = NOBODY) -> "hashlib._Hash":
    """Return the SHA-256 over a file, open to more bytes.

    Raises:
        Canceled: asked to stop.
    """
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            watch.check()
            digest.update(chunk)
            done += len(chunk)
            watch.tell(done, total)
    return digest


def shown(count_bytes: int) -> str:
    """Return a number of bytes for people."""
    size = float(count_bytes)
    for unit in ("B", "kB", "MB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
