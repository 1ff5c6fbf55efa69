"""Servers that mean harm: lies about lengths, headers that fit no header, bytes that never end."""

import gzip
import hashlib
import itertools

import pytest

from fakes.fake_hub import FakeHub
from fakes.fake_raw_server import FakeRawServer
from fleetmark_agent.models.addresses import Guard
from fleetmark_agent.models.connection import SLOW_BYTES, SLOW_S, Pace
from fleetmark_agent.models.download import Downloader, Order
from fleetmark_agent.models.http_rules import total_bytes
from fleetmark_agent.models.watch import Watch
from fleetmark_protocol.errors import (
    Canceled,
    DownloadFailed,
    FleetmarkError,
    ModelRejected,
    ModelTooLarge,
    SourceNotAllowed,
)

CONTENT = b"GGUF" + bytes(2_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
LINE = b"HTTP/1.1 200 OK\r\n"


def downloader(check_room=lambda more: None, tries=1, **how):
    guard = Guard(("127.0.0.1",))
    return Downloader(check_room, guard=guard, tries=tries, sleep=lambda pause_s: None, **how)


def order(server, part, watch=None):
    return Order(f"http://127.0.0.1:{server.port}/m", part, SHA256, watch or Watch())


@pytest.fixture
def part(tmp_path):
    return tmp_path / "m.part"


@pytest.mark.parametrize(
    "header",
    [
        b"Content-Length: " + b"9" * 19,
        b"Content-Length: " + b"9" * 400,
        b"Content-Length: " + b"9" * 5000,
        b"Content-Length: -1",
        b"Content-Length: \xb2",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Range: bytes 0-1/" + b"9" * 5000,
        b"Transfer-Encoding: gzip, chunked",
        b"X: " + b"a" * 200_000,
    ],
)
def test_a_lie_in_a_header_is_an_error_of_ours_and_no_other(part, header):
    with FakeRawServer([LINE + header + b"\r\n\r\nGGUF"]) as server, pytest.raises(FleetmarkError):
        downloader().fetch(order(server, part))


@pytest.mark.parametrize("digits", ["9" * 19, "9" * 5000])
def test_a_length_that_no_file_has_is_refused_before_anybody_reckons_with_it(digits):
    with pytest.raises(ModelRejected, match="no file has"):
        total_bytes(206, {"content-range": f"bytes 0-1/{digits}"}, have=0)
    with pytest.raises(ModelRejected, match="no file has"):
        total_bytes(200, {"content-length": digits}, have=0)
    assert total_bytes(200, {"content-length": "\xb2"}, have=0) is None


def test_a_length_that_no_disk_has_is_refused_before_a_byte_is_written(part):
    def check_room(more):
        if more > 10**9:
            raise ModelTooLarge("no room")

    head = LINE + b"Content-Length: 9000000000000000000\r\n\r\n"
    with FakeRawServer([head, CONTENT]) as server, pytest.raises(ModelTooLarge):
        downloader(check_room).fetch(order(server, part))
    assert not part.exists()


@pytest.mark.parametrize("tag", ['"\xe9\xe9"', '"\x07"'])
def test_a_tag_that_no_header_can_carry_back_is_not_sent_back(part, tag):
    with FakeHub() as hub:
        hub.serve("/m", CONTENT, etag=tag, cuts=[1_000_000])
        assert downloader(tries=2).fetch(order(hub, part)) == SHA256


@pytest.mark.parametrize(
    "location",
    ["//[", "https://[::1", "http://127.0.0.1:1:1/", "\\\\evil\\x", "https://a@b@c/", "https:///x"],
)
def test_a_redirect_that_is_no_address_is_refused_in_words(part, location):
    answer = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
    with FakeRawServer([answer]) as server, pytest.raises(FleetmarkError) as caught:
        downloader().fetch(order(server, part))
    assert caught.value.code in (
        "SOURCE_NOT_ALLOWED",
        "CONFIG",
        "MODEL_NOT_FOUND",
        "DOWNLOAD_FAILED",
    )


def test_a_redirect_may_not_carry_a_password(part):
    answer = b"HTTP/1.1 302 Found\r\nLocation: http://me:hunter2@127.0.0.1/m\r\n"
    with FakeRawServer([answer + b"Content-Length: 0\r\n\r\n"]) as server:
        with pytest.raises(SourceNotAllowed, match="password") as caught:
            downloader().fetch(order(server, part))
        assert len(server.heard) == 1
    assert "hunter2" not in str(caught.value)


def test_packed_bytes_are_never_unpacked(part):
    bomb = gzip.compress(bytes(10_000_000))
    with FakeHub() as hub:
        hub.serve("/m", bomb, headers={"Content-Encoding": "gzip"})
        with pytest.raises(ModelRejected, match="packs the file"):
            downloader().fetch(order(hub, part))
    assert not part.exists()


def jumping(step_s):
    """A clock that goes on by so much each time it is looked at."""
    numbers = itertools.count(0, step_s)
    return lambda: float(next(numbers))


def test_headers_that_trickle_do_not_hold_the_device(part):
    trickle = [LINE] + [b"X: y\r\n"] * 1000
    with (
        FakeRawServer(trickle, pause_s=0.01) as server,
        pytest.raises(DownloadFailed, match=r"only 0 bytes came in"),
    ):
        downloader(clock_s=jumping(SLOW_S / 5)).fetch(order(server, part))


def test_a_body_that_trickles_does_not_hold_the_device(part):
    head = LINE + b"Content-Length: 2000004\r\n\r\n"
    with (
        FakeRawServer([head] + [b"x"] * 1000, pause_s=0.01) as server,
        pytest.raises(DownloadFailed, match=r"only \d+ bytes came in"),
    ):
        downloader(clock_s=jumping(SLOW_S / 5)).fetch(order(server, part))


def test_a_slow_download_that_gets_on_is_let_be():
    pace = Pace(jumping(SLOW_S))
    for _ in range(5):
        pace.took(SLOW_BYTES)
    with pytest.raises(DownloadFailed):
        pace.took(SLOW_BYTES - 1)


def test_a_cancel_is_seen_while_headers_trickle(part):
    asked = itertools.count()
    watch = Watch(cancelled=lambda: next(asked) > 3)
    trickle = [LINE] + [b"X: y\r\n"] * 1000
    with FakeRawServer(trickle, pause_s=0.01) as server, pytest.raises(Canceled):
        downloader().fetch(order(server, part, watch))


def test_an_endless_body_ends_where_the_room_ends(part):
    def check_room(more):
        if part.exists() and part.stat().st_size > 20_000_000:
            raise ModelTooLarge("no room")

    endless = [LINE + b"\r\n"] + [bytes(2**20)] * 60
    with FakeRawServer(endless) as server, pytest.raises(ModelTooLarge):
        downloader(check_room).fetch(order(server, part))
    assert not part.exists()
