"""A model server on loopback: real HTTP, with every way a server can let a download down."""

import hashlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PIECE_BYTES = 64 * 1024


@dataclass
class Served:
    """One URL path and how it is served.

    Attributes:
        content: of the file.
        etag: None leaves it out.
        ranges: whether Range is understood.
        cuts: the connection breaks after so many bytes, once for each number.
        statuses: answered instead, once for each.
        location: redirect there.
        sized: whether Content-Length is said.
        piece_pause_s: between pieces, so that others come in meanwhile.
        headers: added.
    """

    content: bytes = b""
    etag: str | None = "auto"
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    location: str | None = None
    sized: bool = True
    piece_pause_s: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)

    def tag(self) -> str | None:
        """Return the ETag header."""
        if self.etag == "auto":
            return f'"{hashlib.sha256(self.content).hexdigest()[:16]}"'
        return self.etag


class FakeHub:
    """A server; use as a context."""

    def __init__(self) -> None:
        self.files: dict[str, Served] = {}
        self.requests: list[tuple[str, str | None]] = []
        """Path and Range header of every request."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub._answer(self)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> "FakeHub":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    @property
    def base(self) -> str:
        """Its URL, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def serve(self, path: str, content: bytes = b"", **how: Any) -> str:
        """Serve a file; return its URL."""
        self.files[path] = Served(content, **how)
        return f"{self.base}{path}"

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        path, asked = handler.path.partition("?")[0], handler.headers.get("Range")
        self.requests.append((path, asked))
        served = self.files.get(path)
        if served is None:
            self._short(handler, 404)
        elif served.statuses:
            self._short(handler, served.statuses.pop(0))
        elif served.location is not None:
            self._short(handler, 302, served.location, served.headers)
        else:
            self._send(handler, served, asked)

    def _short(
        self,
        handler: BaseHTTPRequestHandler,
        status: int,
        location: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        if location is not None:
            handler.send_header("Location", location)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def _send(self, handler: BaseHTTPRequestHandler, served: Served, asked: str | None) -> None:
        content, tag = served.content, served.tag()
        condition = handler.headers.get("If-Range")
        partial = bool(served.ranges and asked and condition in (None, tag))
        start = int(asked.removeprefix("bytes=").rstrip("-")) if partial and asked else 0
        if partial and start >= len(content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(content)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206 if partial else 200)
        if partial:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if tag is not None:
            handler.send_header("ETag", tag)
        for name, value in served.headers.items():
            handler.send_header(name, value)
        if served.sized:
            handler.send_header("Content-Length", str(len(content) - start))
        else:
            handler.send_header("Connection", "close")
        handler.close_connection = not served.sized
        handler.end_headers()
        self._body(handler, served, content[start:])

    def _body(self, handler: BaseHTTPRequestHandler, served: Served, body: bytes) -> None:
        cut = served.cuts.pop(0) if served.cuts else None
        body = body[:cut]
        try:
            for place in range(0, len(body), PIECE_BYTES):
                handler.wfile.write(body[place : place + PIECE_BYTES])
                time.sleep(served.piece_pause_s)
            handler.wfile.flush()
        except OSError:
            return
        if cut is not None:
            handler.close_connection = True
            handler.connection.close()
