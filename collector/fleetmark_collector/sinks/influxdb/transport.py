"""How lines get to a server: straight to InfluxDB 1's /write, or by influxdb-client's v2 path."""

import zlib
from typing import Protocol

from urllib3.exceptions import HTTPError

from fleetmark_collector.config import InfluxSettings
from fleetmark_collector.sinks.influxdb.connection import (
    MAX_CONNECTIONS,
    Answer,
    Connection,
    as_ours,
    basic,
)
from fleetmark_collector.sinks.influxdb.server import Server

GZIP_LEVEL = 1
"""Lines shrink to a tenth at the quickest level already; the slowest takes many times as long."""

_GZIP_CONTAINER = 31


class Transport(Protocol):
    """Sends lines; any number of threads may use one."""

    def send(self, lines: bytes) -> Answer:
        """Send lines, joined by newlines; return the server's answer, whatever its status.

        Raises:
            StoreUnavailable: there was none.
            ConfigError: the server's certificate is not to be trusted.
        """

    def close(self) -> None:
        """Close the connections."""


def transport_to(
    server: Server, settings: InfluxSettings, timeout_s: float | None = None
) -> Transport:
    """Return the way of writing that a server understands; nothing is sent yet.

    Args:
        server: what it is.
        settings: where it is and who writes.
        timeout_s: how long one request may take; None for what the settings say.
    """
    if server.kind == "influxdb1":
        return Direct(settings, timeout_s)
    return ByClient(settings, timeout_s)


class Direct:
    """To `/write`, which is all that InfluxDB before 1.8 has."""

    def __init__(self, settings: InfluxSettings, timeout_s: float | None = None) -> None:
        self._connection = Connection(settings, timeout_s)
        self._params = {"db": settings.database, "precision": "ns"}
        if settings.retention_policy:
            self._params["rp"] = settings.retention_policy
        self._compress = not settings.on_loopback
        self._headers = {"Content-Type": "text/plain; charset=utf-8"}
        if self._compress:
            self._headers["Content-Encoding"] = "gzip"

    def send(self, lines: bytes) -> Answer:
        """Send lines; see `Transport`."""
        body = gzipped(lines) if self._compress else lines
        return self._connection.request("POST", "/write", self._params, body, self._headers)

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()


class ByClient:
    """To `/api/v2/write` of InfluxDB 1.8+, 2 and 3 and of VictoriaMetrics, by influxdb-client.

    By the client's service rather than its `WriteApi`, because that one does not tell a 204 from
    any other 2xx, such as a proxy's page to log in with.
    """

    def __init__(self, settings: InfluxSettings, timeout_s: float | None = None) -> None:
        from influxdb_client.client.influxdb_client import InfluxDBClient
        from influxdb_client.rest import ApiException
        from influxdb_client.service.write_service import WriteService

        self._settings = settings
        self._api_exception = ApiException
        token = "" if settings.token is None else settings.token.get_secret_value()
        pair = basic(settings)
        self._client = InfluxDBClient(
            url=settings.url,
            token=pair or token,
            auth_basic=pair is not None,
            org=settings.org,
            timeout=round((timeout_s or settings.timeout_s) * 1000),
            ssl_ca_cert=None if settings.ca_file is None else str(settings.ca_file),
            connection_pool_maxsize=MAX_CONNECTIONS,
            debug=False,
        )
        self._service = WriteService(self._client.api_client)
        self._compress = not settings.on_loopback

    def send(self, lines: bytes) -> Answer:
        """Send lines; see `Transport`."""
        encoding = {"content_encoding": "gzip"} if self._compress else {}
        try:
            _, status, headers = self._service.post_write_with_http_info(
                org=self._settings.org,
                bucket=self._settings.bucket,
                body=gzipped(lines) if self._compress else lines,
                precision="ns",
                **encoding,
            )
            return Answer(status, headers)
        except self._api_exception as error:
            if not error.status:
                raise as_ours(self._settings, error) from error
            return Answer(error.status, error.headers or {}, str(error.body or "").encode())
        except (HTTPError, OSError) as error:
            raise as_ours(self._settings, error) from error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def gzipped(lines: bytes) -> bytes:
    """Return lines compressed as gzip does."""
    packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, _GZIP_CONTAINER)
    return packer.compress(lines) + packer.flush()
