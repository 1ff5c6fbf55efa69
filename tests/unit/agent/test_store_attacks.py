"""Links, pipes and second names in the model store, and files that others may change."""

import hashlib
import json
import os
import struct
from pathlib import Path

import pytest

from fakes.fake_hub import FakeHub
from fakes.fake_model import write_model
from fleetmark_agent.config import ModelSettings
from fleetmark_agent.models import finding
from fleetmark_agent.models.making import fetched_name
from fleetmark_agent.models.ownfiles import open_new, open_to_grow
from fleetmark_agent.models.reference import PathReference, RemoteReference, parse
from fleetmark_agent.models.store import ModelStore
from fleetmark_protocol.errors import (
    Canceled,
    ConfigError,
    ModelNotFound,
    ModelRejected,
    StoreError,
)
from fleetmark_protocol.messages import ModelSpec

SECRET = b"what lies outside of the store"


@pytest.fixture
def weights(tmp_path):
    return write_model(tmp_path / "source.gguf").read_bytes()


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@pytest.fixture
def outside(tmp_path):
    file = tmp_path / "outside"
    file.write_bytes(SECRET)
    return file


@pytest.fixture
def hub():
    with FakeHub() as server:
        yield server


def store_in(directory, **how) -> ModelStore:
    how = {"allow_sources": ("path:", "http://"), "allow_private_hosts": ("127.0.0.1",), **how}
    return ModelStore(directory, ModelSettings(**how))


def by_path(name):
    return ModelSpec(name="m", ref=f"path:{name}")


def by_url(hub, weights):
    url = hub.serve("/m.gguf", weights)
    return ModelSpec(name="m", ref=url, sha256=hashlib.sha256(weights).hexdigest())


def part_of(directory, spec) -> Path:
    reference = parse(spec.ref)
    assert not isinstance(reference, (PathReference, RemoteReference))
    return directory / f"{fetched_name(reference, spec)}.part"


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "..",
        "../outside",
        "%2e%2e/outside",
        "..\\outside",
        "a/../../outside",
        ".locks",
        "m.gguf.json",
        "m.gguf.part",
        "m\x00.gguf",
        "m\n.gguf",
        "\u202egguf.m",
        "x" * 1000,
        "",
    ],
)
def test_a_name_that_could_lead_elsewhere_is_refused_before_the_disk_is_asked(directory, name):
    with pytest.raises((ConfigError, ModelNotFound)):
        store_in(directory).ensure(
            ModelSpec.model_construct(name="m", ref=f"path:{name}", sha256=None, quantization=None)
        )
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["-m", "--rpc", "--model=x", "-", "$(id)", "a;b", "a b.gguf", "%s%n"]
)
def test_a_name_that_means_something_elsewhere_is_only_a_files_name(directory, weights, name):
    (directory / name).write_bytes(weights)
    model = store_in(directory).ensure(by_path(name))
    assert model.path == directory / name
    assert model.path.is_absolute()


def test_a_link_to_a_directory_outside_is_no_model(directory, tmp_path, weights):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "config.json").write_text("{}")
    (directory / "model").symlink_to(elsewhere)
    with pytest.raises(ModelRejected, match="link out of the model store"):
        store_in(directory).ensure(by_path("model"))
    assert store_in(directory).list() == []


def test_a_store_that_is_a_link_is_where_the_owner_put_it(tmp_path, directory, weights):
    (directory / "m.gguf").write_bytes(weights)
    (tmp_path / "link").symlink_to(directory)
    assert store_in(tmp_path / "link").ensure(by_path("m.gguf")).sha256 is not None


def test_a_named_pipe_or_a_device_is_no_model_and_holds_nobody_up(directory):
    os.mkfifo(directory / "pipe.gguf")
    (directory / "zero.gguf").symlink_to("/dev/zero")
    for name in ("pipe.gguf", "zero.gguf"):
        with pytest.raises(ModelRejected):
            store_in(directory).ensure(by_path(name))


@pytest.mark.parametrize("how", ["symlink", "hardlink", "pipe", "dangling"])
def test_a_part_that_lies_in_wait_is_not_written_through(directory, outside, hub, weights, how):
    spec = by_url(hub, weights)
    part = part_of(directory, spec)
    if how == "symlink":
        part.symlink_to(outside)
    elif how == "hardlink":
        os.link(outside, part)
    elif how == "dangling":
        part.symlink_to(outside.with_name("new"))
    else:
        os.mkfifo(part)
    # As if it were one of ours that goes on.
    part.with_name(f"{part.name}.json").write_text(
        json.dumps({"url": spec.ref, "total_bytes": len(weights)})
    )
    model = store_in(directory).ensure(spec)
    assert model.path.read_bytes() == weights
    assert outside.read_bytes() == SECRET
    assert not outside.with_name("new").exists()


def test_what_comes_between_the_look_and_the_write_is_not_written_through(directory, outside):
    link, second, pipe = (directory / name for name in ("link", "second", "pipe"))
    link.symlink_to(outside)
    other = outside.with_name("other")
    other.write_bytes(SECRET)
    os.link(other, second)
    os.mkfifo(pipe)
    for part in (link, second, pipe):
        with pytest.raises((OSError, ModelRejected)):
            open_to_grow(part)
    assert outside.read_bytes() == other.read_bytes() == SECRET
    with open_new(link) as file:
        file.write(b"ours")
    assert (link.is_symlink(), outside.read_bytes()) == (False, SECRET)


