"""Answers `/healthz` and `/metrics` over HTTP, and nothing else."""

import json
import socket
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from fleetmark_collector.monitoring.health import Condition, body
from fleetmark_protocol import logs
from fleetmark_protocol.errors import ConfigError

TIMEOUT_S = 5.0
"""A client that sends or takes nothing for so long is hung up on."""

MAX_CONNECTIONS = 16
"""At a time; one more is hung up on at once, so that clients cannot pile up threads."""

_FIELD = "http.listen"


class WebServer:
    """Listens from the moment it is made; answers between `start` and `stop`."""

    def __init__(
        self,
        address: tuple[str, int],
        condition: Callable[[], Condition],
        registry: CollectorRegistry,
    ) -> None:
        """Listen.

        Args:
            address: host and port.
            condition: asked for each `/healthz`; must be quick.
            registry: read for each `/metrics`.

        Raises:
            ConfigError: it cannot listen there; the message says why.
        """
        try:
            family, _, _, _, resolved = socket.getaddrinfo(
                *address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self._server = _server(family, (str(resolved[0]), int(resolved[1])))
        except OSError as error:
            raise ConfigError(
                f"{_FIELD}: {address[0]} port {address[1]}: {error.strerror or error}",
                hint="is another collector running? Give this one another address, or none "
                '(listen = "")',
            ) from error
        self._server.condition = condition
        self._server.registry = registry
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True
        )

    def tell(self, condition: Callable[[], Condition], registry: CollectorRegistry) -> None:
        """Answer from these from now on."""
        self._server.condition = condition
        self._server.registry = registry

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self._server.server_address[:2]
        text = str(host)
        return f"http://[{text}]:{port}" if ":" in text else f"http://{text}:{port}"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening; answers under way are cut off."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    """The library's server, with a bound on its threads, and what its handlers ask."""

    daemon_threads = True
    block_on_close = False
    condition: Callable[[], Condition]
    registry: CollectorRegistry

    def __init__(self, address: tuple[str, int]) -> None:
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._log = logs.get("http")
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind, and ask no name server who we are, as the library would."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection a thread, if one is free."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer; runs in the connection's thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Say that an answer failed; a client that hung up is no news."""
        if not isinstance(sys.exception(), OSError):
            self._log.exception("request_failed")


class _Server6(_Server):
    """The same on IPv6."""

    address_family = socket.AF_INET6


def _server(family: int, address: tuple[str, int]) -> _Server:
    return _Server6(address) if family == socket.AF_INET6 else _Server(address)


class _Handler(BaseHTTPRequestHandler):
    """Answers one request and hangs up."""

    server: _Server
    timeout = TIMEOUT_S
    server_version = "fleetmark"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer one of the two addresses."""
        path = self.path.partition("?")[0]
        if path == "/healthz":
            self._health()
        elif path == "/metrics":
            self._metrics()
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", _WHAT_THERE_IS)

    do_HEAD = do_GET  # noqa: N815 - the library's name

    def _health(self) -> None:
        said = body(self.server.condition())
        well = said["status"] != "unavailable"
        status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
        self._answer(status, "application/json", json.dumps(said).encode() + b"\n")

    def _metrics(self) -> None:
        try:
            encode, kind = choose_encoder(self.headers.get("Accept", ""))
        except (TypeError, ValueError):  # it asks for a version that is none
            encode, kind = choose_encoder("")
        self._answer(HTTPStatus.OK, kind, encode(self.server.registry))

    def _answer(self, status: HTTPStatus, kind: str, text: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log no requests: a probe comes every few seconds."""


_WHAT_THERE_IS = b"there is /healthz and /metrics\n"
