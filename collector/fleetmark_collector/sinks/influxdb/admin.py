"""Prepares a server for our records, and says what is wrong with one."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime

from fleetmark_collector.config import InfluxSettings
from fleetmark_collector.findings import Finding
from fleetmark_collector.sinks.influxdb.answers import judge
from fleetmark_collector.sinks.influxdb.connection import Connection
from fleetmark_collector.sinks.influxdb.databases import databases_of
from fleetmark_collector.sinks.influxdb.query import InfluxQL
from fleetmark_collector.sinks.influxdb.server import Server, detect
from fleetmark_collector.sinks.influxdb.transport import transport_to
from fleetmark_protocol.errors import FleetmarkError

PROBE = "fleetmark_probe"
"""Measurement of the point that a check writes and reads back: nobody else reads it, and checks of
one hour write the same point."""

MAX_SKEW_S = 5.0
"""Clocks this far apart confuse dashboards ("last 5 minutes" is the server's idea of now)."""

MANY_SERIES = 500_000
"""Half of what one database of InfluxDB 1 takes by default (max-series-per-database)."""

HOUR_NS = 3600 * 10**9


def prepare(settings: InfluxSettings, retention_s: int | None) -> Iterator[str]:
    """Make what the records need; yield what was found and what was done.

    Args:
        settings: where the server is and who asks.
        retention_s: how long records are kept, 0 for ever; None: for ever where this makes it, and
            as it is where it is there.

    Raises:
        StoreUnavailable: the server does not answer.
        ConfigError: it refuses us.
        StoreError: it cannot do that.
    """
    server = detect(settings)
    yield f"{settings.url} is {server}"
    connection = Connection(settings)
    try:
        yield from databases_of(server, settings, connection).make(retention_s)
    finally:
        connection.close()


def examine(settings: InfluxSettings, clock: Callable[[], int] = time.time_ns) -> Iterator[Finding]:
    """Yield what is right and what is wrong with the server, as far as we may see.

    Args:
        settings: where the server is and who asks.
        clock: nanoseconds since the epoch.
    """
    with _told("server") as problems:
        server = detect(settings)
    if problems:
        yield from problems
        return
    yield Finding("server", "ok", f"{server} at {settings.url}")
    connection = Connection(settings)
    try:
        with _told("clock") as problems:
            yield from _clock(connection, clock)
        yield from problems
        with _told("database") as problems:
            yield from databases_of(server, settings, connection).examine()
        yield from problems
        with _told("write") as problems:
            yield _write(server, settings, clock)
        yield from problems
        if server.answers_influxql and not problems:
            with _told("read") as problems:
                yield _read(settings)
            yield from problems
            yield from _series(settings)
    finally:
        connection.close()


@contextmanager
def _told(name: str) -> Iterator[list[Finding]]:
    """Yield a list that takes the error of the block as a finding."""
    problems: list[Finding] = []
    try:
        yield problems
    except FleetmarkError as error:
        problems.append(Finding(name, "missing", error.message, error.hint or ""))


def _clock(connection: Connection, clock: Callable[[], int]) -> Iterator[Finding]:
    answer = connection.request("GET", "/ping")
    try:
        there = parsedate_to_datetime(answer.headers.get("Date", ""))
    except (TypeError, ValueError):
        return
    # The header tells whole seconds.
    skew_s = there.timestamp() + 0.5 - clock() / 1e9
    if abs(skew_s) > MAX_SKEW_S:
        ahead = "ahead of" if skew_s > 0 else "behind"
        yield Finding(
            "clock",
            "warn",
            f"the server's is {abs(skew_s):.0f} s {ahead} this machine's",
            "set both by NTP: dashboards count back from the server's now",
        )
    else:
        yield Finding("clock", "ok", "the server's and this machine's agree")


def _write(server: Server, settings: InfluxSettings, clock: Callable[[], int]) -> Finding:
    transport = transport_to(server, settings)
    try:
        time_ns = clock() // HOUR_NS * HOUR_NS
        verdict = judge(transport.send(f"{PROBE} value=1i {time_ns}".encode()), settings)
    finally:
        transport.close()
    if verdict.kind == "accepted":
        return Finding("write", "ok", "a point was written")
    return Finding("write", "missing", f"a point was refused: {verdict.reason}")


def _read(settings: InfluxSettings) -> Finding:
    influxql = InfluxQL(settings)
    try:
        if list(influxql.rows(f'SELECT last(value) AS n FROM "{PROBE}"')):  # noqa: S608
            return Finding("read", "ok", "it was read back")
    finally:
        influxql.close()
    return Finding(
        "read",
        "missing",
        "what was written is not found by InfluxQL",
        "is another bucket mapped to this database, or may we not read it?",
    )


def _series(settings: InfluxSettings) -> Iterator[Finding]:
    """Say how many series there are, where the server tells; InfluxDB 3 does not count them."""
    influxql = InfluxQL(settings)
    try:
        rows = list(influxql.rows("SHOW SERIES CARDINALITY"))
    except FleetmarkError:
        return
    finally:
        influxql.close()
    if not rows:
        return
    number = sum(int(value) for row in rows for value in row.values() if isinstance(value, int))
    if number > MANY_SERIES:
        yield Finding(
            "series",
            "warn",
            f"{number}",
            "InfluxDB 1 takes max-series-per-database (1,000,000 by default) and keeps their index "
            "in memory: shorten the retention, or begin a new database",
        )
    else:
        yield Finding("series", "ok", f"{number}")