def test_a_sidecar_that_is_a_link_is_replaced_and_what_it_leads_to_stays(
    directory, outside, weights
):
    (directory / "m.gguf").write_bytes(weights)
    (directory / "m.gguf.json").symlink_to(outside)
    store_in(directory).ensure(by_path("m.gguf"))
    assert not (directory / "m.gguf.json").is_symlink()
    assert outside.read_bytes() == SECRET


@pytest.mark.parametrize("name", [".locks", ".tmp"])
def test_work_is_not_done_where_a_link_leads(directory, tmp_path, weights, name):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (directory / name).symlink_to(elsewhere)
    (directory / "m.gguf").write_bytes(weights)
    with pytest.raises(ModelRejected, match="is a link"):
        store_in(directory).ensure(ModelSpec(name="m", ref="path:m.gguf", quantization="Q8_0"))
    assert list(elsewhere.iterdir()) == []


def test_a_lock_that_is_a_link_is_not_opened(directory, outside, weights):
    (directory / ".locks").mkdir()
    (directory / ".locks" / "m.gguf.lock").symlink_to(outside.with_name("new"))
    (directory / "m.gguf").write_bytes(weights)
    with pytest.raises(StoreError):
        store_in(directory).ensure(by_path("m.gguf"))
    assert not outside.with_name("new").exists()


def test_removing_a_link_leaves_what_it_leads_to(directory, outside):
    (directory / "m.gguf").symlink_to(outside)
    store_in(directory).remove("m.gguf")
    assert outside.read_bytes() == SECRET


def test_a_model_that_everybody_may_change_is_refused(directory, weights):
    file = directory / "m.gguf"
    file.write_bytes(weights)
    file.chmod(0o666)
    with pytest.raises(ModelRejected, match="everybody on this machine may change"):
        store_in(directory).ensure(by_path("m.gguf"))
    file.chmod(0o664)
    assert store_in(directory).ensure(by_path("m.gguf")).path == file


def test_a_store_in_which_everybody_may_put_files_is_refused(directory, weights):
    (directory / "m.gguf").write_bytes(weights)
    directory.chmod(0o777)
    with pytest.raises(ModelRejected, match="everybody on this machine may change"):
        store_in(directory).ensure(by_path("m.gguf"))


def test_what_the_store_writes_itself_nobody_else_may_change(directory, hub, weights):
    old = os.umask(0)
    try:
        model = store_in(directory).ensure(by_url(hub, weights))
    finally:
        os.umask(old)
    assert [oct(file.stat().st_mode & 0o022) for file in (model.path, directory)] == ["0o0"] * 2


@pytest.mark.parametrize("place", [8, 16])
def test_a_header_that_claims_billions_is_refused_at_once(directory, weights, place):
    content = bytearray(weights)
    content[place : place + 8] = struct.pack("<Q", 2**62)
    (directory / "m.gguf").write_bytes(content)
    with pytest.raises(ModelRejected):
        store_in(directory).ensure(by_path("m.gguf"))


def test_a_change_that_is_given_the_old_time_is_seen_all_the_same(directory, hub, weights):
    spec = by_url(hub, weights)
    store = store_in(directory)
    model = store.ensure(spec)
    before = model.path.stat()
    model.path.write_bytes(weights[:-1] + b"!")
    os.utime(model.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ModelRejected, match="has changed"):
        store.check_unchanged(model)
    hub.requests.clear()
    assert store.ensure(spec).path.read_bytes() == weights
    assert len(hub.requests) == 1


def test_a_file_of_the_owner_that_changes_under_a_job_ends_the_job(directory, weights, tmp_path):
    (directory / "mine.gguf").write_bytes(weights)
    store = store_in(directory)
    model = store.ensure(by_path("mine.gguf"))
    store.check_unchanged(model)
    (directory / "mine.gguf").write_bytes(write_model(tmp_path / "o.gguf", seed=2).read_bytes())
    with pytest.raises(ModelRejected, match="was changed while the job was under way"):
        store.check_unchanged(model)


def test_after_a_load_a_model_is_looked_at_and_never_read(directory, hub, weights, monkeypatch):
    store = store_in(directory)
    model = store.ensure(by_url(hub, weights))
    monkeypatch.setattr(finding, "hash_model", lambda *_: pytest.fail("it is read"))
    store.check_looks_same(model)
    # Only the kernel's own time of change is another one.
    model.path.chmod(0o600 if model.path.stat().st_mode & 0o077 else 0o640)
    with pytest.raises(ModelRejected, match="was changed while it was loaded"):
        store.check_looks_same(model)


def test_before_a_load_a_model_that_looks_changed_is_read_as_long_as_the_job_is_wanted(
    directory, hub, weights
):
    store = store_in(directory)
    model = store.ensure(by_url(hub, weights))
    model.path.chmod(0o600 if model.path.stat().st_mode & 0o077 else 0o640)
    with pytest.raises(Canceled):
        store.check_unchanged(model, cancelled=lambda: True)
    store.check_unchanged(model, cancelled=lambda: False)
    store.check_looks_same(model)
