"""Fetches a file over HTTP: resumable, hashed while it comes, bounded by the store's room."""

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from pydantic import BaseModel, ValidationError

from fleetmark_agent.models import http_rules
from fleetmark_agent.models.http_rules import StartOver, shown_url
from fleetmark_agent.models.sidecar import write_at_once
from fleetmark_agent.models.watch import CHUNK_BYTES, NOBODY, Watch, hash_file
from fleetmark_protocol import logs
from fleetmark_protocol.errors import (
    ConfigError,
    DownloadFailed,
    ModelNotFound,
    ModelRejected,
    ModelTooLarge,
)
from fleetmark_protocol.settings import is_loopback
from fleetmark_protocol.version import __version__

if TYPE_CHECKING:
    import httpx

TRIES = 5
FIRST_PAUSE_S = 1.0
CONNECT_TIMEOUT_S = 15.0
READ_TIMEOUT_S = 30.0
"""Without a byte for so long a connection is given up; a cancel is seen that late at worst."""
MAX_REDIRECTS = 10
CHECK_EVERY_BYTES = 16 * 2**20


class Origin(BaseModel):
    """Where the bytes of a part came from: kept beside it, so that it goes on only with the same.

    Attributes:
        url: as the reference says.
        validator: the server's strong ETag or its date; None when it gave neither.
        total_bytes: length of the whole file, when known.
        told_sha256: digest of the whole file as a hub tells it, for a file at a commit.
    """

    url: str
    validator: str | None = None
    total_bytes: int | None = None
    told_sha256: str | None = None


@dataclass(frozen=True)
class Order:
    """What is to be fetched.

    Attributes:
        url: checked already (see `reference`).
        part: where it grows; complete when `Downloader.fetch` returns.
        sha256: what it must have; None takes what comes, or what a hub tells.
        watch: told and asked for each piece.
        commit: of the hub's repository that the URL names; None for any other file.
        must_tell: whether a hub that tells no digest is not good enough.
    """

    url: str
    part: Path
    sha256: str | None = None
    watch: Watch = NOBODY
    commit: str | None = None
    must_tell: bool = False


