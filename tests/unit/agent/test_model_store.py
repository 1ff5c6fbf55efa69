"""The model store: found, fetched, checked, shared, bounded; real files and real HTTP."""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.fake_hub import FakeHub
from fakes.fake_model import write_model
from fleetmark_agent.config import AgentSettings, ModelSettings
from fleetmark_agent.models.store import ModelStore
from fleetmark_protocol.errors import (
    Canceled,
    ConfigError,
    ModelNotFound,
    ModelRejected,
    ModelTooLarge,
    SourceNotAllowed,
    StoreUnavailable,
)
from fleetmark_protocol.messages import ModelSpec

ALLOWED = ("path:", "pypi://", "hf://", "https://", "http://")
HERE = ("127.0.0.1",)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as server:
        yield server


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    return write_model(tmp_path / "source.gguf").read_bytes()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


def store_in(directory: Path, **how) -> ModelStore:
    inside = {key: how.pop(key) for key in ("free_bytes", "mem_available_bytes") if key in how}
    return ModelStore(
        directory,
        ModelSettings(**{"allow_sources": ALLOWED, "allow_private_hosts": HERE, **how}),
        **inside,
    )


def spec(ref: str, content: bytes | None = None, quantization: str | None = None) -> ModelSpec:
    digest = hashlib.sha256(content).hexdigest() if content is not None else None
    return ModelSpec(name="m", ref=ref, sha256=digest, quantization=quantization)


def models_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*.gguf"))


def put(directory: Path, name: str, content: bytes) -> Path:
    (directory / name).write_bytes(content)
    return directory / name


def test_a_store_nobody_used_is_empty_and_makes_no_directory(tmp_path):
    store = ModelStore.from_settings(AgentSettings(state_dir=tmp_path / "state"))
    assert store.list() == []
    assert store.unknown() == []
    assert not (tmp_path / "state").exists()


# --- files of the owner ---------------------------------------------------------------------------


def test_a_file_dropped_in_by_hand_is_usable_by_its_name(directory, weights):
    put(directory, "mine.gguf", weights)
    store = store_in(directory)
    assert (store.list(), store.unknown()) == ([], ["mine.gguf"])
    model = store.ensure(spec("path:mine.gguf"))
    assert model.path == directory / "mine.gguf"
    assert model.sha256 == model.origin_sha256 == hashlib.sha256(weights).hexdigest()
    assert model.bytes == len(weights)
    assert model.quantization == "F16"
    assert [info.name for info in store.list()] == ["mine.gguf"]
    assert store.unknown() == []


def test_a_missing_file_is_not_found_and_the_ones_there_are_named(directory, weights):
    put(directory, "mine.gguf", weights)
    with pytest.raises(ModelNotFound) as caught:
        store_in(directory).ensure(spec("path:yours.gguf"))
    assert "mine.gguf" in str(caught.value)


def test_a_file_with_another_digest_than_asked_is_rejected(directory, weights):
    put(directory, "mine.gguf", weights)
    with pytest.raises(ModelRejected, match="has SHA-256"):
        store_in(directory).ensure(spec("path:mine.gguf", b"other"))


def test_a_truncated_file_is_rejected(directory, weights):
    put(directory, "mine.gguf", weights[:-5000])
    with pytest.raises(ModelRejected, match="truncated"):
        store_in(directory).ensure(spec("path:mine.gguf"))


def test_a_file_that_is_no_model_is_rejected(directory):
    put(directory, "readme.gguf", b"just some text")
    with pytest.raises(ModelRejected, match="not a GGUF file"):
        store_in(directory).ensure(spec("path:readme.gguf"))


def rot(path: Path) -> None:
    """Change a model so that nothing but its content shows it: no write, as a disk does it.

    A write would show by the change time, which the sidecar is made to forget.
    """
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    sidecar = path.with_name(f"{path.name}.json")
    known = json.loads(sidecar.read_text())
    del known["ctime_ns"]
    sidecar.write_text(json.dumps(known))


def test_a_file_is_hashed_again_only_when_it_looks_changed(directory, weights, tmp_path):
    path = put(directory, "mine.gguf", weights)
    store = store_in(directory)
    store.ensure(spec("path:mine.gguf"))
    rot(path)
    assert store.ensure(spec("path:mine.gguf")).sha256 == hashlib.sha256(weights).hexdigest()
    os.utime(path)
    assert store.ensure(spec("path:mine.gguf")).sha256 != hashlib.sha256(weights).hexdigest()


