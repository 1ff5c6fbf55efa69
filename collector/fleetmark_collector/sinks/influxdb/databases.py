"""Where a server keeps our records: made, described and checked, by each kind's own means.

InfluxDB 1 has databases with retention policies and is told in InfluxQL; 2 has buckets, which
InfluxQL reaches through a mapping; 3 has databases. What is there already is never made anew.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from fleetmark_collector.config import InfluxSettings
from fleetmark_collector.findings import Finding
from fleetmark_collector.sinks.influxdb.asking import Asking
from fleetmark_collector.sinks.influxdb.connection import Connection
from fleetmark_collector.sinks.influxdb.query import identifier
from fleetmark_collector.sinks.influxdb.server import Server
from fleetmark_protocol.errors import StoreError

DAY_S = 24 * 3600
DEFAULT_POLICY = "autogen"
"""What InfluxDB 1 calls the retention policy that a database begins with."""

_GO_DURATION = re.compile(r"(\d+)(h|m|s)")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


class Databases(Protocol):
    """What one kind of server has for our records."""

    def make(self, retention_s: int | None) -> Iterator[str]:
        """Make what is missing; yield what was done, and what was there.

        Args:
            retention_s: how long records are kept, 0 for ever; None: for ever where this makes
                it, and as it is where it is there.

        Raises:
            ConfigError: the server does not let us.
            StoreError: it cannot do that.
        """

    def examine(self) -> Iterator[Finding]:
        """Say what is there and what is missing.

        Raises:
            ConfigError: the server does not let us see.
            StoreError: it cannot tell.
        """


def databases_of(server: Server, settings: InfluxSettings, connection: Connection) -> Databases:
    """Return what a server has for our records."""
    ask = Asking(settings, connection)
    if server.kind == "influxdb2":
        from fleetmark_collector.sinks.influxdb.buckets import Buckets

        return Buckets(settings, ask)
    if server.kind == "influxdb3":
        return Databases3(settings, ask)
    if server.kind == "victoriametrics":
        return NoDatabases()
    return Databases1(settings, ask)


class Databases1:
    """InfluxDB 1: a database, and in it a retention policy."""

    def __init__(self, settings: InfluxSettings, ask: Asking) -> None:
        self._settings = settings
        self._ask = ask
        self._database = identifier(settings.database)

    def make(self, retention_s: int | None) -> Iterator[str]:
        """Make database and retention policy; see `Databases`."""
        settings = self._settings
        if self._there():
            yield f"the database {settings.database} is there"
        else:
            self._run(f"CREATE DATABASE {self._database}")
            yield f"made the database {settings.database}"
        policy = self._policy()
        duration = f"DURATION {_hours(retention_s or 0)}"
        if policy is None:
            name = settings.retention_policy or DEFAULT_POLICY
            default = "" if settings.retention_policy else " DEFAULT"
            self._run(
                f"CREATE RETENTION POLICY {identifier(name)} ON {self._database} {duration} "
                f"REPLICATION 1{default}"
            )
            yield f"made the retention policy {name}: {kept(retention_s or 0)}"
        elif retention_s is not None and _go_seconds(policy["duration"]) != retention_s:
            name = identifier(policy["name"])
            self._run(f"ALTER RETENTION POLICY {name} ON {self._database} {duration}")
            yield f"set the retention policy {policy['name']}: {kept(retention_s)}"
        else:
            now = kept(_go_seconds(policy["duration"]))
            yield f"the retention policy {policy['name']} is there: {now}"

    def examine(self) -> Iterator[Finding]:
        """Say whether database and retention policy are there; see `Databases`."""
        settings = self._settings
        if not self._there():
            yield missing("database", f"{settings.database} is not there")
            return
        yield Finding("database", "ok", settings.database)
        policy = self._policy()
        if policy is None:
            name = settings.retention_policy or "(the default one)"
            yield missing("retention", f"no retention policy {name} in {settings.database}")
            return
        text = f"{kept(_go_seconds(policy['duration']))} ({policy['name']})"
        yield Finding("retention", "ok", text)

    def _there(self) -> bool:
        return any(row["name"] == self._settings.database for row in self._run("SHOW DATABASES"))

    def _policy(self) -> Mapping[str, Any] | None:
        wanted = self._settings.retention_policy
        for row in self._run(f"SHOW RETENTION POLICIES ON {self._database}"):
            if row["name"] == wanted if wanted else row["default"]:
                return row
        return None

    def _run(self, statement: str) -> list[dict[str, Any]]:
        """Run a statement that may change things; return its rows."""
        said = self._ask.told("see or change databases", "POST", "/query", {"q": statement})
        (result,) = said["results"]
        if "error" in result:
            raise StoreError(f"{self._settings.url}: {statement}: {result['error']}")
        return [
            dict(zip(series["columns"], row, strict=True))
            for series in result.get("series", [])
            for row in series.get("values", [])
        ]


class Databases3:
    """InfluxDB 3 Core: a database; how long it is kept is set when it is made, and never after."""

    _PATH = "/api/v3/configure/database"

    def __init__(self, settings: InfluxSettings, ask: Asking) -> None:
        self._settings = settings
        self._ask = ask

    def make(self, retention_s: int | None) -> Iterator[str]:
        """Make the database; see `Databases`."""
        bucket = self._settings.bucket
        wanted: dict[str, str] = {"db": bucket}
        if retention_s:
            wanted["retention_period"] = _hours(retention_s)
        deed = "make databases (an admin token may)"
        if self._ask.done(deed, "POST", self._PATH, wanted, but=409):
            yield f"made the database {bucket}: {kept(retention_s or 0)}"
            return
        yield f"the database {bucket} is there"
        if retention_s is not None:
            yield (
                "how long it keeps records is not changed: InfluxDB 3 Core takes that only when a "
                "database is made"
            )

    def examine(self) -> Iterator[Finding]:
        """Say whether the database is there; see `Databases`."""
        deed = "list databases (an admin token may)"
        said = self._ask.told(deed, "GET", self._PATH, {"format": "json"})
        listed = said["databases"] if isinstance(said, dict) else said
        names = {
            one if isinstance(one, str) else one.get("iox::database") or one.get("name")
            for one in listed
        }
        if self._settings.bucket in names:
            yield Finding("database", "ok", self._settings.bucket)
        else:
            yield missing("database", f"{self._settings.bucket} is not there")


class NoDatabases:
    """VictoriaMetrics: one place for all, kept as long as a flag of the server's says."""

    def make(self, retention_s: int | None) -> Iterator[str]:
        """Say that there is nothing to make; see `Databases`."""
        yield "VictoriaMetrics has no databases: there is nothing to make"
        if retention_s is not None:
            yield "how long it keeps records is its own flag -retentionPeriod"

    def examine(self) -> Iterator[Finding]:
        """Say what it is good for; see `Databases`."""
        yield Finding(
            "database",
            "warn",
            "VictoriaMetrics keeps numbers only and does not answer InfluxQL: dashboards can be "
            "drawn of it, campaigns and reports cannot be made",
            "for these, take InfluxDB or the embedded store",
        )


def missing(name: str, text: str) -> Finding:
    """Return the finding that something must be made."""
    return Finding(name, "missing", text, "make it with `fleetmark store init`")


def kept(seconds: int) -> str:
    """Return how long records are kept, in words."""
    if seconds == 0:
        return "records are kept for ever"
    if seconds % DAY_S == 0:
        return f"records are kept for {seconds // DAY_S} days"
    return f"records are kept for {seconds / 3600:g} hours"


def _hours(seconds: int) -> str:
    """Return a duration as InfluxQL takes it; 0 is for ever."""
    return f"{seconds // 3600}h" if seconds else "INF"


def _go_seconds(duration: str) -> int:
    """Return the seconds of a duration such as 720h0m0s; 0s is for ever."""
    return sum(int(number) * _SECONDS[unit] for number, unit in _GO_DURATION.findall(duration))
