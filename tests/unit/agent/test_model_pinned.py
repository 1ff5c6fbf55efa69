"""A hub's file at a commit: the hub tells its digest, and what comes is held against it."""

import hashlib
from pathlib import Path

import pytest

from fakes.fake_hub import FakeHub
from fakes.fake_model import write_model
from fleetmark_agent.config import ModelSettings
from fleetmark_agent.models.store import ModelStore
from fleetmark_protocol.errors import ConfigError, ModelRejected
from fleetmark_protocol.messages import ModelSpec

COMMIT = "064fe43ea8c1e1f93477ef4a170bdc2b244ef02c"
REF = f"hf://me/repo/m.gguf@{COMMIT}"
PATH = f"/me/repo/resolve/{COMMIT}/m.gguf"


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    return write_model(tmp_path / "source.gguf").read_bytes()


@pytest.fixture
def hub():
    with FakeHub() as hub:
        yield hub


@pytest.fixture
def fetch(tmp_path, hub):
    """Fetches a reference from the hub into a new store."""

    def run(ref=REF, sha256=None, **settings):
        settings = {"allow_sources": ("hf://",), "hf_endpoint": hub.base, **settings}
        settings = ModelSettings(**settings)
        store = ModelStore(tmp_path / "store", settings)
        return store.ensure(ModelSpec(name="m", ref=ref, sha256=sha256))

    return run


def tells(content, commit=COMMIT):
    """The headers by which a hub tells a large file's digest."""
    digest = hashlib.sha256(content).hexdigest()
    return {"X-Repo-Commit": commit, "X-Linked-Etag": f'"{digest}"'}


def test_a_file_at_a_commit_needs_no_digest_of_ours(fetch, hub, weights):
    hub.serve(PATH, weights, headers=tells(weights))
    assert fetch().sha256 == hashlib.sha256(weights).hexdigest()


def test_the_hub_tells_it_even_where_the_bytes_come_from_elsewhere(fetch, hub, weights):
    hub.serve(PATH, location=hub.serve("/cdn/m", weights), headers=tells(weights))
    assert fetch().sha256 == hashlib.sha256(weights).hexdigest()


def test_other_bytes_than_the_hub_tells_of_are_refused(fetch, hub, weights, tmp_path):
    hub.serve(PATH, location=hub.serve("/cdn/m", weights), headers=tells(b"another file"))
    with pytest.raises(ModelRejected, match="has SHA-256"):
        fetch()
    assert list((tmp_path / "store").glob("*.gguf")) == []


def test_where_the_bytes_come_from_has_no_say_in_what_they_should_be(fetch, hub, weights):
    with FakeHub() as elsewhere:
        there = elsewhere.serve("/m", weights, headers=tells(weights))
        hub.serve(PATH, location=there, headers=tells(b"another file"))
        with pytest.raises(ModelRejected, match="has SHA-256"):
            fetch(allow_private_hosts=("127.0.0.1",))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Repo-Commit": COMMIT, "X-Linked-Etag": '"0123456789abcdef"'},
        {"X-Repo-Commit": "f" * 40, "X-Linked-Etag": '"' + "0" * 64 + '"'},
    ],
    ids=["tells nothing", "a tag that is no digest", "of another commit"],
)
def test_a_hub_that_does_not_tell_is_not_good_enough(fetch, hub, weights, headers):
    hub.serve(PATH, weights, headers=headers)
    with pytest.raises(ModelRejected, match="the hub tells no SHA-256") as caught:
        fetch()
    assert "add `sha256`" in caught.value.hint
    assert fetch(require_sha256=False).sha256 == hashlib.sha256(weights).hexdigest()


def test_a_digest_of_ours_counts_more_than_the_hubs_word(fetch, hub, weights):
    hub.serve(PATH, weights, headers=tells(weights))
    with pytest.raises(ModelRejected, match="not " + "0" * 64):
        fetch(sha256="0" * 64)


def test_a_download_that_broke_off_is_held_against_what_was_told(fetch, hub, weights):
    hub.serve(PATH, weights, headers=tells(weights), cuts=[len(weights) // 2])
    assert fetch().sha256 == hashlib.sha256(weights).hexdigest()


@pytest.mark.parametrize("revision", ["", "@main", "@v1.0", f"@{COMMIT[:12]}"])
def test_what_may_change_needs_a_digest(fetch, hub, weights, revision):
    with pytest.raises(ConfigError, match="without a SHA-256"):
        fetch(f"hf://me/repo/m.gguf{revision}")
    assert hub.requests == []