def test_the_owner_may_put_another_file_in_its_place(directory, weights, tmp_path):
    put(directory, "mine.gguf", weights)
    store = store_in(directory)
    first = store.ensure(spec("path:mine.gguf", quantization="Q8_0"))
    other = write_model(tmp_path / "other.gguf", seed=2).read_bytes()
    put(directory, "mine.gguf", other)
    assert [info.sha256 for info in store.list()] == [
        first.sha256
    ]  # what it was made of is not what it says any more
    second = store.ensure(spec("path:mine.gguf", quantization="Q8_0"))
    assert second.origin_sha256 == hashlib.sha256(other).hexdigest() != first.origin_sha256


def test_a_link_out_of_the_store_is_refused(directory, weights, tmp_path):
    outside = put(tmp_path, "outside.gguf", weights)
    (directory / "link.gguf").symlink_to(outside)
    store = store_in(directory)
    with pytest.raises(ModelRejected, match="link out of the model store"):
        store.ensure(spec("path:link.gguf"))
    store.remove("link.gguf")
    assert outside.exists()
    assert not (directory / "link.gguf").is_symlink()


def test_a_link_that_was_good_once_is_refused_when_it_leads_out(directory, weights, tmp_path):
    put(directory, "real.gguf", weights)
    (directory / "link.gguf").symlink_to("real.gguf")
    store = store_in(directory)
    assert store.ensure(spec("path:link.gguf")).bytes == len(weights)
    os.link(directory / "real.gguf", tmp_path / "outside.gguf")
    (directory / "link.gguf").unlink()
    (directory / "link.gguf").symlink_to(tmp_path / "outside.gguf")
    with pytest.raises(ModelRejected):
        store.ensure(spec("path:link.gguf"))
    assert "link.gguf" not in [info.name for info in store.list()]


def test_a_link_in_circles_or_a_directory_is_no_model(directory):
    (directory / "loop.gguf").symlink_to("loop.gguf")
    (directory / "dir.gguf").mkdir()
    store = store_in(directory)
    for name in ("loop.gguf", "dir.gguf"):
        with pytest.raises((ModelRejected, ModelNotFound)):
            store.ensure(spec(f"path:{name}"))


def test_a_sidecar_that_cannot_be_read_is_made_anew(directory, weights):
    put(directory, "mine.gguf", weights)
    store = store_in(directory)
    model = store.ensure(spec("path:mine.gguf"))
    (directory / "mine.gguf.json").write_text('{"sha256": 1')
    assert store.list() == []
    assert store.ensure(spec("path:mine.gguf")) == model
    assert [info.sha256 for info in store.list()] == [model.sha256]


# --- what comes from elsewhere --------------------------------------------------------------------


def test_a_download_is_fetched_once_and_found_after_a_restart(directory, hub, weights):
    url = hub.serve("/m.gguf", weights)
    first = store_in(directory).ensure(spec(url, weights))
    again = store_in(directory).ensure(spec(url, weights))
    assert again == first
    assert len(hub.requests) == 1
    assert models_in(directory) == [first.path.name]
    assert first.path.name.startswith("m-")


def test_a_hub_file_is_fetched_from_the_hubs_address(directory, hub, weights):
    hub.serve("/me/repo/resolve/v1/sub/m.gguf", weights)
    store = store_in(directory, hf_endpoint=hub.base)
    model = store.ensure(spec("hf://me/repo/sub/m.gguf@v1", weights))
    assert model.ref == "hf://me/repo/sub/m.gguf@v1"
    assert hub.requests == [("/me/repo/resolve/v1/sub/m.gguf", None)]


def test_the_same_content_under_another_reference_is_not_fetched(directory, hub, weights):
    store = store_in(directory)
    first = store.ensure(spec(hub.serve("/a.gguf", weights), weights))
    assert store.ensure(spec(f"{hub.base}/b.gguf", weights)).path == first.path
    assert len(hub.requests) == 1


def test_without_a_digest_a_download_is_refused_unless_the_owner_allows_it(directory, hub, weights):
    url = hub.serve("/m.gguf", weights)
    with pytest.raises(ConfigError, match="without a SHA-256"):
        store_in(directory).ensure(spec(url))
    store = store_in(directory, require_sha256=False)
    model = store.ensure(spec(url))
    assert model.sha256 == hashlib.sha256(weights).hexdigest()
    assert store.ensure(spec(url)) == model
    assert len(hub.requests) == 1


def test_a_source_that_is_not_allowed_is_not_even_asked(directory, hub, weights):
    url = hub.serve("/m.gguf", weights)
    with pytest.raises(SourceNotAllowed):
        store_in(directory, allow_sources=("path:",)).ensure(spec(url, weights))
    assert hub.requests == []


def test_a_wrong_digest_leaves_nothing_behind(directory, hub, weights):
    url = hub.serve("/m.gguf", weights)
    with pytest.raises(ModelRejected, match="SHA-256"):
        store_in(directory).ensure(spec(url, b"other"))
    assert [path.name for path in directory.iterdir() if path.is_file()] == []


