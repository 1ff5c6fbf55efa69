"""What a program or library says of itself without being run."""

import platform
import struct

import pytest

from fleetmark_agent.backends import binaries
from fleetmark_agent.backends.llama_program import ask_briefly
from fleetmark_protocol.errors import BackendUnavailable

X86_64, AARCH64, S390X = 62, 183, 22


def elf(file, machine, *, big=False):
    order = 2 if big else 1
    head = b"\x7fELF\x02" + bytes([order, 1]) + bytes(9)
    file.write_bytes(head + struct.pack((">" if big else "<") + "HH", 2, machine) + bytes(44))
    file.chmod(0o755)
    return file


def llama_library(file, *names):
    said = b"unknown model architecture: '%s'\0"
    file.write_bytes(b"\x7fELF" + said + b"".join(b"\0" + name.encode() for name in names) + b"\0")
    return file


@pytest.mark.parametrize(
    ("machine", "big", "name"),
    [(X86_64, False, "x86_64"), (AARCH64, False, "aarch64"), (S390X, True, "s390x")],
)
def test_an_elf_file_tells_its_processor(tmp_path, machine, big, name):
    assert binaries.built_for(elf(tmp_path / "program", machine, big=big)) == name


def test_a_processor_nobody_has_heard_of_has_its_number(tmp_path):
    assert binaries.built_for(elf(tmp_path / "program", 9999)) == "processor 9999"


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"#!/bin/sh\necho nothing to see here\n"])
def test_what_is_no_elf_file_tells_nothing(tmp_path, content):
    (tmp_path / "program").write_bytes(content)
    assert binaries.built_for(tmp_path / "program") is None
    assert binaries.built_for(tmp_path / "nowhere") is None


def test_only_a_program_for_another_machine_is_foreign(tmp_path, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert binaries.foreign(elf(tmp_path / "ours", X86_64)) is None
    assert binaries.foreign(elf(tmp_path / "older", 3)) is None, "which x86_64 runs as well"
    theirs = binaries.foreign(elf(tmp_path / "theirs", AARCH64))
    assert theirs == "it is built for aarch64, and this machine is x86_64"


def test_a_program_for_another_machine_is_refused_with_both_names(tmp_path):
    other = AARCH64 if platform.machine() == "x86_64" else X86_64
    program = elf(tmp_path / "llama-server", other)
    with pytest.raises(BackendUnavailable, match=f"this machine is {platform.machine()}") as caught:
        ask_briefly([str(program), "--help"])
    assert "processor" in caught.value.hint


def test_a_program_that_cannot_be_run_for_another_reason_keeps_that_reason(tmp_path):
    (tmp_path / "program").write_bytes(b"not a program")
    (tmp_path / "program").chmod(0o755)
    with pytest.raises(BackendUnavailable, match="Exec format error") as caught:
        ask_briefly([str(tmp_path / "program"), "--help"])
    assert caught.value.hint is None


def test_a_build_of_llama_cpp_knows_the_architectures_that_it_names(tmp_path):
    library = llama_library(tmp_path / "libllama.so", "llama", "qwen2moe")
    assert binaries.llama_cpp_knows(library, "llama")
    assert binaries.llama_cpp_knows(library, "moe"), "linkers let a text end another one"
    assert binaries.llama_cpp_knows(library, "qwen2") is False
    assert binaries.llama_cpp_knows(library, "mamba") is False


def test_what_is_no_build_of_llama_cpp_says_nothing(tmp_path):
    (tmp_path / "script").write_text("#!/bin/sh\nexec llama-server\n")
    (tmp_path / "empty").touch()
    for name in ("script", "empty", "nowhere"):
        assert binaries.llama_cpp_knows(tmp_path / name, "llama") is None
    assert binaries.llama_cpp_knows(None, "llama") is None


def test_a_library_that_was_replaced_is_read_again(tmp_path):
    library = llama_library(tmp_path / "libllama.so", "llama")
    assert binaries.llama_cpp_knows(library, "mamba") is False
    llama_library(tmp_path / "libllama.so", "llama", "mamba")
    assert binaries.llama_cpp_knows(library, "mamba")


def test_a_file_of_a_package_is_found_without_importing_it():
    assert binaries.package_file("fleetmark_agent", "backends/base.*").name == "base.py"
    assert binaries.package_file("fleetmark_agent", "*.so") is None
    assert binaries.package_file("no_such_package", "*") is None
