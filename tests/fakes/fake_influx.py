"""A time-series server that says what the test tells it to, over real HTTP; it stores nothing.

For servers that cannot be installed here: the answers given to it are those of their sources.
"""

import gzip
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Reply:
    """One answer."""

    status: int = 204
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """One request; `body` unpacked."""

    method: str
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    body: bytes


Say = Reply | Callable[[Asked], Reply]


class FakeInflux:
    """A server; use as a context.

    Args:
        paths: path -> the answer, or what makes it of the request; others are not found.
    """

    def __init__(self, paths: Mapping[str, Say]) -> None:
        self.paths = dict(paths)
        self.asked: list[Asked] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                parts = urlsplit(self.path)
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(int(headers.get("content-length", 0)))
                if headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                params = {
                    name: values[-1]
                    for name, values in parse_qs(parts.query, keep_blank_values=True).items()
                }
                asked = Asked(self.command, parts.path, params, headers, body)
                server.asked.append(asked)
                say = server.paths.get(parts.path, Reply(404, "404 page not found\n"))
                reply = say if isinstance(say, Reply) else say(asked)
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                text = reply.body.encode()
                if reply.status != 204:
                    self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                if reply.status != 204:
                    self.wfile.write(text)

            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self._answer()

            def do_PATCH(self) -> None:
                self._answer()

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def writes(self) -> list[Asked]:
        """Return the writes so far, but for the empty one that a sink begins with."""
        return [one for one in self.asked if one.path.endswith("/write") and one.body]

    def __enter__(self) -> "FakeInflux":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


V1_PING = Reply(headers={"X-Influxdb-Build": "OSS", "X-Influxdb-Version": "1.6.7"})
V2_PING = Reply(headers={"X-Influxdb-Build": "OSS", "X-Influxdb-Version": "v2.7.11"})
V3_PING = Reply(
    200,
    '{"product_name":"InfluxDB 3 Core","version":"3.9.6","revision":"a1b2c3","process_id":"x"}',
    {"X-Influxdb-Build": "Core", "X-Influxdb-Version": "3.9.6"},
)
