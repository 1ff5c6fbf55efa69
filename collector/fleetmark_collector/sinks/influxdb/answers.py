"""What a server's answer to a write means: pure rules, from what the servers do and their code."""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

from fleetmark_collector.config import InfluxSettings
from fleetmark_collector.sinks.influxdb.connection import Answer
from fleetmark_protocol.errors import ConfigError, StoreUnavailable

MAX_REASON_CHARS = 300

_LIMIT = re.compile(
    r"limit exceeded|would exceed|exceeds? (the )?limit|pending deletion", re.IGNORECASE
)
"""Refusals that a setting or a moment of the server's brings, not the record: max-series-per-
database and max-values-per-tag of InfluxDB 1, tables and columns of InfluxDB 3, a shard that is
just being dropped."""

_DROPPED = re.compile(r"^partial write: .* dropped=(\d+)$", re.DOTALL)
_QUOTED_LINE = re.compile(r"unable to parse '.*': ", re.DOTALL)
_PARTIAL_AS_500 = "partial write"
"""InfluxDB 3 Core (3.5 to 3.9) answers 500 to a partial write that came by its v2 path."""


@dataclass(frozen=True)
class Verdict:
    """What became of the lines of one request.

    Attributes:
        kind: "accepted": all are durable; "refused": at least one is not; "too_large": the
            request as a whole was.
        reason: the server's, without the line itself.
        dropped: how many the server says it dropped, at least; None where it does not say.
        is_limit: refused for a limit of the server's, not for what the line is.
    """

    kind: Literal["accepted", "refused", "too_large"]
    reason: str = ""
    dropped: int | None = None
    is_limit: bool = False


def judge(answer: Answer, settings: InfluxSettings) -> Verdict:
    """Return what became of the lines.

    Raises:
        StoreUnavailable: nothing is known of them; try again.
        ConfigError: no line would be taken, however often it is tried.
    """
    status = answer.status
    if status == 204:
        return Verdict("accepted")
    said = _message(answer)
    if status == 413:
        return Verdict("too_large", said)
    text = f"{settings.url} answers {status}" + (f": {said[:MAX_REASON_CHARS]}" if said else "")
    if status == 401 or status == 403:
        raise ConfigError(text, hint=_who(settings))
    if status == 404:
        raise ConfigError(text, hint=_where(settings))
    if "retention policy not found" in said:
        raise ConfigError(text, hint="correct what is after the slash in store.bucket")
    if status in (405, 501) or 300 <= status < 400:
        moved = answer.headers.get("Location")
        raise ConfigError(
            text, hint="correct store.url" + (f"; it points to {moved}" * bool(moved))
        )
    if status in (400, 422) or (status == 500 and _PARTIAL_AS_500 in said):
        dropped = _DROPPED.match(said)
        parsed = "unable to parse" in said
        return Verdict(
            "refused",
            _QUOTED_LINE.sub("unable to parse: ", said)[:MAX_REASON_CHARS],
            int(dropped[1]) if dropped and not parsed else None,
            _LIMIT.search(said) is not None,
        )
    raise StoreUnavailable(text, retry_after_s=_retry_after_s(answer))


def _message(answer: Answer) -> str:
    """Return what a server said: InfluxDB 1 in `error`, 2 in `message`, 3 in either and a list."""
    try:
        body = json.loads(answer.body)
    except ValueError:
        return " ".join(answer.text.split())
    if not isinstance(body, dict):
        return ""
    said = str(body.get("error") or body.get("message") or "")
    lines = body.get("data")
    if isinstance(lines, list) and lines and isinstance(lines[0], dict):
        said += f": {lines[0].get('error_message', '')}"
    elif isinstance(lines, dict):
        said += f": {lines.get('error_message', '')}"
    return said


def _who(settings: InfluxSettings) -> str:
    if settings.token is None and settings.username is None:
        return "the server asks who we are: see store.token_file, or username and password_file"
    mine = "store.token_file" if settings.token is not None else "store.username, password_file"
    return f"see {mine}: is it right, and may it write to store.bucket ({settings.bucket})?"


def _where(settings: InfluxSettings) -> str:
    org = f" and store.org ({settings.org})" if settings.org else ""
    return f"correct store.bucket ({settings.bucket}){org}, or make it with `fleetmark store init`"


def _retry_after_s(answer: Answer) -> float | None:
    value = answer.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
