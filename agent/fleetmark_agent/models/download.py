"""Fetches a file over HTTP: resumable, hashed while it comes, bounded by the store's room."""

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fleetmark_agent.models import growing, http_rules
from fleetmark_agent.models.addresses import Guard
from fleetmark_agent.models.growing import Origin, drop_part
from fleetmark_agent.models.http_rules import StartOver, shown_url
from fleetmark_agent.models.ownfiles import open_to_grow
from fleetmark_agent.models.watch import NOBODY, Watch, hash_file
from fleetmark_protocol import logs
from fleetmark_protocol.errors import (
    ConfigError,
    DownloadFailed,
    ModelNotFound,
    ModelRejected,
    ModelTooLarge,
)
from fleetmark_protocol.version import __version__

if TYPE_CHECKING:
    import httpx

    from fleetmark_agent.models.connection import Pace

TRIES = 5
FIRST_PAUSE_S = 1.0
MAX_REDIRECTS = 10
CHECK_EVERY_BYTES = 16 * 2**20


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
        sources: prefixes that a redirect must lead to; None lets a hub send us anywhere.
    """

    url: str
    part: Path
    sha256: str | None = None
    watch: Watch = NOBODY
    commit: str | None = None
    must_tell: bool = False
    sources: tuple[str, ...] | None = None


class Downloader:
    """How files are fetched; holds no connection between calls."""

    def __init__(
        self,
        check_room: Callable[[int], None],
        *,
        guard: Guard | None = None,
        tries: int = TRIES,
        sleep: Callable[[float], None] = time.sleep,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare.

        Args:
            check_room: raises when so many more bytes may not be written.
            guard: says which addresses may be connected to; default: public ones.
            tries: connections in all, before one download is given up.
            sleep: waits between them; another one is for tests.
            clock_s: monotonic; likewise.
        """
        self._check_room = check_room
        self._guard = guard or Guard()
        self._tries = tries
        self._sleep = sleep
        self._clock_s = clock_s
        self._log = logs.get("download")

    def fetch(self, order: Order) -> str:
        """Fetch a file, going on where an earlier try ended; return its SHA-256.

        Raises:
            DownloadFailed: broken connections, server errors; the part is kept.
            ModelNotFound: the server has no such file, or does not give it to us.
            ModelRejected: it has another digest; the part is gone.
            ModelTooLarge: no room; the part is gone.
            SourceNotAllowed: it lies in a private network, or a redirect leads where we do not
                follow.
            Canceled: asked to stop; the part is kept.
        """
        pause_s, url = FIRST_PAUSE_S, shown_url(order.url)
        for left in reversed(range(self._tries)):
            order.watch.check()
            resumed = growing.size(order.part) > 0
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
        from fleetmark_agent.models import connection

        have, origin = growing.resumable(order.part, order.url, certain=order.sha256 is not None)
        if have and origin.total_bytes == have:
            whole = hash_file(order.part, Watch(cancelled=order.watch.cancelled))
            return whole.hexdigest(), origin.told_sha256
        pace = connection.Pace(self._clock_s)

        def go_on() -> None:
            order.watch.check()
            pace.took()

        try:
            with ExitStack() as open_:
                response, told = self._open(open_, order, have, origin, go_on)
                return self._receive(response, order, have, told, pace), told
        except connection.BAD_URL as error:
            raise ConfigError(f"{shown_url(order.url)}: {error}") from error
        except connection.FAILURES as error:
            reason = str(error) or type(error).__name__
            raise DownloadFailed(f"{shown_url(order.url)}: {reason}") from error

    def _open(
        self,
        open_: ExitStack,
        order: Order,
        have: int,
        origin: Origin,
        go_on: Callable[[], None],
    ) -> tuple["httpx.Response", str | None]:
        """Send the request, and follow where it is sent on to; return a hub's digest as well."""
        from fleetmark_agent.models.connection import open_client

        url, told = order.url, None
        headers = {"User-Agent": f"fleetmark/{__version__}", "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if origin.validator is not None:
                headers["If-Range"] = origin.validator
        here = url
        for _ in range(MAX_REDIRECTS + 1):
            client = open_.enter_context(open_client(here, self._guard, go_on))
            response = client.send(client.build_request("GET", here, headers=headers), stream=True)
            open_.callback(response.close)
            if order.commit is not None and urlsplit(here).netloc == urlsplit(url).netloc:
                # The hub's own word; where it sends us for the bytes has no say.
                told = http_rules.told_sha256(response.headers, order.commit) or told
            if response.status_code not in http_rules.REDIRECTS:
                return response, told
            response.close()
            location = response.headers.get("location", "")
            here = http_rules.redirect(url, here, location, order.sources)
        raise ModelNotFound(f"{shown_url(url)}: redirected more than {MAX_REDIRECTS} times")

    def _receive(
        self,
        response: "httpx.Response",
        order: Order,
        have: int,
        told: str | None,
        pace: "Pace",
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
        growing.note(order.part, origin)
        digest = (
            hash_file(order.part, Watch(cancelled=order.watch.cancelled))
            if have
            else hashlib.sha256()
        )
        done = checked = have
        pace.begin()
        with open_to_grow(order.part) as file:
            for chunk in response.iter_raw():
                order.watch.check()
                pace.took(len(chunk))
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


def _write(action: Callable[..., object], *data: bytes) -> None:
    try:
        action(*data)
    except OSError as error:
        raise ModelTooLarge(f"the model store cannot be written: {error.strerror}") from error
