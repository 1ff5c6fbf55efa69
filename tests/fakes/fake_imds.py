"""The metadata service of an EC2 instance (IMDSv2), as far as an agent's set-up asks it."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "a-token"


class FakeImds:
    """Serves `values`: path below a version -> text. Without a token it answers 401."""

    def __init__(self, values: dict[str, str], port: int = 0) -> None:
        self.values = values
        known = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                lifetime_s = self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
                asked = self.path == "/latest/api/token" and lifetime_s is not None
                self._answer(200 if asked else 400, TOKEN if asked else "")

            def do_GET(self) -> None:
                if self.headers["X-aws-ec2-metadata-token"] != TOKEN:
                    self._answer(401, "")
                    return
                path = self.path.split("/", 2)[2]
                found = known.values.get(path, known.listing(path))
                self._answer(404 if found is None else 200, found or "")

            def _answer(self, code: int, text: str) -> None:
                body = text.encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                # The lifetime of a token, which clients read.
                self.send_header("X-aws-ec2-metadata-token-ttl-seconds", "300")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def listing(self, path: str) -> str | None:
        """Return what is below a path, one name a line; None: nothing."""
        below = [key.removeprefix(path) for key in self.values if key.startswith(path)]
        if not path.endswith("/") or not below:
            return None
        names = {f"{key.split('/')[0]}/" if "/" in key else key for key in below}
        return "\n".join(sorted(names))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