def test_a_download_that_is_no_model_leaves_nothing_behind(directory, hub):
    page = b"<html>please log in</html>"
    url = hub.serve("/m.gguf", page)
    with pytest.raises(ModelRejected, match="not a GGUF file"):
        store_in(directory).ensure(spec(url, page))
    assert [path.name for path in directory.iterdir() if path.is_file()] == []


def test_a_cancelled_download_is_shown_as_unfinished_and_goes_on(directory, hub, tmp_path):
    content = write_model(tmp_path / "big.gguf", rows=16_000).read_bytes()
    url = hub.serve("/m.gguf", content)
    store, seen = store_in(directory), []
    with pytest.raises(Canceled):
        store.ensure(
            spec(url, content),
            progress=lambda done, total: seen.append((done, total)),
            cancelled=lambda: bool(seen),
        )
    assert seen[0][1] == len(content)
    assert [name.startswith("m-") for name in store.unfinished()] == [True]
    assert store.list() == []
    assert store.ensure(spec(url, content)).bytes == len(content)
    assert hub.requests[-1] == ("/m.gguf", f"bytes={seen[0][0]}-")
    assert store.unfinished() == []


def test_a_crash_between_file_and_sidecar_fetches_nothing_again(directory, hub, weights):
    url = hub.serve("/m.gguf", weights)
    model = store_in(directory).ensure(spec(url, weights))
    (directory / f"{model.path.name}.json").unlink()
    assert store_in(directory).ensure(spec(url, weights)) == model
    assert len(hub.requests) == 1


def test_a_damaged_download_is_fetched_again(directory, hub, weights):
    url = hub.serve("/m.gguf", weights)
    store = store_in(directory)
    model = store.ensure(spec(url, weights))
    model.path.write_bytes(weights[:-100])
    assert store.list() == []
    assert store.ensure(spec(url, weights)).path.read_bytes() == weights
    assert len(hub.requests) == 2


def test_a_store_moved_to_another_disk_is_used_as_it_is(directory, hub, weights, tmp_path):
    url = hub.serve("/m.gguf", weights)
    store_in(directory).ensure(spec(url, weights, "Q8_0"))
    moved = tmp_path / "moved"
    subprocess.run(["cp", "-r", str(directory), str(moved)], check=True)
    hub.files.clear()
    assert store_in(moved).ensure(spec(url, weights, "Q8_0")).quantization == "Q8_0"
    assert len(hub.requests) == 1


# --- room -----------------------------------------------------------------------------------------


def test_the_quota_bounds_downloads_and_counts_every_file(directory, hub, weights):
    url = hub.serve("/m.gguf", weights)
    with pytest.raises(ModelTooLarge, match="quota"):
        store_in(directory, quota_bytes=len(weights) - 1).ensure(spec(url, weights))
    put(directory, "other.bin", bytes(5000))
    with pytest.raises(ModelTooLarge, match="quota"):
        store_in(directory, quota_bytes=len(weights) + 4000).ensure(spec(url, weights))
    assert models_in(directory) == []
    assert store_in(directory, quota_bytes=len(weights) + 9000).ensure(spec(url, weights))


def test_the_quota_bounds_conversions(directory, weights):
    put(directory, "mine.gguf", weights)
    store = store_in(directory, quota_bytes=len(weights) + 20_000)
    with pytest.raises(ModelTooLarge, match="quota"):
        store.ensure(spec("path:mine.gguf", quantization="Q8_0"))


def test_a_disk_that_is_full_takes_no_download(directory, hub, weights):
    url = hub.serve("/m.gguf", weights)
    store = store_in(directory, free_bytes=lambda path: 64 * 2**20 + 1000)
    with pytest.raises(ModelTooLarge, match="disk"):
        store.ensure(spec(url, weights))
    assert models_in(directory) == []


def test_a_disk_that_fills_up_meanwhile_ends_the_download_and_gets_its_room_back(
    directory, hub, weights
):
    url = hub.serve("/m.gguf", weights, sized=False)

    def free_bytes(path: Path) -> int:
        return 64 * 2**20 + (-1 if list(directory.glob("*.part")) else 10**9)

    with pytest.raises(ModelTooLarge, match="disk"):
        store_in(directory, free_bytes=free_bytes).ensure(spec(url, weights))
    assert [path.name for path in directory.iterdir() if path.is_file()] == []


def test_a_directory_that_cannot_be_used_is_an_error_of_the_store(tmp_path, hub, weights):
    put(tmp_path, "file", b"")
    url = hub.serve("/m.gguf", weights)
    with pytest.raises(StoreUnavailable, match="model store"):
        store_in(tmp_path / "file" / "models").ensure(spec(url, weights))