class Downloader:
    """How files are fetched; holds no connection between calls."""

    def __init__(
        self,
        check_room: Callable[[int], None],
        *,
        tries: int = TRIES,
        sleep: Callable[[float], None] = time.sleep,
        resolve: http_rules.Resolve = http_rules.resolve,
    ) -> None:
        """Prepare.

        Args:
            check_room: raises when so many more bytes may not be written.
            tries: connections in all, before one download is given up.
            sleep: waits between them; another one is for tests.
            resolve: finds the addresses of a host that a redirect names.
        """
        self._check_room = check_room
        self._tries = tries
        self._sleep = sleep
        self._resolve = resolve
        self._log = logs.get("download")

    def fetch(self, order: Order) -> str:
        """Fetch a file, going on where an earlier try ended; return its SHA-256.

        Raises:
            DownloadFailed: broken connections, server errors; the part is kept.
            ModelNotFound: the server has no such file, or does not give it to us.
            ModelRejected: it has another digest; the part is gone.
            ModelTooLarge: no room; the part is gone.
            SourceNotAllowed: a redirect leads where we do not follow.
            Canceled: asked to stop; the part is kept.
        """
        pause_s, url = FIRST_PAUSE_S, shown_url(order.url)
        for left in reversed(range(self._tries)):
            order.watch.check()
            resumed = _size(order.part) > 0
            try:
                digest, told = self._try(order)
            except StartOver:
                drop_part(order.part)
                continue
            except ModelTooLarge:
                drop_part(order.part)
                raise
            except DownloadFailed as error:
                if not left:
                    raise
                self._log.warning("download_interrupted", url=url, error=error.message)
                self._pause(pause_s, order.watch)
                pause_s *= 2
                continue
            wanted = order.sha256 or told
            if wanted == digest or (wanted is None and not order.must_tell):
                return digest
            drop_part(order.part)
            if wanted is None:
                raise ModelRejected(
                    f"{url}: the hub tells no SHA-256 of it", hint="add `sha256` to the model"
                )
            if not resumed:
                raise ModelRejected(
                    f"{url} has SHA-256 {digest}, not {wanted}",
                    hint="the file there has changed, or the digest in the reference is wrong",
                )
            self._log.warning("resumed_download_differs", url=url)
        raise DownloadFailed(f"{url}: changes while it is being fetched")

    def _pause(self, pause_s: float, watch: Watch) -> None:
        while pause_s > 0:
            watch.check()
            self._sleep(min(0.2, pause_s))
            pause_s -= 0.2

    def _try(self, order: Order) -> tuple[str, str | None]:
        """Fetch what is missing; return the file's digest, and the one that a hub told."""
        import httpx

        have, origin = _resumable(order)
        if have and origin.total_bytes == have:
            whole = hash_file(order.part, Watch(cancelled=order.watch.cancelled))
            return whole.hexdigest(), origin.told_sha256
        try:
            # A proxy set for the outside has no business with this very machine.
            outside = not is_loopback(urlsplit(order.url).hostname or "")
            timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
            with httpx.Client(timeout=timeout, trust_env=outside) as client:
                response, told = self._open(client, order, have, origin)
                try:
                    return self._receive(response, order, have, told), told
                finally:
                    response.close()
        except httpx.InvalidURL as error:
            raise ConfigError(f"{shown_url(order.url)}: {error}") from error
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise DownloadFailed(f"{shown_url(order.url)}: {reason}") from error

    def _open(
        self, client: "httpx.Client", order: Order, have: int, origin: Origin
    ) -> tuple["httpx.Response", str | None]:
        """Send the request, and follow where it is sent on to; return a hub's digest as well."""
        url, told = order.url, None
        headers = {"User-Agent": f"fleetmark/{__version__}", "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if origin.validator is not None:
                headers["If-Range"] = origin.validator
        here = url
        for _ in range(MAX_REDIRECTS + 1):
            response = client.send(client.build_request("GET", here, headers=headers), stream=True)
            if order.commit is not None and urlsplit(here).netloc == urlsplit(url).netloc:
                # The hub's own word; where it sends us for the bytes has no say.
                told = http_rules.told_sha256(response.headers, order.commit) or told
            if response.status_code not in http_rules.REDIRECTS:
                return response, told
            response.close()
            there = urljoin(here, response.headers.get("location", ""))
            http_rules.check_redirect(url, here, there, self._resolve)
            here = there
        raise ModelNotFound(f"{shown_url(url)}: redirected more than {MAX_REDIRECTS} times")

    def _receive(
        self, response: "httpx.Response", order: Order, have: int, told: str | None
    ) -> str:
        """Take the body in; return the digest of the whole file."""
        if response.status_code == 416 and have:
            raise StartOver
        error = http_rules.error_of(response.status_code, order.url)
        if error is not None:
            raise error
        going_on = response.status_code == 206
        total = http_rules.total_bytes(response.status_code, response.headers, have)
        if not going_on:
            # All of it comes: this server knows no ranges, or has another version by now.
            drop_part(order.part)
            have = 0
        self._check_room(total - have if total is not None else 0)
        origin = Origin(
            url=order.url,
            validator=http_rules.validator(response.headers),
            total_bytes=total,
            told_sha256=told,
        )
        write_at_once(_origin_file(order.part), origin.model_dump_json().encode())
        digest = (
            hash_file(order.part, Watch(cancelled=order.watch.cancelled))
            if have
            else hashlib.sha256()
        )
        done = checked = have
        with order.part.open("ab") as file:
            for chunk in response.iter_raw(CHUNK_BYTES // 4):
                order.watch.check()
                _write(file.write, chunk)
                digest.update(chunk)
                done += len(chunk)
                if done - checked >= CHECK_EVERY_BYTES:
                    self._check_room(0)
                    checked = done
                order.watch.tell(done, total)
            _write(file.flush)
            os.fsync(file.fileno())
        self._check_room(0)
        if total is not None and done != total:
            raise DownloadFailed(f"{shown_url(order.url)}: {done} of {total} bytes came")
        return digest.hexdigest()


def drop_part(part: Path) -> None:
    """Forget what came so far."""
    part.unlink(missing_ok=True)
    _origin_file(part).unlink(missing_ok=True)


def _resumable(order: Order) -> tuple[int, Origin]:
    """Return how much is here to go on from, and where it came from."""
    have = _size(order.part)
    try:
        origin = Origin.model_validate_json(_origin_file(order.part).read_bytes())
    except (OSError, ValidationError):
        origin = Origin(url="")
    same = origin.url == order.url
    # Without a validator only the digest can tell whether both halves are of one file.
    safe = origin.validator is not None or order.sha256 is not None
    sane = origin.total_bytes is None or have <= origin.total_bytes
    if have and same and safe and sane:
        return have, origin
    drop_part(order.part)
    return 0, Origin(url=order.url)


def _write(action: Callable[..., object], *data: bytes) -> None:
    try:
        action(*data)
    except OSError as error:
        raise ModelTooLarge(f"the model store cannot be written: {error.strerror}") from error


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _origin_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")
