"""Programs for another processor that this machine does not run, by an emulator either."""

import platform
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

BINFMT = Path("/proc/sys/fs/binfmt_misc")


@dataclass(frozen=True)
class Processor:
    """A processor as ELF files name it."""

    name: str
    number: int
    big: bool = False


X86_64 = Processor("x86_64", 62)
AARCH64 = Processor("aarch64", 183)
S390X = Processor("s390x", 22, big=True)
# The last one has no name: an emulator of it would have to take every file.
PROCESSORS = (
    AARCH64,
    X86_64,
    S390X,
    Processor("riscv", 243),
    Processor("loongarch64", 258),
    Processor("processor 9999", 9999),
)


def elf(processor: Processor) -> bytes:
    """Return the head of a program, which is all that says for what it is."""
    head = b"\x7fELF\x02" + bytes([2 if processor.big else 1, 1]) + bytes(9)
    order = ">" if processor.big else "<"
    return head + struct.pack(order + "HH", 2, processor.number) + bytes(44)


def write_elf(file: Path, processor: Processor) -> Path:
    """Write a program of which there is no more than its head."""
    file.write_bytes(elf(processor))
    file.chmod(0o755)
    return file


def takes(rule: str, head: bytes) -> bool:
    """Whether a format that is registered with the kernel hands such a file to its interpreter."""
    state, *lines = rule.splitlines() or [""]
    words = {key: value for key, _, value in (line.partition(" ") for line in lines)}
    if state != "enabled" or "magic" not in words:
        return False
    magic = bytes.fromhex(words["magic"])
    mask = bytes.fromhex(words["mask"]) if "mask" in words else b"\xff" * len(magic)
    at = int(words.get("offset", 0))
    part = head[at : at + len(magic)]
    pairs = zip(part, magic, mask, strict=False)
    return len(part) == len(magic) and all((a ^ b) & c == 0 for a, b, c in pairs)


def registered() -> list[str]:
    """Return the formats that this machine's kernel tells of."""
    files = BINFMT.iterdir() if BINFMT.is_dir() else ()
    return [file.read_text("ascii") for file in files if file.name not in {"register", "status"}]


def runs(processor: Processor) -> bool:
    """Whether the kernel runs such a program: in a container it may hide what is registered."""
    with tempfile.TemporaryDirectory() as directory:
        program = write_elf(Path(directory) / "program", processor)
        try:
            subprocess.run([program], capture_output=True, timeout=10, check=False)
        except subprocess.TimeoutExpired:
            return True
        except OSError:
            return False
    return True


def not_run_among(
    rules: Iterable[str],
    *,
    machine: str,
    runs: Callable[[Processor], bool],
) -> Processor | None:
    """Return the first other processor that neither a rule nor the kernel knows to run."""
    rules = list(rules)
    for processor in PROCESSORS:
        if processor.name == machine or any(takes(rule, elf(processor)) for rule in rules):
            continue
        if not runs(processor):
            return processor
    return None


@lru_cache(maxsize=1)
def not_run_here() -> Processor | None:
    """Return a processor whose programs this machine does not run; None: it runs all."""
    return not_run_among(registered(), machine=platform.machine(), runs=runs)