def test_a_model_larger_than_memory_is_refused_when_a_context_is_named(directory, weights):
    put(directory, "mine.gguf", weights)
    store = store_in(directory, mem_available_bytes=lambda: 1000)
    assert store.ensure(spec("path:mine.gguf"))
    with pytest.raises(ModelTooLarge, match=r"does not fit in memory: needs .* free"):
        store.ensure(spec("path:mine.gguf"), context_tokens=128)


# --- looking after --------------------------------------------------------------------------------


def test_verify_finds_what_nothing_else_shows_and_the_file_is_not_trusted_again(
    directory, hub, weights
):
    url = hub.serve("/m.gguf", weights)
    store = store_in(directory)
    model = store.ensure(spec(url, weights))
    rot(model.path)
    assert store.ensure(spec(url, weights)) == model
    with pytest.raises(ModelRejected, match="has changed"):
        store.verify(model.path.name)
    assert store.unknown() == [model.path.name]
    store.ensure(spec(url, weights))
    assert model.path.read_bytes() == weights
    assert store.verify(model.path.name).sha256 == model.sha256


def test_verify_finds_a_truncated_file(directory, weights):
    path = put(directory, "mine.gguf", weights)
    store = store_in(directory)
    store.ensure(spec("path:mine.gguf"))
    path.write_bytes(weights[:1000])
    with pytest.raises(ModelRejected, match="1,000 bytes"):
        store.verify("mine.gguf")


def test_remove_takes_the_file_and_all_that_belongs_to_it(directory, weights):
    put(directory, "mine.gguf", weights)
    store = store_in(directory)
    store.ensure(spec("path:mine.gguf"))
    store.remove("mine.gguf")
    assert [path.name for path in directory.iterdir() if path.is_file()] == []
    with pytest.raises(ModelNotFound):
        store.remove("mine.gguf")
    with pytest.raises(ConfigError):
        store.remove("../store")


def test_a_file_is_copied_in_once_and_only_if_it_is_good(directory, weights, tmp_path):
    mine = put(tmp_path, "mine.gguf", weights)
    store = store_in(directory)
    with pytest.raises(ModelRejected, match="SHA-256"):
        store.add_file(mine, sha256="0" * 64)
    assert models_in(directory) == []
    model = store.add_file(mine)
    assert [info.sha256 for info in store.list()] == [model.sha256]
    with pytest.raises(ConfigError, match="already"):
        store.add_file(mine)
    bad = put(tmp_path, "bad.gguf", b"text")
    with pytest.raises(ModelRejected):
        store.add_file(bad)
    with pytest.raises(ModelNotFound):
        store.add_file(tmp_path / "none.gguf")
    assert models_in(directory) == ["mine.gguf"]


# --- two at once ----------------------------------------------------------------------------------

PROGRAM = """
import sys
from pathlib import Path
from fleetmark_agent.config import ModelSettings
from fleetmark_agent.models.store import ModelStore
from fleetmark_protocol import logs
from fleetmark_protocol.messages import ModelSpec
logs.configure("info", "json")
directory, ref, sha256, quantization = sys.argv[1:]
here = ("127.0.0.1",)
settings = ModelSettings(allow_sources=("http://",), allow_private_hosts=here)
store = ModelStore(Path(directory), settings)
spec = ModelSpec(name="m", ref=ref, sha256=sha256, quantization=quantization or None)
model = store.ensure(spec)
print(model.path.name, model.sha256)
"""


@pytest.mark.parametrize("quantization", ["", "Q4_0"])
def test_two_processes_that_need_the_same_model_fetch_and_convert_it_once(
    directory, hub, tmp_path, quantization
):
    content = write_model(tmp_path / "big.gguf", rows=8_000).read_bytes()
    url = hub.serve("/m.gguf", content, piece_pause_s=0.03)
    digest = hashlib.sha256(content).hexdigest()
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(directory), url, digest, quantization],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    ended = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [0, 0], ended
    said = [output.splitlines()[-1] for output, _ in ended]
    assert said[0] == said[1]
    assert len(hub.requests) == 1
    told = "".join(output + errors for output, errors in ended)
    assert told.count("model_converting") == (1 if quantization else 0)


def test_waiting_for_another_process_can_be_cancelled(directory, weights):
    put(directory, "mine.gguf", weights)
    (directory / ".locks").mkdir()
    with (directory / ".locks" / "mine.gguf.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Canceled):
            store_in(directory).ensure(spec("path:mine.gguf"), cancelled=lambda: True)
    assert store_in(directory).ensure(spec("path:mine.gguf")).bytes == len(weights)
