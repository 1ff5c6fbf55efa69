"""What a program or library says of itself without being run."""

import platform

import pytest

from fleetmark_agent.backends import binaries
from fleetmark_agent.backends.llama_program import ask_briefly
from fleetmark_protocol.errors import BackendUnavailable
from processors import (
    AARCH64,
    PROCESSORS,
    X86_64,
    Processor,
    not_run_among,
    not_run_here,
    write_elf,
)

# As the kernel tells of qemu-user: with a mask, and for aarch64 or for all that is ELF.
QEMU_AARCH64 = """\
enabled
interpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P
flags: POCF
offset 0
magic 7f454c460201010000000000000000000200b700
mask ffffffffffffff00fffffffffffffffffeffffff
"""
ANY_ELF = "enabled\ninterpreter /bin/true\nflags: \noffset 0\nmagic 7f454c46\n"


def llama_library(file, *names):
    said = b"unknown model architecture: '%s'\0"
    file.write_bytes(b"\x7fELF" + said + b"".join(b"\0" + name.encode() for name in names) + b"\0")
    return file


@pytest.mark.parametrize("processor", PROCESSORS, ids=lambda processor: processor.name)
def test_an_elf_file_tells_its_processor_and_an_unknown_one_its_number(tmp_path, processor):
    assert binaries.built_for(write_elf(tmp_path / "program", processor)) == processor.name


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"#!/bin/sh\necho nothing to see here\n"])
def test_what_is_no_elf_file_tells_nothing(tmp_path, content):
    (tmp_path / "program").write_bytes(content)
    assert binaries.built_for(tmp_path / "program") is None
    assert binaries.built_for(tmp_path / "nowhere") is None


def test_only_a_program_for_another_machine_is_foreign(tmp_path, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert binaries.foreign(write_elf(tmp_path / "ours", X86_64)) is None
    older = write_elf(tmp_path / "older", Processor("i386", 3))
    assert binaries.foreign(older) is None, "which x86_64 runs as well"
    theirs = binaries.foreign(write_elf(tmp_path / "theirs", AARCH64))
    assert theirs == "it is built for aarch64, and this machine is x86_64"


def test_a_program_for_another_machine_is_refused_with_both_names(tmp_path):
    other = not_run_here()
    if other is None:
        pytest.skip("an emulator runs the programs of every other processor here (binfmt_misc)")
    program = write_elf(tmp_path / "llama-server", other)
    both = f"built for {other.name}, and this machine is {platform.machine()}"
    with pytest.raises(BackendUnavailable, match=both) as caught:
        ask_briefly([str(program), "--help"])
    assert "processor" in caught.value.hint


@pytest.mark.parametrize(
    ("rules", "emulated", "chosen"),
    [
        ([], set(), "aarch64"),
        ([QEMU_AARCH64], set(), "s390x"),
        ([QEMU_AARCH64.replace("enabled", "disabled")], set(), "aarch64"),
        ([QEMU_AARCH64], {"s390x"}, "riscv"),
        ([ANY_ELF], set(), None),
    ],
)
def test_these_tests_take_a_processor_that_no_emulator_here_runs(rules, emulated, chosen):
    found = not_run_among(rules, machine="x86_64", runs=lambda one: one.name in emulated)
    assert (found.name if found else None) == chosen


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
