"""Asks a server for what is neither a record nor a query of records; errors in our terms."""

import json
from collections.abc import Mapping
from typing import Any

from fleetmark_collector.config import InfluxSettings
from fleetmark_collector.sinks.influxdb.connection import Answer, Connection
from fleetmark_collector.sinks.influxdb.query import message_of
from fleetmark_protocol.errors import ConfigError, StoreError, StoreUnavailable


class Asking:
    """Requests whose answers are JSON or nothing.

    Each names the deed in words ("make databases"), for the error that says that we may not.
    """

    def __init__(self, settings: InfluxSettings, connection: Connection) -> None:
        self._settings = settings
        self._connection = connection

    def told(
        self, deed: str, method: str, path: str, params: Mapping[str, str] | None = None
    ) -> Any:
        """Return the JSON of an answer.

        Raises:
            ConfigError: we may not do that.
            StoreUnavailable: not now.
            StoreError: any other answer but 2xx and JSON.
        """
        answer = self._connection.request(method, path, params)
        self._check(answer, deed)
        try:
            return json.loads(answer.body)
        except ValueError as error:
            raise StoreError(
                f"{self._settings.url}{path}: not JSON: {answer.text[:80]!r}",
                hint="is store.url right?",
            ) from error

    def done(
        self, deed: str, method: str, path: str, body: Mapping[str, object], but: int | None = None
    ) -> bool:
        """Have something done; return False where the answer is the status `but`.

        Raises:
            ConfigError: we may not do that.
            StoreUnavailable: not now.
            StoreError: any other answer but 2xx.
        """
        answer = self._connection.request(
            method,
            path,
            body=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        if answer.status == but:
            return False
        self._check(answer, deed)
        return True

    def _check(self, answer: Answer, deed: str) -> None:
        if 200 <= answer.status < 300:
            return
        settings = self._settings
        text = f"{settings.url} answers {answer.status}: {message_of(answer.body)}".rstrip(": ")
        if answer.status in (401, 403):
            mine = "the token" if settings.token is not None else settings.username or "nobody"
            raise ConfigError(
                f"{text} ({mine} may not {deed})",
                hint="see store.token_file, or store.username and store.password_file",
            )
        if answer.status == 429 or answer.status >= 500:
            raise StoreUnavailable(text)
        raise StoreError(text)
