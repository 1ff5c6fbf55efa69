"""What could not be understood: kept, one JSON object a line, so that nothing vanishes unseen."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from fleetmark_protocol.errors import StoreUnavailable

MAX_FILE_BYTES = 16 * 2**20
"""Past it the file is renamed to `<name>.1`, in place of an older one, and begun anew."""

MAX_RAW_CHARS = 2000


class DeadLetters:
    """The file of dead letters; used by several threads."""

    def __init__(
        self,
        file: Path,
        max_file_bytes: int = MAX_FILE_BYTES,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Nothing is opened before the first letter.

        Args:
            file: where to keep them.
            max_file_bytes: when to begin a new file.
            clock: nanoseconds since the epoch.
        """
        self._file = file
        self._max_file_bytes = max_file_bytes
        self._clock = clock
        self._lock = threading.Lock()

    def add(
        self, topic: str, letters: list[tuple[str, str | bytes]], *, durable: bool = True
    ) -> None:
        """Keep letters (reason, raw).

        Args:
            topic: where they came.
            letters: what was wrong with each, and what it was.
            durable: on return a power cut loses nothing of it, because records are acked then.

        Raises:
            StoreUnavailable: they could not be written.
        """
        lines = [
            json.dumps(
                {"time_ns": self._clock(), "topic": topic, "reason": reason, "raw": short(raw)}
            )
            + "\n"
            for reason, raw in letters
        ]
        with self._lock:
            try:
                for part in self._parts(lines):
                    self._rotate()
                    with self._file.open("a", encoding="utf-8") as out:
                        out.write(part)
                        out.flush()
                        if durable:
                            os.fsync(out.fileno())
            except OSError as error:
                raise StoreUnavailable(f"{self._file}: {error.strerror or error}") from error

    def _parts(self, lines: list[str]) -> Iterator[str]:
        """Yield lines in pieces that are small beside a file, so that none grows far too large."""
        piece: list[str] = []
        size = 0
        for line in lines:
            piece.append(line)
            size += len(line)
            if size >= self._max_file_bytes // 4:
                yield "".join(piece)
                piece, size = [], 0
        if piece:
            yield "".join(piece)

    def _rotate(self) -> None:
        if self._file.exists() and self._file.stat().st_size >= self._max_file_bytes:
            self._file.replace(older(self._file))


def older(file: Path) -> Path:
    """Return where the letters before the current file's are."""
    return file.with_name(file.name + ".1")


def count(file: Path) -> int:
    """Return the number of letters kept, rotated ones included."""
    total = 0
    for part in (older(file), file):
        if part.exists():
            with part.open("rb") as lines:
                total += sum(1 for _ in lines)
    return total


def short(raw: str | bytes) -> str:
    """Return as much of what could not be understood as a letter holds."""
    if isinstance(raw, bytes):
        # A character is four bytes at most; the rest need not be looked at.
        raw = raw[: 4 * MAX_RAW_CHARS + 4].decode("utf-8", "replace")
    text = raw
    return text if len(text) <= MAX_RAW_CHARS else text[:MAX_RAW_CHARS] + "..."
