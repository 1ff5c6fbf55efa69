"""Downloads over real HTTP: whole, broken, resumed, changed, redirected, refused, too large."""

import hashlib
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.fake_hub import FakeHub
from fleetmark_agent.models.addresses import Guard
from fleetmark_agent.models.download import Downloader, Order
from fleetmark_agent.models.http_rules import (
    StartOver,
    redirect,
    shown_url,
    total_bytes,
    validator,
)
from fleetmark_agent.models.watch import Watch
from fleetmark_protocol.errors import (
    Canceled,
    DownloadFailed,
    ModelNotFound,
    ModelRejected,
    ModelTooLarge,
    SourceNotAllowed,
)

CONTENT = bytes(range(256)) * 8192  # 2 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as server:
        yield server


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf.part"


HERE = Guard(("127.0.0.1",))
"""The fake hub is on this machine, where nothing is fetched from unless the owner says so."""


def downloader(tries: int = 1, **how) -> Downloader:
    how = {"guard": HERE, "sleep": lambda pause_s: None, **how}
    return Downloader(lambda more_bytes: None, tries=tries, **how)


def test_a_file_comes_whole_with_its_digest_and_its_progress(hub, part):
    seen: list[tuple[int, int | None]] = []
    url = hub.serve("/m.gguf", CONTENT)
    watch = Watch(progress=lambda done, total: seen.append((done, total)))
    assert downloader().fetch(Order(url, part, SHA256, watch)) == SHA256
    assert part.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_file_of_unknown_length_comes_too(hub, part):
    url = hub.serve("/m.gguf", CONTENT, sized=False)
    assert downloader().fetch(Order(url, part, SHA256)) == SHA256


def test_a_broken_connection_keeps_what_came_and_the_next_try_goes_on_from_there(hub, part):
    url = hub.serve("/m.gguf", CONTENT, cuts=[1_000_000])
    with pytest.raises(DownloadFailed) as caught:
        downloader().fetch(Order(url, part, SHA256))
    assert caught.value.retryable
    have = part.stat().st_size
    assert 0 < have <= 1_000_000
    assert downloader().fetch(Order(url, part, SHA256)) == SHA256
    assert part.read_bytes() == CONTENT
    assert hub.requests == [("/m.gguf", None), ("/m.gguf", f"bytes={have}-")]


def test_broken_connections_are_tried_again_by_themselves(hub, part):
    url = hub.serve("/m.gguf", CONTENT, cuts=[700_000, 700_000, 300_000])
    assert downloader(tries=4).fetch(Order(url, part, SHA256)) == SHA256
    assert len(hub.requests) == 4


def test_a_server_without_ranges_sends_it_all_again(hub, part):
    url = hub.serve("/m.gguf", CONTENT, ranges=False, cuts=[1_000_000])
    assert downloader(tries=2).fetch(Order(url, part, SHA256)) == SHA256
    assert part.read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_is_fetched_anew_and_not_mixed(hub, part):
    url = hub.serve("/m.gguf", b"old" * 500_000, cuts=[1_000_000])
    with pytest.raises(DownloadFailed):
        downloader().fetch(Order(url, part))
    hub.serve("/m.gguf", CONTENT)
    assert downloader().fetch(Order(url, part)) == SHA256
    assert part.read_bytes() == CONTENT


def test_without_a_validator_two_halves_of_two_files_are_seen_by_the_digest(hub, part):
    url = hub.serve("/m.gguf", b"old" * 700_000, cuts=[1_000_000], etag=None)
    with pytest.raises(DownloadFailed):
        downloader().fetch(Order(url, part, SHA256))
    hub.serve("/m.gguf", CONTENT, etag=None)
    assert downloader(tries=2).fetch(Order(url, part, SHA256)) == SHA256
    assert [asked is not None for _, asked in hub.requests] == [False, True, False]


def test_without_validator_and_digest_nothing_is_resumed(hub, part):
    url = hub.serve("/m.gguf", CONTENT, cuts=[1_000_000], etag='W/"weak"')
    assert downloader(tries=2).fetch(Order(url, part)) == SHA256
    assert hub.requests == [("/m.gguf", None), ("/m.gguf", None)]


def test_the_part_of_another_url_is_not_gone_on_with(hub, part):
    first = hub.serve("/a.gguf", b"a" * 2_000_000, cuts=[1_000_000])
    with pytest.raises(DownloadFailed):
        downloader().fetch(Order(first, part, SHA256))
    second = hub.serve("/b.gguf", CONTENT)
    assert downloader().fetch(Order(second, part, SHA256)) == SHA256
    assert hub.requests[-1] == ("/b.gguf", None)


def test_a_part_that_is_complete_already_is_not_asked_for_again(hub, part):
    url = hub.serve("/m.gguf", CONTENT)
    downloader().fetch(Order(url, part, SHA256))
    hub.requests.clear()
    assert downloader().fetch(Order(url, part, SHA256)) == SHA256
    assert hub.requests == []


def test_a_part_longer_than_the_file_is_thrown_away(hub, part):
    url = hub.serve("/m.gguf", CONTENT, cuts=[1_000_000])
    with pytest.raises(DownloadFailed):
        downloader().fetch(Order(url, part, SHA256))
    part.write_bytes(b"x" * (len(CONTENT) + 1))
    assert downloader().fetch(Order(url, part, SHA256)) == SHA256


