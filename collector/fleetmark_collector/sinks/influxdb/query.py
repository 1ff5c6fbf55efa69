"""Asks in InfluxQL over HTTP, the one language that InfluxDB 1, 2 and 3 all answer."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fleetmark_collector.config import InfluxSettings
from fleetmark_collector.sinks.influxdb.connection import Connection, translated
from fleetmark_protocol.errors import ConfigError, FleetmarkError, StoreError, StoreUnavailable

CHUNK_ROWS = 5000
"""Rows of one piece of an answer: bounds the memory of both sides, however large the answer."""

_TRY_AGAIN = (429, 500, 502, 503, 504)
_BUSY = ("timeout", "shut", "closed", "interrupt", "killed", "concurrent", "too many", "memory")
"""What the message of a query that may succeed later contains."""

NO_DATA_HINT = (
    "are store.url and store.bucket right? `fleetmark store init` makes the database, `fleetmark "
    "store check` says what is wrong"
)


@dataclass(frozen=True)
class Chunk:
    """A piece of an answer.

    Attributes:
        name: the measurement.
        tags: what GROUP BY asked for; InfluxDB 3 has these among the columns.
        columns: names.
        values: rows.
    """

    name: str
    tags: dict[str, str]
    columns: list[str]
    values: list[list[Any]]


class InfluxQL:
    """Queries of one database; any number of threads may use it."""

    def __init__(self, settings: InfluxSettings, timeout_s: float | None = None) -> None:
        """Send nothing yet.

        Args:
            settings: where the server is and who asks.
            timeout_s: how long the server may be silent; None for what the settings say.
        """
        self._settings = settings
        self._connection = Connection(settings, timeout_s)

    def chunks(self, statement: str) -> Iterator[Chunk]:
        """Run one statement that reads (InfluxDB 3 takes no more); yield the answer as it comes.

        Raises:
            StoreUnavailable: the server is away or busy, or there is no data yet.
            StoreError: it cannot answer this.
            ConfigError: it does not let us in.
        """
        params = {
            "db": self._settings.database,
            "q": statement,
            "epoch": "ns",
            "chunked": "true",
            "chunk_size": str(CHUNK_ROWS),
        }
        if self._settings.retention_policy:
            params["rp"] = self._settings.retention_policy
        response = self._connection.stream("/query", params)
        with translated(self._settings), response:
            if response.status != 200:
                raise self._refused(response.status, message_of(response.read(65536)))
            for line in response:
                if line.strip():
                    yield from self._chunks_of(line)

    def rows(self, statement: str) -> Iterator[dict[str, Any]]:
        """Run one statement that reads; yield its rows, tags of GROUP BY among the columns.

        Raises:
            FleetmarkError: see `chunks`.
        """
        for chunk in self.chunks(statement):
            for row in chunk.values:
                yield {**chunk.tags, **dict(zip(chunk.columns, row, strict=True))}

    def close(self) -> None:
        """Release the connections; a later query makes new ones."""
        self._connection.close()

    def _chunks_of(self, line: bytes) -> Iterator[Chunk]:
        try:
            answer = json.loads(line, parse_int=_whole)
        except ValueError as error:
            raise StoreError(
                f"{self._settings.url}: not an answer of InfluxDB: {line[:80]!r}",
                hint="is store.url right?",
            ) from error
        results = answer.get("results", []) if isinstance(answer, dict) else []
        for part in (answer, *results):
            if isinstance(part, dict) and "error" in part:
                raise self._failed(str(part["error"]))
        for result in results:
            for series in result.get("series", []):
                yield Chunk(
                    series.get("name", ""),
                    series.get("tags") or {},
                    series["columns"],
                    series.get("values") or [],
                )

    def _failed(self, message: str) -> StoreError:
        """Return the error for what went wrong with a query that was let in."""
        text = f"{self._settings.url}: {message}"
        if "database not found" in message:
            return StoreUnavailable(f"no data yet: {text}", hint=NO_DATA_HINT)
        if "retention policy not found" in message:
            return StoreError(text, hint="correct store.bucket (DATABASE/RETENTION_POLICY)")
        if any(word in message.lower() for word in _BUSY):
            return StoreUnavailable(text)
        return StoreError(text)

    def _refused(self, status: int, message: str) -> FleetmarkError:
        """Return the error for an HTTP status."""
        text = f"{self._settings.url}: {status} {message}".rstrip()
        if status in (401, 403):
            return ConfigError(
                text,
                hint="see store.token_file, or store.username and password_file: may that one "
                "read the database?",
            )
        if status == 404:
            return StoreUnavailable(f"no data yet: {text}", hint=NO_DATA_HINT)
        if status in _TRY_AGAIN:
            return StoreUnavailable(text)
        return self._failed(f"{status} {message}")


def identifier(name: str) -> str:
    """Quote a name of a measurement, tag or field."""
    return '"' + _without_newlines(name).replace('"', '\\"') + '"'


def literal(text: str) -> str:
    """Quote a text."""
    return "'" + _without_newlines(text).replace("'", "\\'") + "'"


def _without_newlines(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _whole(digits: str) -> float:
    """Return a whole number of an answer: JSON has no -0, but a float may be it."""
    return -0.0 if digits == "-0" else int(digits)


def message_of(body: bytes) -> str:
    """Return what a server said with an error status: `error`, `message`, or the body itself."""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if isinstance(answer, dict):
        for name in ("error", "message"):
            if isinstance(answer.get(name), str):
                return str(answer[name])
    return " ".join(body.decode(errors="replace").split())[:200]
