"""Finds out which server answers at an address: InfluxDB of some version, or VictoriaMetrics."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fleetmark_collector.config import InfluxSettings
from fleetmark_collector.sinks.influxdb.connection import Answer, Connection
from fleetmark_protocol.errors import ConfigError, StoreUnavailable

Kind = Literal["influxdb1", "influxdb1_8", "influxdb2", "influxdb3", "victoriametrics"]

NAMES: dict[Kind, str] = {
    "influxdb1": "InfluxDB 1",
    "influxdb1_8": "InfluxDB 1.8+",
    "influxdb2": "InfluxDB 2",
    "influxdb3": "InfluxDB 3",
    "victoriametrics": "VictoriaMetrics",
}

_VERSION = re.compile(r"v?(\d+)\.(\d+)")
_VM_VERSION = re.compile(r'^vm_app_version\{.*short_version="([^"]*)"', re.MULTILINE)


@dataclass(frozen=True)
class Server:
    """What answers.

    Attributes:
        kind: "influxdb1" before 1.8; "influxdb1_8" from 1.8 up to 2.
        version: as it says itself; empty where it does not.
    """

    kind: Kind
    version: str

    def __str__(self) -> str:
        return f"{NAMES[self.kind]} ({self.version})" if self.version else NAMES[self.kind]

    @property
    def answers_influxql(self) -> bool:
        """Whether what was written can be read back by InfluxQL."""
        return self.kind != "victoriametrics"


def detect(settings: InfluxSettings) -> Server:
    """Ask the server what it is.

    Raises:
        StoreUnavailable: it does not answer, or not now.
        ConfigError: it refuses us, or is no server of this kind.
    """
    connection = Connection(settings)
    try:
        answer = connection.request("GET", "/ping")
        _check(settings, answer)
        server = _from_headers(answer.headers) or _from_body(answer)
        return server or _victoria_metrics(connection) or _unknown(settings, answer)
    finally:
        connection.close()


def _check(settings: InfluxSettings, answer: Answer) -> None:
    what = f"{settings.url}/ping answers {answer.status}"
    if answer.status in (401, 403):
        # InfluxDB 3 asks for a token even here, and so do proxies.
        raise ConfigError(
            f"{what}: {'not with this' if settings.token or settings.username else 'not without a'}"
            " token or password",
            hint="see store.token_file, or store.username and store.password_file",
        )
    if answer.status == 429 or answer.status >= 500:
        raise StoreUnavailable(what)
    if answer.status not in (200, 204):
        raise ConfigError(
            f"{what}, which no InfluxDB and no VictoriaMetrics does",
            hint=f"correct store.url{_moved(answer.headers)}",
        )


def _moved(headers: Mapping[str, str]) -> str:
    return f"; it points to {headers['Location']}" if "Location" in headers else ""


def _from_headers(headers: Mapping[str, str]) -> Server | None:
    """InfluxDB 1, 2 and 3 say their version in a header; VictoriaMetrics does not on /ping."""
    version = headers.get("X-Influxdb-Version", "")
    match = _VERSION.match(version)
    if match is None or "X-Server-Hostname" in headers:
        return None
    major, minor = int(match[1]), int(match[2])
    if major == 1:
        return Server("influxdb1_8" if minor >= 8 else "influxdb1", version)
    kinds: dict[int, Kind] = {2: "influxdb2", 3: "influxdb3"}
    return Server(kinds[major], version) if major in kinds else None


def _from_body(answer: Answer) -> Server | None:
    """The first releases of InfluxDB 3 say their version in the body alone."""
    try:
        version = json.loads(answer.body)["version"]
    except (ValueError, TypeError, KeyError):
        return None
    return Server("influxdb3", version) if str(version).startswith("3.") else None


def _victoria_metrics(connection: Connection) -> Server | None:
    answer = connection.request("GET", "/-/healthy")
    if answer.status != 200 or "VictoriaMetrics" not in answer.text:
        return None
    metrics = connection.request("GET", "/metrics")
    match = _VM_VERSION.search(metrics.text) if metrics.status == 200 else None
    return Server("victoriametrics", match[1] if match else "")


def _unknown(settings: InfluxSettings, answer: Answer) -> Server:
    version = answer.headers.get("X-Influxdb-Version", "")
    says = f"says it is version {version!r}" if version else "does not say which version it is"
    raise ConfigError(
        f"{settings.url} {says}: neither InfluxDB 1, 2 or 3 nor VictoriaMetrics",
        hint="correct store.url",
    )