def test_a_wrong_digest_is_rejected_and_removed(hub, part):
    url = hub.serve("/m.gguf", CONTENT + b"!")
    with pytest.raises(ModelRejected, match=SHA256):
        downloader().fetch(Order(url, part, SHA256))
    assert list(part.parent.iterdir()) == []


@pytest.mark.parametrize("status", [404, 410, 401, 403, 400])
def test_a_refusal_is_final(hub, part, status):
    url = hub.serve("/m.gguf", CONTENT, statuses=[status] * 3)
    with pytest.raises(ModelNotFound, match=str(status)):
        downloader(tries=3).fetch(Order(url, part, SHA256))
    assert len(hub.requests) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
def test_a_servers_trouble_is_tried_again(hub, part, status):
    url = hub.serve("/m.gguf", CONTENT, statuses=[status])
    assert downloader(tries=2).fetch(Order(url, part, SHA256)) == SHA256
    hub.serve("/m.gguf", CONTENT, statuses=[status] * 2)
    part.unlink()
    with pytest.raises(DownloadFailed, match=str(status)):
        downloader(tries=2).fetch(Order(url, part, SHA256))


def test_nobody_listening_is_a_download_that_failed(part):
    with FakeHub() as gone:
        url = f"{gone.base}/m.gguf"
    with pytest.raises(DownloadFailed):
        downloader(tries=2).fetch(Order(url, part, SHA256))


def test_redirects_are_followed_and_ranges_with_them(hub, part):
    hub.serve("/cdn/m.gguf", CONTENT, cuts=[1_000_000])
    hub.serve("/second", location="/cdn/m.gguf")
    url = hub.serve("/first", location=f"{hub.base}/second")
    assert downloader(tries=2).fetch(Order(url, part, SHA256)) == SHA256
    assert hub.requests[-1][0] == "/cdn/m.gguf"
    assert hub.requests[-1][1] is not None


def test_redirects_in_circles_end(hub, part):
    hub.serve("/a", location="/b")
    hub.serve("/b", location="/a")
    with pytest.raises(ModelNotFound, match="redirected more than"):
        downloader().fetch(Order(f"{hub.base}/a", part, SHA256))


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("https://a.org/x", "http://a.org/x"),
        ("https://a.org/x", "http://127.0.0.1/x"),
        ("https://a.org/x", "ftp://a.org/x"),
        ("https://a.org/x", "file:///etc/passwd"),
        ("https://a.org/x", "https://[bad/x"),
        ("https://a.org/x", "//[bad"),
        ("https://a.org/x", "https://a.org:99999/x"),
        ("https://a.org/x", "https://me:secret@a.org/x"),
    ],
)
def test_a_step_down_is_refused(here, there):
    with pytest.raises(SourceNotAllowed) as caught:
        redirect(here, here, there)
    assert "secret" not in str(caught.value)


def test_no_room_is_said_before_a_byte_is_written(hub, part):
    def check_room(more_bytes: int) -> None:
        if more_bytes > 1000:
            raise ModelTooLarge("full")

    url = hub.serve("/m.gguf", CONTENT)
    with pytest.raises(ModelTooLarge):
        Downloader(check_room, guard=HERE).fetch(Order(url, part, SHA256))
    assert list(part.parent.iterdir()) == []


def test_room_that_runs_out_in_the_middle_ends_it_and_leaves_nothing(hub, part):
    def check_room(more_bytes: int) -> None:
        if part.exists() and part.stat().st_size > 1_000_000:
            raise ModelTooLarge("full")

    url = hub.serve("/m.gguf", CONTENT, sized=False)
    with pytest.raises(ModelTooLarge):
        Downloader(check_room, guard=HERE).fetch(Order(url, part, SHA256))
    assert list(part.parent.iterdir()) == []


def test_a_write_that_the_system_refuses_is_no_room(hub, part):
    url = hub.serve("/m.gguf", CONTENT)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
    try:
        with pytest.raises(ModelTooLarge, match="cannot be written"):
            downloader().fetch(Order(url, part, SHA256))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(part.parent.iterdir()) == []


def test_a_cancel_ends_it_and_what_came_is_kept(hub, part):
    url = hub.serve("/m.gguf", CONTENT)
    seen: list[int] = []
    watch = Watch(lambda done, _: seen.append(done), lambda: len(seen) >= 2)
    with pytest.raises(Canceled):
        downloader().fetch(Order(url, part, SHA256, watch))
    assert part.stat().st_size == seen[-1] < len(CONTENT)


def test_a_packed_body_is_refused(hub, part):
    url = hub.serve("/m.gguf", CONTENT, headers={"Content-Encoding": "gzip"})
    with pytest.raises(ModelRejected, match="packs"):
        downloader().fetch(Order(url, part, SHA256))


@pytest.mark.parametrize("answer", ["bytes 0-9/10", "bytes 5-9/*", "items 7-9/10", ""])
def test_a_range_that_was_not_asked_for_means_starting_over(answer):
    with pytest.raises(StartOver):
        total_bytes(206, {"content-range": answer}, have=7)


def test_only_a_strong_etag_tells_versions_apart():
    assert validator({"etag": '"a"', "last-modified": "x"}) == '"a"'
    assert validator({"etag": 'W/"a"', "last-modified": "x"}) == "x"
    assert validator({}) is None


def test_messages_never_show_a_signature_or_a_password():
    assert shown_url("https://me:pw@h.org/m.gguf?X-Signature=secret") == "https://h.org/m.gguf"
