"""How a download connects: to an address that was checked, and not for ever without getting on."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

from fleetmark_agent.models.addresses import DEFAULT_PORTS, Guard
from fleetmark_protocol.errors import DownloadFailed
from fleetmark_protocol.settings import is_loopback

CONNECT_TIMEOUT_S = 15.0
READ_TIMEOUT_S = 30.0
"""Without a byte for so long a connection is given up; a cancel is seen that late at worst."""
SLOW_S = 120.0
SLOW_BYTES = 60_000
"""Less than that in so long is no download: a byte now and then would hold the device for ever."""

FAILURES = (
    httpx.HTTPError,
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
)
"""What breaks a connection, by either library."""
BAD_URL = (httpx.InvalidURL, UnicodeError)


class Pace:
    """Ends what hardly moves."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        """Begin now; `clock_s` is monotonic."""
        self._clock_s = clock_s
        self.begin()

    def begin(self) -> None:
        """Count anew: what came before, and what was done meanwhile, do not matter."""
        self._since_s, self._bytes = self._clock_s(), 0

    def took(self, more_bytes: int = 0) -> None:
        """Count what came of a file, and see whether it is enough.

        Raises:
            DownloadFailed: it is not.
        """
        self._bytes += more_bytes
        passed_s = self._clock_s() - self._since_s
        if passed_s < SLOW_S:
            return
        if self._bytes < SLOW_BYTES:
            raise DownloadFailed(f"only {self._bytes} bytes came in {passed_s:.0f} s")
        self.begin()


def open_client(url: str, guard: Guard, go_on: Callable[[], None]) -> httpx.Client:
    """Return a client for one URL: by the proxy that the device's owner set for it, or straight.

    Args:
        url: what will be asked for.
        guard: checks the addresses. Of a host behind a proxy those that are known here: the
            connection is the proxy's own, and so is its last word.
        go_on: called after each read, of the headers too; raises to end it.

    Raises:
        SourceNotAllowed: see `Guard.addresses`.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or DEFAULT_PORTS.get(parts.scheme, 0)
    timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    if _by_proxy(parts.scheme, host):
        guard.addresses(host, port)
        return httpx.Client(timeout=timeout)
    return httpx.Client(timeout=timeout, trust_env=False, transport=_Transport(guard, go_on))


def _by_proxy(scheme: str, host: str) -> bool:
    # A proxy set for the outside has no business with this very machine.
    if is_loopback(host) or proxy_bypass(host):
        return False
    proxies = getproxies()
    return scheme in proxies or "all" in proxies


class _Transport(httpx.BaseTransport):
    """Straight connections, each to an address that the guard gave."""

    def __init__(self, guard: Guard, go_on: Callable[[], None]) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(), network_backend=_Network(guard, go_on)
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        answer = self._pool.handle_request(
            httpcore.Request(
                request.method,
                httpcore.URL(
                    scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
                ),
                headers=request.headers.raw,
                extensions=request.extensions,
            )
        )
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_Body(answer),
            extensions=answer.extensions,
        )

    def close(self) -> None:
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        yield from self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()


class _Network(httpcore.NetworkBackend):
    """Resolves once, has the answer checked, and connects to that very answer."""

    def __init__(self, guard: Guard, go_on: Callable[[], None]) -> None:
        self._guard = guard
        self._go_on = go_on
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        failed: Exception = httpcore.ConnectError(f"nobody knows the host {host}")
        for address in self._guard.addresses(host, port):
            try:
                stream = self._plain.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
            else:
                return _Stream(stream, self._go_on)
        raise failed

    def sleep(self, seconds: float) -> None:
        self._plain.sleep(seconds)


class _Stream(httpcore.NetworkStream):
    """Asks after each read whether to go on: headers may trickle as well as a body."""

    def __init__(self, stream: httpcore.NetworkStream, go_on: Callable[[], None]) -> None:
        self._stream = stream
        self._go_on = go_on

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = self._stream.read(max_bytes, timeout)
        self._go_on()
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: Any,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        secure = self._stream.start_tls(ssl_context, server_hostname, timeout)
        return _Stream(secure, self._go_on)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
