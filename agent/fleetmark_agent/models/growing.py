"""A download under way: the file that grows, and beside it where its bytes come from."""

import os
from pathlib import Path

from pydantic import BaseModel, ValidationError

from fleetmark_agent.models.ownfiles import is_ours, write_at_once


class Origin(BaseModel):
    """Where the bytes of a part came from: kept beside it, so that it goes on only with the same.

    Attributes:
        url: as the reference says.
        validator: the server's strong ETag or its date; None when it gave neither.
        total_bytes: length of the whole file, when known.
        told_sha256: digest of the whole file as a hub tells it, for a file at a commit.
    """

    url: str
    validator: str | None = None
    total_bytes: int | None = None
    told_sha256: str | None = None


def resumable(part: Path, url: str, *, certain: bool) -> tuple[int, Origin]:
    """Return how much is here to go on from, and where it came from; what is no good goes.

    Args:
        part: the file.
        url: what is to be fetched.
        certain: whether the digest of the whole is known.
    """
    have = size(part) if is_ours(part) else 0
    try:
        origin = Origin.model_validate_json(_origin_file(part).read_bytes())
    except (OSError, ValidationError):
        origin = Origin(url="")
    # Without a validator only the digest can tell whether both halves are of one file.
    safe = origin.validator is not None or certain
    sane = origin.total_bytes is None or have <= origin.total_bytes
    if have and origin.url == url and safe and sane:
        return have, origin
    drop_part(part)
    return 0, Origin(url=url)


def note(part: Path, origin: Origin) -> None:
    """Write down where a part's bytes come from."""
    write_at_once(_origin_file(part), origin.model_dump_json().encode())


def drop_part(part: Path) -> None:
    """Forget what came so far."""
    part.unlink(missing_ok=True)
    _origin_file(part).unlink(missing_ok=True)


def size(part: Path) -> int:
    """Return how much of it is here."""
    """Return how much of it is here."""
    return part.lstat().st_size if os.path.lexists(part) else 0


def _origin_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")
