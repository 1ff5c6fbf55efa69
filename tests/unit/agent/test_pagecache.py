"""The page cache of real files on a real file system."""

import mmap
import os
from pathlib import Path

import pytest

from fleetmark_agent.pagecache import cached_percent, drop, model_files

SIZE = 8 * 2**20


def in_memory(path):
    """Whether the file system lives in memory, where nothing can be dropped."""
    best, kind = "", ""
    for line in Path("/proc/mounts").read_text("utf-8").splitlines():
        _, place, found, *_ = line.split()
        inside = str(path.resolve()).startswith(place.rstrip("/") + "/")
        if inside and len(place) >= len(best):
            best, kind = place, found
    return kind in ("tmpfs", "ramfs")


@pytest.fixture
def weights(on_disk):
    file = on_disk / "m.gguf"
    file.write_bytes(os.urandom(SIZE))
    return file


def test_what_was_just_written_is_in_memory_and_goes_when_it_is_dropped(weights):
    assert cached_percent([weights]) == 100
    drop([weights])
    # A file system in memory has nowhere else to keep it, and the figure says so.
    assert cached_percent([weights]) == (100 if in_memory(weights) else 0)
    assert len(weights.read_bytes()) == SIZE


def test_the_share_is_over_all_files_of_a_model_and_each_is_dropped(on_disk):
    if in_memory(on_disk):
        pytest.skip("this directory's file system lives in memory")
    files = [on_disk / name for name in ("a.safetensors", "b.safetensors")]
    for file in files:
        file.write_bytes(os.urandom(SIZE))
    drop(files[:1])
    assert cached_percent(model_files(on_disk)) == 50
    drop(model_files(on_disk))
    assert cached_percent(model_files(on_disk)) == 0


def test_looking_brings_nothing_in(weights):
    drop([weights])
    before = cached_percent([weights])
    assert cached_percent([weights]) == before


def test_what_another_has_mapped_stays_and_is_counted(weights):
    with weights.open("rb") as handle, mmap.mmap(handle.fileno(), 0, prot=mmap.PROT_READ) as held:
        assert sum(held[place] for place in range(0, SIZE, mmap.PAGESIZE)) > 0
        drop([weights])
        assert cached_percent([weights]) == 100


def test_a_model_is_a_file_or_all_that_lies_in_its_directory(tmp_path, weights):
    model = tmp_path / "model"
    (model / "inner").mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "inner" / "w.safetensors").write_bytes(b"w")
    assert model_files(weights) == [weights]
    assert model_files(model) == [model / "config.json", model / "inner" / "w.safetensors"]
    assert model_files(tmp_path / "none") == []


def test_what_cannot_be_told_is_absent(tmp_path):
    assert cached_percent([]) is None
    assert cached_percent([tmp_path / "none"]) is None
    empty = tmp_path / "empty"
    empty.touch()
    assert cached_percent([empty]) is None


def test_a_file_of_somebody_elses_tells_nothing(weights, monkeypatch):
    # The kernel would say that all of it is there, whatever is.
    weights.chmod(0o444)
    monkeypatch.setattr(os, "geteuid", lambda: weights.stat().st_uid + 1)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert cached_percent([weights]) is None
