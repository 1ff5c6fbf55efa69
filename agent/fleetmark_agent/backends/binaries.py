"""What can be read off a program or library without running it: its processor, its models."""

import mmap
import platform
import struct
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

_ELF = b"\x7fELF"
_MACHINES = {
    3: "i386",
    8: "mips",
    20: "ppc",
    21: "ppc64",
    22: "s390x",
    40: "arm",
    62: "x86_64",
    183: "aarch64",
    243: "riscv",
    258: "loongarch64",
}
"""`e_machine` of an ELF file, as the kernel names the processors that run it."""
_MACHINE_AT = 18
_LOADER = b"unknown model architecture"
"""What llama.cpp says of a model it does not know; where this is, its list of those it knows is."""


def built_for(file: Path) -> str | None:
    """Return the processor that an ELF program or library is for; None where it does not say."""
    try:
        with file.open("rb") as binary:
            head = binary.read(_MACHINE_AT + 2)
    except OSError:
        return None
    if len(head) < _MACHINE_AT + 2 or not head.startswith(_ELF):
        return None
    order = ">" if head[5] == 2 else "<"
    (number,) = struct.unpack_from(order + "H", head, _MACHINE_AT)
    return _MACHINES.get(number, f"processor {number}")


def foreign(file: Path) -> str | None:
    """Say for which other processor a program is, if it is for another one than this machine's."""
    theirs, ours = built_for(file), platform.machine()
    if theirs is None or theirs == ours or (theirs, ours) == ("i386", "x86_64"):
        return None
    return f"it is built for {theirs}, and this machine is {ours}"


def package_file(package: str, *patterns: str) -> Path | None:
    """Return the first file of an installed package that a pattern finds; imports nothing."""
    spec = find_spec(package)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for pattern in patterns:
            for file in sorted(Path(place).glob(pattern)):
                return file
    return None


def llama_cpp_knows(binary: Path | None, architecture: str) -> bool | None:
    """Whether a build of llama.cpp runs models of an architecture; None where it does not tell.

    The names it knows are texts in its binary. One that is there by chance is refused when the
    model is loaded; one that is not there would be as well, only later.

    Args:
        binary: the program or library that loads models.
        architecture: as a GGUF file names it.
    """
    if binary is None:
        return None
    try:
        seen = binary.stat()
        return _mentions(binary, seen.st_mtime_ns, seen.st_size, architecture)
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=256)
def _mentions(binary: Path, _mtime_ns: int, _size: int, architecture: str) -> bool | None:
    with (
        binary.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        if content.find(_LOADER) < 0:
            return None
        # Linkers let one text be the end of another: what comes before it says nothing.
        return content.find(architecture.encode() + b"\0") >= 0
