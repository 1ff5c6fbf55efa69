"""A vulnerability service on loopback that speaks as OSV does, and knows what the test tells it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeOsv:
    """A server; use as a context."""

    def __init__(self, holes: dict[tuple[str, str], str], status: int = 200) -> None:
        """Listen on a free port.

        Args:
            holes: id of the vulnerability, by name and version of a package.
            status: answered to everything.
        """
        self.asked: list[tuple[str, str]] = []
        osv = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                package = (query["package"]["name"], query["version"])
                osv.asked.append(package)
                body = json.dumps(_answer(package, holes)).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/query"

    def __enter__(self) -> "FakeOsv":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _answer(package: tuple[str, str], holes: dict[tuple[str, str], str]) -> dict[str, object]:
    if package not in holes:
        return {}
    fixed = {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.1"}]}
    affected = {"package": {"name": package[0], "ecosystem": "PyPI"}, "ranges": [fixed]}
    return {"vulns": [{"id": holes[package], "summary": "a hole", "affected": [affected]}]}
