"""HTTP to a time-series server: a pool of connections, its credentials, and errors in our terms."""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlencode

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as HTTPTimeoutError
from urllib3.util import make_headers

from fleetmark_collector.config import InfluxSettings
from fleetmark_protocol.errors import ConfigError, FleetmarkError, StoreUnavailable
from fleetmark_protocol.version import __version__

MAX_CONNECTIONS = 8
"""Kept open for as many threads; more open one of their own and close it after its answer."""

CONNECT_TIMEOUT_S = 5.0

_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")
"""What OpenSSL says of an answer that is no TLS."""


@dataclass(frozen=True)
class Answer:
    """What a server said; any status."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in any case where they come from a server."""
    body: bytes = b""

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")


class Connection:
    """Sends requests; any number of threads may use one. Nothing is tried twice, no redirect
    followed."""

    def __init__(self, settings: InfluxSettings, timeout_s: float | None = None) -> None:
        """Open nothing yet.

        Args:
            settings: where the server is and who asks.
            timeout_s: how long one request may take; None for what the settings say.
        """
        self._settings = settings
        self._headers = {"User-Agent": f"fleetmark/{__version__}", **credentials(settings)}
        read_s = timeout_s or settings.timeout_s
        self._pool = urllib3.PoolManager(
            maxsize=MAX_CONNECTIONS,
            retries=False,
            timeout=urllib3.Timeout(connect=min(read_s, CONNECT_TIMEOUT_S), read=read_s),
            ca_certs=None if settings.ca_file is None else str(settings.ca_file),
        )

    def request(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Return the answer, whatever its status.

        Raises:
            StoreUnavailable: there was none.
            ConfigError: the server's certificate is not to be trusted.
        """
        url = self.url(path, params)
        with translated(self._settings):
            response = self._pool.request(
                method, url, body=body, headers={**self._headers, **(headers or {})}
            )
            return Answer(response.status, response.headers, response.data)

    def stream(self, path: str, params: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        """Return an answer whose body is still to be read (in `translated`) and to be closed.

        Raises:
            StoreUnavailable: there was none.
            ConfigError: the server's certificate is not to be trusted.
        """
        with translated(self._settings):
            return self._pool.request(
                "GET", self.url(path, params), headers=self._headers, preload_content=False
            )

    def url(self, path: str, params: Mapping[str, str] | None = None) -> str:
        """Return the address of a path of the server's."""
        return f"{self._settings.url}{path}" + (f"?{urlencode(params)}" if params else "")

    def close(self) -> None:
        """Close what is open."""
        self._pool.clear()


def basic(settings: InfluxSettings) -> str | None:
    """Return `user:password` where the settings name a user; InfluxDB 1.8 calls that a token."""
    token, password = settings.token, settings.password
    if token is not None and ":" in token.get_secret_value():
        return token.get_secret_value()
    if settings.username is not None and password is not None:
        return f"{settings.username}:{password.get_secret_value()}"
    return None


def credentials(settings: InfluxSettings) -> dict[str, str]:
    """Return the header that says who asks; none where the settings name nobody."""
    if pair := basic(settings):
        return dict(make_headers(basic_auth=pair))
    if settings.token is not None:
        return {"Authorization": f"Token {settings.token.get_secret_value()}"}
    return {}


@contextmanager
def translated(settings: InfluxSettings) -> Iterator[None]:
    """Raise our errors for what the HTTP library raises instead of an answer."""
    try:
        yield
    except (HTTPError, OSError) as error:
        raise as_ours(settings, error) from error


def as_ours(settings: InfluxSettings, error: BaseException) -> FleetmarkError:
    """Return our error for what the HTTP library raised instead of an answer."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ConfigError(
                f"{settings.url}: its certificate is not to be trusted: {cause.verify_message}",
                hint="name the CA that signed it in store.ca_file",
            )
        if isinstance(cause, ssl.SSLError) and cause.reason in _NO_TLS:
            return ConfigError(
                f"{settings.url}: what listens there speaks no TLS",
                hint="correct store.url; is it http:// ?",
            )
    return StoreUnavailable(f"{settings.url}: {_reason(error)}", hint="is the server running?")


def _reason(error: BaseException) -> str:
    """Return in one short line what went wrong, without the addresses of Python's objects."""
    *_, first = _causes(error)
    if isinstance(first, TimeoutError | HTTPTimeoutError):
        return "no answer in time"
    if isinstance(first, OSError) and first.strerror:
        return first.strerror
    return f"{type(first).__name__}: {str(first)[:200]}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what led to it, step by step."""
    step: BaseException | None = error
    while step is not None:
        yield step
        step = step.__cause__ or step.__context__
