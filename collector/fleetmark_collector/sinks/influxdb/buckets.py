"""Buckets of InfluxDB 2, and the mapping by which InfluxQL finds them."""

from collections.abc import Iterator, Mapping
from typing import Any

from fleetmark_collector.config import InfluxSettings
from fleetmark_collector.findings import Finding
from fleetmark_collector.sinks.influxdb.asking import Asking
from fleetmark_collector.sinks.influxdb.databases import DEFAULT_POLICY, kept, missing
from fleetmark_protocol.errors import ConfigError


class Buckets:
    """A bucket, how long it keeps records, and its DBRP mapping.

    InfluxQL asks for a database and a retention policy; a DBRP mapping says which bucket that is.
    Newer servers have one for every bucket by themselves, older ones need to be told.
    """

    def __init__(self, settings: InfluxSettings, ask: Asking) -> None:
        self._settings = settings
        self._ask = ask
        self._policy = settings.retention_policy or DEFAULT_POLICY

    def make(self, retention_s: int | None) -> Iterator[str]:
        """Make bucket and mapping; see `Databases`."""
        name = self._settings.bucket
        bucket = self._bucket()
        if bucket is None:
            rules = _rules(retention_s or 0)
            wanted = {"orgID": self._org_id(), "name": name, "retentionRules": rules}
            self._ask.done("make buckets", "POST", "/api/v2/buckets", wanted)
            yield f"made the bucket {name}: {kept(retention_s or 0)}"
            bucket = self._bucket()
            if bucket is None:
                raise ConfigError(
                    f"{self._settings.url}: the bucket {name} was made, but this token may not "
                    "see it",
                    hint="give the token read access to buckets",
                )
        elif retention_s is not None and _retention_s(bucket) != retention_s:
            wanted = {"retentionRules": _rules(retention_s)}
            self._ask.done("change buckets", "PATCH", f"/api/v2/buckets/{bucket['id']}", wanted)
            yield f"set the bucket {name}: {kept(retention_s)}"
        else:
            yield f"the bucket {name} is there: {kept(_retention_s(bucket))}"
        yield self._make_mapping(bucket)

    def examine(self) -> Iterator[Finding]:
        """Say whether bucket and mapping are there; see `Databases`."""
        name = self._settings.bucket
        bucket = self._bucket()
        if bucket is None:
            yield missing("database", f"no bucket {name}, or this token may not see it")
            return
        yield Finding("database", "ok", f"bucket {name}")
        yield Finding("retention", "ok", kept(_retention_s(bucket)))
        if self._mapping(bucket) is None:
            yield missing("mapping", f"InfluxQL does not find the bucket {name} (no DBRP mapping)")
        else:
            yield Finding("mapping", "ok", self._mapped())

    def _make_mapping(self, bucket: Mapping[str, Any]) -> str:
        if self._mapping(bucket) is not None:
            return f"InfluxQL finds it: {self._mapped()}"
        wanted = {
            "orgID": bucket["orgID"],
            "bucketID": bucket["id"],
            "database": self._settings.database,
            "retention_policy": self._policy,
            "default": True,
        }
        self._ask.done("make DBRP mappings", "POST", "/api/v2/dbrps", wanted)
        return f"made the mapping by which InfluxQL finds it: {self._mapped()}"

    def _mapped(self) -> str:
        return f"database {self._settings.database}, retention policy {self._policy}"

    def _bucket(self) -> Mapping[str, Any] | None:
        params = {"name": self._settings.bucket}
        if self._settings.org:
            params["org"] = self._settings.org
        found = self._ask.told("see buckets", "GET", "/api/v2/buckets", params)
        return next((one for one in found["buckets"] if one["name"] == params["name"]), None)

    def _mapping(self, bucket: Mapping[str, Any]) -> Mapping[str, Any] | None:
        params = {"orgID": bucket["orgID"], "bucketID": bucket["id"]}
        found = self._ask.told("see DBRP mappings", "GET", "/api/v2/dbrps", params)
        for one in found["content"]:
            named = self._settings.retention_policy
            # Without a policy InfluxQL takes the default one of the database, whatever its name.
            right = one["retention_policy"] == named if named else one["default"]
            if one["database"] == self._settings.database and right:
                return dict(one)
        return None

    def _org_id(self) -> str:
        org = self._settings.org
        params = {"org": org} if org else {}
        found = self._ask.told("see organizations", "GET", "/api/v2/orgs", params)["orgs"]
        if len(found) == 1:
            return str(found[0]["id"])
        if not found:
            raise ConfigError(
                f"{self._settings.url}: no organization {org!r}, or this token may not see it",
                hint="correct store.org",
            )
        names = ", ".join(sorted(str(one["name"]) for one in found))
        raise ConfigError(
            f"{self._settings.url} has several organizations: {names}",
            hint="name one in store.org",
        )


def _rules(retention_s: int) -> list[dict[str, object]]:
    # 0 stands for ever.
    return [{"type": "expire", "everySeconds": retention_s}]


def _retention_s(bucket: Mapping[str, Any]) -> int:
    rules = [rule for rule in bucket.get("retentionRules", []) if rule["type"] == "expire"]
    return int(rules[0]["everySeconds"]) if rules else 0
