"""What a server's answer means for a download: redirects, status, ranges; pure but for names."""

import ipaddress
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit, urlunsplit

from fleetmark_protocol.errors import (
    DownloadFailed,
    FleetmarkError,
    ModelNotFound,
    ModelRejected,
    SourceNotAllowed,
)
from fleetmark_protocol.settings import is_loopback

REDIRECTS = (301, 302, 303, 307, 308)
_TRY_AGAIN = (408, 425, 429)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")

Resolve = Callable[[str], Sequence[str]]
"""Host name -> its addresses; empty when nobody knows it."""


class StartOver(Exception):
    """What is here does not go with what the server has."""


def resolve(host: str) -> Sequence[str]:
    """Ask the system for a host's addresses."""
    try:
        return [str(found[4][0]) for found in socket.getaddrinfo(host, None)]
    except (OSError, UnicodeError):
        return []


def told_sha256(headers: Mapping[str, str], commit: str) -> str | None:
    """Return the SHA-256 of a large file at a commit, as a model hub's answer tells it.

    Source: the headers that `huggingface_hub` goes by. None where the answer is of another commit,
    or of a file that is no large one (its tag is no SHA-256).
    """
    if headers.get("x-repo-commit") != commit:
        return None
    tag = headers.get("x-linked-etag", "").strip('"')
    return tag if _SHA256.fullmatch(tag) else None


def check_redirect(first: str, here: str, there: str, resolve: Resolve = resolve) -> None:
    """Check a step from `here` to `there` of a download that began at `first`.

    Raises:
        SourceNotAllowed: it leads from https to http, or from outside into a private network.
    """
    old = urlsplit(here)
    try:
        new = urlsplit(there)
        host = new.hostname
    except ValueError:
        new, host = urlsplit(""), None
    why = None
    if new.scheme not in ("http", "https") or not host:
        why = "which is no web address"
    elif new.scheme == "http" and (old.scheme == "https" or not is_loopback(host)):
        why = "in clear"
    elif _private(host, resolve) and not _private(urlsplit(first).hostname or "", resolve):
        why = "in a private network"
    if why is not None:
        raise SourceNotAllowed(
            f"{shown_url(first)} redirects to {shown_url(there)}, {why}: not followed",
            hint="name the place itself, if it is right",
        )


def error_of(status: int, url: str) -> FleetmarkError | None:
    """Return what a final status means, or None if the file comes."""
    what = f"{shown_url(url)}: the server answers {status}"
    if status in (200, 206):
        return None
    if status in (401, 403):
        return ModelNotFound(what, hint="it wants a permission that this device does not have")
    if status in _TRY_AGAIN or status >= 500:
        return DownloadFailed(what)
    return ModelNotFound(what)


def total_bytes(status: int, headers: Mapping[str, str], have: int) -> int | None:
    """Return the length of the whole file, as far as the server says it.

    Raises:
        ModelRejected: the body is packed, so that no range of it means anything.
        StartOver: the range is not the one that was asked for.
    """
    packed = headers.get("content-encoding", "identity")
    if packed != "identity":
        raise ModelRejected(f"the server packs the file ({packed}) although asked not to")
    if status == 206:
        found = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
        if found is None or int(found[1]) != have:
            raise StartOver
        return int(found[2])
    length = headers.get("content-length", "")
    return int(length) if length.isdigit() else None


def validator(headers: Mapping[str, str]) -> str | None:
    """Return what tells this version of the file from others; a weak ETag does not."""
    etag = headers.get("etag", "")
    if etag.startswith('"'):
        return etag
    return headers.get("last-modified")


def shown_url(url: str) -> str:
    """Return a URL for messages: its query may be a signature, which is a secret."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(no URL)"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _private(host: str, resolve: Resolve) -> bool:
    """Whether a host is inside some network; a name nobody knows is left to the connection."""
    try:
        addresses: Sequence[str] = [str(ipaddress.ip_address(host))]
    except ValueError:
        addresses = resolve(host)
    return any(not ipaddress.ip_address(found.split("%")[0]).is_global for found in addresses)
