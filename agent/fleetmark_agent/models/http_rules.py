"""What a server's answer means for a download: redirects, status, ranges; pure."""

import re
from collections.abc import Mapping, Sequence
from urllib.parse import urljoin, urlsplit, urlunsplit

from fleetmark_agent.models.reference import check_allowed
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

MAX_BYTES = 2**63 - 1
"""A length beyond it is a lie; arithmetic on it may not even end."""


class StartOver(Exception):
    """What is here does not go with what the server has."""


def told_sha256(headers: Mapping[str, str], commit: str) -> str | None:
    """Return the SHA-256 of a large file at a commit, as a model hub's answer tells it.

    Source: the headers that `huggingface_hub` goes by. None where the answer is of another commit,
    or of a file that is no large one (its tag is no SHA-256).
    """
    if headers.get("x-repo-commit") != commit:
        return None
    tag = headers.get("x-linked-etag", "").strip('"')
    return tag if _SHA256.fullmatch(tag) else None


def redirect(first: str, here: str, location: str, sources: Sequence[str] | None = None) -> str:
    """Return where an answer sends a download on to; its address is checked when it is connected.

    Args:
        first: where the download began, for messages.
        here: who sends it on.
        location: the header; may be relative.
        sources: the prefixes that the owner allows; None follows a hub to wherever it keeps files.

    Raises:
        SourceNotAllowed: it leads from https to http, carries a password, or leaves the prefixes.
    """
    try:
        there = urljoin(here, location)
        parts = urlsplit(there)
        host, _ = parts.hostname, parts.port
    except ValueError:
        there, parts, host = location, urlsplit(""), None
    why = None
    if parts.scheme not in ("http", "https") or not host:
        why = "which is no web address"
    elif parts.username is not None:
        why = "with a user name or password in it"
    elif parts.scheme == "http" and (urlsplit(here).scheme == "https" or not is_loopback(host)):
        why = "in clear"
    if why is not None:
        raise SourceNotAllowed(
            f"{shown_url(first)} redirects to {shown_url(there)}, {why}: not followed",
            hint="name the place itself, if it is right",
        )
    if sources is not None:
        try:
            check_allowed(there, sources)
        except SourceNotAllowed as error:
            raise SourceNotAllowed(
                f"{shown_url(first)} redirects to {shown_url(there)}, which is not allowed on this"
                " device: not followed",
                hint=error.hint,
            ) from None
    return there


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
        ModelRejected: the body is packed, so that no range of it means anything; or too long.
        StartOver: the range is not the one that was asked for.
    """
    packed = headers.get("content-encoding", "identity")
    if packed != "identity":
        raise ModelRejected(f"the server packs the file ({packed}) although asked not to")
    if status == 206:
        found = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
        if found is None or int(found[1]) != have:
            raise StartOver
        return _length(found[2])
    length = headers.get("content-length", "")
    return _length(length) if length.isascii() and length.isdigit() else None


def validator(headers: Mapping[str, str]) -> str | None:
    """Return what tells this version of the file from others; a weak ETag does not."""
    etag = headers.get("etag", "")
    found = etag if etag.startswith('"') else headers.get("last-modified")
    # It is sent back as it came: what no header can carry cannot be.
    return found if found is not None and found.isascii() and found.isprintable() else None


def shown_url(url: str) -> str:
    """Return a URL for messages: its query may be a signature, which is a secret."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(no URL)"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _length(digits: str) -> int:
    """Read a length.

    Raises:
        ModelRejected: no file is so long.
    """
    length = int(digits) if len(digits) <= len(str(MAX_BYTES)) else MAX_BYTES + 1
    if length > MAX_BYTES:
        raise ModelRejected("the server says a length that no file has")
    return length
