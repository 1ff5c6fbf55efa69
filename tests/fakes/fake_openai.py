"""An endpoint that lets its callers down: canned answers over real HTTP, nothing is computed."""

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Canned:
    """What is answered to every POST.

    Attributes:
        status: HTTP status.
        body: of an error, or of anything that is no stream.
        lines: of the stream.
        cut: whether the connection breaks after them.
    """

    status: int = 200
    body: Any = None
    lines: list[str] = field(default_factory=list)
    cut: bool = False


class FakeOpenAI:
    """A server; use as a context."""

    def __init__(self, *, keeps_open: bool = False) -> None:
        self.canned = Canned()
        self.models: Any = None
        """Answered to the question for models; None: not offered."""
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        """Path, headers and body of every POST."""
        self.connections: list[tuple[str, int]] = []
        """Method and the caller's port of every request."""
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1" if keeps_open else "HTTP/1.0"

            def do_GET(self) -> None:
                found = endpoint.models
                self._send(404 if found is None else 200, json.dumps(found))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                endpoint.asked.append((self.path, headers, json.loads(body)))
                canned = endpoint.canned
                if canned.lines:
                    text = "".join(f"{line}\n\n" for line in canned.lines)
                    self._send(200, text, promised=len(text) + canned.cut)
                else:
                    said = canned.body
                    self._send(canned.status, said if isinstance(said, str) else json.dumps(said))

            def _send(self, status: int, text: str, promised: int | None = None) -> None:
                endpoint.connections.append((self.command, self.client_address[1]))
                self.send_response(status)
                self.send_header("Content-Length", str(promised or len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> "FakeOpenAI":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
