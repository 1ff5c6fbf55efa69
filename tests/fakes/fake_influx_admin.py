"""What InfluxDB 2 and 3 Core answer to who manages their databases, as their published APIs say.

No such server can be installed here. Bodies are checked against the classes that influxdb-client
has generated from InfluxDB 2's own API description: a key that these do not know is refused.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from influxdb_client.domain.dbrp_create import DBRPCreate
from influxdb_client.domain.patch_bucket_request import PatchBucketRequest
from influxdb_client.domain.post_bucket_request import PostBucketRequest

from fakes.fake_influx import V2_PING, V3_PING, Asked, FakeInflux, Reply

DENIED = Reply(401, '{"code":"unauthorized","message":"unauthorized access"}')


def said(status: int, body: object) -> Reply:
    return Reply(status, json.dumps(body))


def written(_: Asked) -> Reply:
    return Reply(204)


def probe_found(_: Asked) -> Reply:
    return said(200, {"results": [{"series": [{"columns": ["time", "n"], "values": [[0, 1]]}]}]})


@dataclass
class FakeInflux2:
    """InfluxDB 2, with one organization `lab`.

    Attributes:
        token: who asks with another is refused.
        virtual: a new bucket gets its mapping at once, as newer releases do.
    """

    token: str = "right"
    virtual: bool = False
    buckets: dict[str, dict[str, Any]] = field(default_factory=dict)
    mappings: list[dict[str, Any]] = field(default_factory=list)

    def server(self) -> FakeInflux:
        return FakeInflux(
            {
                "/ping": V2_PING,
                "/api/v2/orgs": self._guarded(self._orgs),
                "/api/v2/buckets": self._guarded(self._buckets),
                "/api/v2/buckets/b1": self._guarded(self._patch),
                "/api/v2/dbrps": self._guarded(self._dbrps),
                "/api/v2/write": self._guarded(self._write),
                "/query": self._guarded(self._query),
            }
        )

    def _guarded(self, answer):
        return lambda asked: (
            answer(asked) if asked.headers.get("authorization") == f"Token {self.token}" else DENIED
        )

    def _orgs(self, asked: Asked) -> Reply:
        wanted = asked.params.get("org", "lab")
        return said(200, {"orgs": [{"id": "o1", "name": "lab"}] if wanted == "lab" else []})

    def _buckets(self, asked: Asked) -> Reply:
        if asked.method == "GET":
            found = [one for one in self.buckets.values() if one["name"] == asked.params["name"]]
            return said(200, {"buckets": found})
        body = _known(asked, PostBucketRequest)
        assert body["orgID"] == "o1"
        assert body["name"] not in self.buckets
        self.buckets[body["name"]] = {"id": "b1", "type": "user", **body}
        if self.virtual:
            database, _, policy = body["name"].partition("/")
            self._map(database, policy or "autogen", virtual=True)
        return said(201, self.buckets[body["name"]])

    def _patch(self, asked: Asked) -> Reply:
        (bucket,) = self.buckets.values()
        bucket.update(_known(asked, PatchBucketRequest))
        return said(200, bucket)

    def _dbrps(self, asked: Asked) -> Reply:
        if asked.method == "GET":
            assert asked.params["orgID"] == "o1"
            found = [one for one in self.mappings if one["bucketID"] == asked.params["bucketID"]]
            return said(200, {"content": found})
        body = _known(asked, DBRPCreate)
        assert (body["orgID"], body["bucketID"]) == ("o1", "b1")
        self._map(body["database"], body["retention_policy"], body["default"])
        return said(201, self.mappings[-1])

    def _map(self, database: str, policy: str, default: bool = True, virtual: bool = False) -> None:
        self.mappings.append(
            {
                "id": f"m{len(self.mappings)}",
                "orgID": "o1",
                "bucketID": "b1",
                "database": database,
                "retention_policy": policy,
                "default": default,
                "virtual": virtual,
            }
        )

    def _write(self, asked: Asked) -> Reply:
        if asked.params["bucket"] not in self.buckets:
            return said(404, {"code": "not found", "message": "bucket not found"})
        return Reply(204)

    def _query(self, asked: Asked) -> Reply:
        if not any(one["database"] == asked.params["db"] for one in self.mappings):
            return said(404, {"code": "not found", "message": "no dbrp mapping found"})
        return probe_found(asked)


@dataclass
class FakeInflux3:
    """InfluxDB 3 Core.

    Attributes:
        plain: databases are listed as newer releases do, by name alone.
    """

    plain: bool = False
    databases: dict[str, str] = field(default_factory=dict)

    def server(self) -> FakeInflux:
        return FakeInflux(
            {
                "/ping": V3_PING,
                "/api/v3/configure/database": self._configure,
                "/api/v2/write": written,
                "/query": probe_found,
            }
        )

    def _configure(self, asked: Asked) -> Reply:
        if asked.method == "GET":
            assert asked.params == {"format": "json"}
            if self.plain:
                return said(200, {"databases": list(self.databases)})
            return said(200, [{"iox::database": name} for name in self.databases])
        body = json.loads(asked.body)
        assert set(body) <= {"db", "retention_period"}
        if body["db"] in self.databases:
            return said(409, {"error": "attempted to create a resource that already exists"})
        self.databases[body["db"]] = body.get("retention_period", "")
        return Reply(200)


def _known(asked: Asked, model: type) -> dict[str, Any]:
    """Return a body all of whose keys its class in influxdb-client has."""
    body = json.loads(asked.body)
    assert asked.headers["content-type"] == "application/json"
    known = set(model.attribute_map.values())
    assert set(body) <= known, f"{set(body) - known} is nothing that {model.__name__} has"
    return dict(body)
