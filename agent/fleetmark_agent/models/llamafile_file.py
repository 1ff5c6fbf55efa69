"""Says what a llamafile holds: a program and a zip archive in one, with a GGUF file or without."""

import struct
import zipfile
from pathlib import Path

from fleetmark_agent.models.facts import ModelFacts
from fleetmark_agent.models.gguf_file import read_gguf_inside
from fleetmark_protocol.errors import ModelRejected

PROGRAM_MAGICS = (b"MZqFpD", b"jartsr", b"\x7fELF")
"""Programs for any system (with and without an MZ header), and one that was made Linux's own."""
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_LOCAL_MAGIC = b"PK\x03\x04"


def read_llamafile(path: Path) -> ModelFacts:
    """Say what a llamafile holds.

    Raises:
        ModelRejected: it has several weights inside, or packed ones; or they are damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [one for one in archive.infolist() if one.filename.endswith(".gguf")]
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise ModelRejected(f"{path.name}: a program, but no llamafile: {error}") from error
    if not members:
        return ModelFacts(format="program")
    if len(members) > 1:
        raise ModelRejected(f"{path.name}: a program with {len(members)} GGUF files, not one")
    (member,) = members
    if member.compress_type != zipfile.ZIP_STORED:
        raise ModelRejected(f"{path.name}: {member.filename} inside is packed; it must be stored")
    window = _start(path, member), member.file_size
    facts = read_gguf_inside(path, window)
    return facts.model_copy(update={"format": "llamafile", "gguf_window": window})


def _start(path: Path, member: zipfile.ZipInfo) -> int:
    """Return the first byte of a stored member: only its local header says how long that one is."""
    with path.open("rb") as file:
        file.seek(member.header_offset)
        head = file.read(_LOCAL_HEADER.size)
    magic, name_bytes, extra_bytes = (
        _LOCAL_HEADER.unpack(head) if len(head) == _LOCAL_HEADER.size else (b"", 0, 0)
    )
    if magic != _LOCAL_MAGIC:
        raise ModelRejected(f"{path.name}: its archive is damaged at {member.filename}")
    return int(member.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes)
