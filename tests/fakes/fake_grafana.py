"""A Grafana on loopback, over HTTP: as strict as the real one about what `grafana push` sends.

It was written after Grafana's documentation and source, not recorded from a server: what it takes,
a real one should take; that it does so has not been tried.
"""

import copy
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

UID = re.compile(r"[a-zA-Z0-9_-]{1,40}")
DURATION = re.compile(r"(\d+(ms|[smhdwy]))+")
EVALUATE_S = 10
"""Grafana's scheduler ticks so often; a group's interval must be a multiple."""

DASHBOARD_COMMAND = {
    "dashboard",
    "folderId",
    "folderUid",
    "message",
    "overwrite",
    "userId",
    "isFolder",
}
RULE_KEYS = {
    "id", "uid", "orgID", "folderUID", "ruleGroup", "title", "condition", "data", "updated",
    "noDataState", "execErrState", "for", "keep_firing_for", "annotations", "labels",
    "provenance", "isPaused", "notification_settings", "record",
}  # fmt: skip


class Refused(Exception):
    """An answer that is not 2xx."""

    def __init__(self, code: int, message: str, /, **more: object) -> None:
        super().__init__(message)
        self.code = code
        self.body = {"message": message, **more}


@dataclass
class Request:
    """What was asked, for tests to look at."""

    method: str
    path: str
    body: Any
    headers: dict[str, str]


@dataclass
class FakeGrafana:
    """A server; use as a context. What it holds may be changed under way.

    Attributes:
        tokens: token -> role.
        prefix: the path it is served under.
        failures: (method, path) -> what is answered instead, once for each.
        datasource_health: what asking the datasource says, given what it holds; None is well.
    """

    tokens: dict[str, str] = field(default_factory=lambda: {"good-token": "Admin"})
    version: str = "12.4.3"
    prefix: str = ""
    folders: dict[str, dict[str, Any]] = field(default_factory=dict)
    datasources: dict[str, dict[str, Any]] = field(default_factory=dict)
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    dashboards: dict[str, dict[str, Any]] = field(default_factory=dict)
    groups: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    failures: dict[tuple[str, str], list[tuple[int, Any]]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    health_problem: Any = None
    before_save: Any = None
    """Called before a dashboard is saved: somebody else is quicker."""

    def __enter__(self) -> "FakeGrafana":
        grafana = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body in one piece, not 40 ms apart

            def _any(self) -> None:
                grafana._answer(self)

            do_GET = do_POST = do_PUT = do_DELETE = _any  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}{self.prefix}"

    @property
    def writes(self) -> list[str]:
        """What changed something, such as `POST /api/folders`."""
        return [f"{one.method} {one.path}" for one in self.requests if one.method != "GET"]

    # --- HTTP -------------------------------------------------------------------------------

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        raw = handler.rfile.read(length)
        path = urlsplit(handler.path).path
        try:
            status, body = 200, self._route(handler, path, raw)
        except Refused as refused:
            status, body = refused.code, refused.body
        page = isinstance(body, str)
        payload = (body if page else json.dumps(body)).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "text/html" if page else "application/json")
        handler.send_header("Content-Length", str(len(payload)))
        handler.end_headers()
        handler.wfile.write(payload)
        handler.wfile.flush()

    def _route(self, handler: BaseHTTPRequestHandler, path: str, raw: bytes) -> Any:
        try:
            body = json.loads(raw) if raw else None
        except ValueError:
            raise Refused(400, "bad request data") from None
        method = handler.command
        if not path.startswith(f"{self.prefix}/"):
            raise Refused(404, "Not found")
        path = path.removeprefix(self.prefix)
        self.requests.append(Request(method, path, copy.deepcopy(body), dict(handler.headers)))
        kind = (handler.headers.get("Content-Type") or "").partition(";")[0]
        if body is not None and kind != "application/json":
            raise Refused(415, "content type is not application/json")
        if planned := self.failures.get((method, path)):
            status, answer = planned.pop(0)
            if isinstance(answer, str):
                refused = Refused(status, "")
                refused.body = answer  # type: ignore[assignment]
                raise refused
            raise Refused(status, answer["message"])
        if path == "/api/health":
            return {"database": "ok", "version": self.version, "commit": "0000000"}
        role = self._role(handler.headers.get("Authorization", ""))
        parts = [unquote(part) for part in path.strip("/").split("/")][1:]
        name = "_".join((method.lower(), parts[0]))
        route = getattr(self, f"_{name}", None)
        if route is None:
            raise Refused(404, "Not found")
        return route(role, parts[1:], body)

    def _role(self, authorization: str) -> str:
        scheme, _, token = authorization.partition(" ")
        if scheme != "Bearer" or token not in self.tokens:
            raise Refused(401, "Invalid API key", messageId="api-key.invalid", statusCode=401)
        return self.tokens[token]

    @staticmethod
    def _need(role: str, *allowed: str) -> None:
        if role not in allowed:
            raise Refused(
                403,
                "You'll need additional permissions to perform this action.",
                title="Access denied",
            )

    def _get_frontend(self, role: str, rest: list[str], body: Any) -> Any:
        return {"buildInfo": {"version": self.version, "edition": "Open Source"}}

    # --- folders ----------------------------------------------------------------------------

    def _get_folders(self, role: str, rest: list[str], body: Any) -> Any:
        if rest[0] not in self.folders:
            raise Refused(404, "folder not found", status="not-found")
        return self.folders[rest[0]]

    def _post_folders(self, role: str, rest: list[str], body: Any) -> Any:
        self._need(role, "Admin", "Editor")
        uid, title = body.get("uid", ""), body.get("title", "")
        if not title:
            raise Refused(400, "folder title cannot be empty")
        if not UID.fullmatch(uid):
            raise Refused(400, "uid contains illegal characters or is too long")
        if uid in self.folders:
            raise Refused(409, "a folder already exists with that uid")
        if title in {folder["title"] for folder in self.folders.values()}:
            raise Refused(409, "a folder with the same name already exists")
        self.folders[uid] = {"id": len(self.folders) + 1, "uid": uid, "title": title, "version": 1}
        return self.folders[uid]

    def _put_folders(self, role: str, rest: list[str], body: Any) -> Any:
        self._need(role, "Admin", "Editor")
        folder = self.folders[rest[0]]
        if body.get("version") != folder["version"] and not body.get("overwrite"):
            raise Refused(412, "the folder has been changed by someone else")
        folder.update(title=body["title"], version=folder["version"] + 1)
        return folder

    # --- datasources ------------------------------------------------------------------------

    def _get_datasources(self, role: str, rest: list[str], body: Any) -> Any:
        self._need(role, "Admin")
        if rest[0] != "uid" or rest[1] not in self.datasources:
            raise Refused(404, "Data source not found")
        if rest[2:] == ["health"]:
            problem = self.health_problem(self.secrets[rest[1]]) if self.health_problem else None
            if problem:
                raise Refused(400, problem, status="ERROR")
            return {"status": "OK", "message": "datasource is working. 9 measurements found"}
        return self._shown(rest[1])

    def _shown(self, uid: str) -> dict[str, Any]:
        kept = dict.fromkeys(self.secrets[uid], True)
        return {**self.datasources[uid], "secureJsonFields": kept}

    def _check_datasource(self, body: Any) -> None:
        for key in ("name", "type", "access"):
            if not isinstance(body.get(key), str) or not body[key]:
                raise Refused(400, "bad request data")
        if not UID.fullmatch(body.get("uid", "")):
            raise Refused(400, "invalid format of UID")
        if not urlsplit(body.get("url", "")).hostname:
            raise Refused(400, "Validation error, invalid URL")
        if not isinstance(body.get("jsonData", {}), dict):
            raise Refused(400, "bad request data")

    def _post_datasources(self, role: str, rest: list[str], body: Any) -> Any:
        self._need(role, "Admin")
        self._check_datasource(body)
        if body["name"] in {one["name"] for one in self.datasources.values()}:
            raise Refused(409, "data source with the same name already exists")
        if body["uid"] in self.datasources:
            raise Refused(409, "data source with the same uid already exists")
        self.secrets[body["uid"]] = dict(body.pop("secureJsonData", {}))
        self.datasources[body["uid"]] = {
            **body, "id": len(self.datasources) + 1, "orgId": 1, "version": 1, "readOnly": False,
            "basicAuth": False, "withCredentials": False, "database": "",
        }  # fmt: skip
        return {"message": "Datasource added", "datasource": self._shown(body["uid"])}

    def _put_datasources(self, role: str, rest: list[str], body: Any) -> Any:
        self._need(role, "Admin")
        self._check_datasource(body)
        before = self.datasources[rest[1]]
        if before["readOnly"]:
            raise Refused(403, "Cannot update read-only data source")
        if body.pop("version", 0) not in (0, None, before["version"]):
            raise Refused(409, "Datasource has already been updated by someone else.")
        self.secrets[rest[1]].update(body.pop("secureJsonData", {}))
        self.datasources[rest[1]] = {**before, **body, "version": before["version"] + 1}
        return {"message": "Datasource updated", "datasource": self._shown(rest[1])}

    # --- dashboards -------------------------------------------------------------------------

    def _get_dashboards(self, role: str, rest: list[str], body: Any) -> Any:
        if rest[0] != "uid" or rest[1] not in self.dashboards:
            raise Refused(404, "Dashboard not found")
        return self.dashboards[rest[1]]

    def _post_dashboards(self, role: str, rest: list[str], body: Any) -> Any:
        self._need(role, "Admin", "Editor")
        if rest != ["db"] or not isinstance(body, dict) or set(body) - DASHBOARD_COMMAND:
            raise Refused(400, "bad request data")
        if self.before_save is not None:
            self.before_save()
        new, folder = body["dashboard"], body.get("folderUid", "")
        uid = new.get("uid", "")
        if not new.get("title"):
            raise Refused(400, "Dashboard title cannot be empty")
        if not UID.fullmatch(uid):
            raise Refused(400, "uid contains illegal characters or is too long")
        if folder and folder not in self.folders:
            raise Refused(400, "folder not found")
        known = self.dashboards.get(uid)
        version = 1
        if known is None:
            if new.get("id"):
                raise Refused(404, "Dashboard not found", status="not-found")
        else:
            if known["meta"].get("provisioned"):
                raise Refused(400, "Cannot save provisioned dashboard")
            version = known["dashboard"]["version"] + 1
            if new.get("version") != version - 1 and not body.get("overwrite"):
                raise Refused(
                    412,
                    "The dashboard has been changed by someone else",
                    status="version-mismatch",
                )
        number = known["dashboard"]["id"] if known else len(self.dashboards) + 1
        self.dashboards[uid] = {
            "dashboard": {**copy.deepcopy(new), "id": number, "version": version},
            "meta": {"folderUid": folder, "provisioned": False, "slug": uid, "type": "db"},
        }
        return {"id": number, "uid": uid, "status": "success", "version": version}

    # --- alert rules ------------------------------------------------------------------------

    def _get_v1(self, role: str, rest: list[str], body: Any) -> Any:
        self._need(role, "Admin")
        group = self.groups.get((rest[2], rest[4])) if self._is_group(rest) else None
        if group is None:
            raise Refused(404, "rule group not found")
        return group

    def _put_v1(self, role: str, rest: list[str], body: Any) -> Any:
        self._need(role, "Admin")
        if not self._is_group(rest) or rest[2] not in self.folders:
            raise Refused(404, "folder not found")
        if self.requests[-1].headers.get("X-Disable-Provenance") != "true":
            raise Refused(400, "rules would be locked in Grafana's own pages")
        if body["interval"] <= 0 or body["interval"] % EVALUATE_S:
            raise Refused(400, f"interval should be a multiple of {EVALUATE_S}s")
        seen: set[str] = set()
        for rule in body["rules"]:
            self._check_rule(rule, rest[2], rest[4])
            if rule["uid"] in seen or rule["title"] in seen:
                raise Refused(400, "a rule with that uid or title already exists")
            seen |= {rule["uid"], rule["title"]}
        kept = copy.deepcopy(body)
        for number, rule in enumerate(kept["rules"], 1):
            rule.update(id=number, updated="2026-01-01T00:00:00Z", provenance="")
            if rule["isPaused"] is False:
                del rule["isPaused"]
        self.groups[rest[2], rest[4]] = kept
        return body

    @staticmethod
    def _is_group(rest: list[str]) -> bool:
        return rest[:2] == ["provisioning", "folder"] and rest[3:4] == ["rule-groups"]

    def _check_rule(self, rule: dict[str, Any], folder: str, group: str) -> None:
        problem = ""
        if unknown := set(rule) - RULE_KEYS:
            problem = f"unknown fields {sorted(unknown)}"
        elif not UID.fullmatch(rule["uid"]) or not 1 <= len(rule["title"]) <= 190:
            problem = "uid or title"
        elif (rule["folderUID"], rule["ruleGroup"]) != (folder, group):
            problem = "folder or group differ from those of the group"
        elif rule["condition"] not in {step["refId"] for step in rule["data"]}:
            problem = "condition names no query"
        elif rule["noDataState"] not in ("OK", "NoData", "Alerting", "KeepLast"):
            problem = "noDataState"
        elif rule["execErrState"] not in ("OK", "Error", "Alerting", "KeepLast"):
            problem = "execErrState"
        elif not DURATION.fullmatch(rule["for"]):
            problem = "for"
        elif not all(isinstance(one, str) for one in rule["annotations"].values()):
            problem = "annotations are texts"
        elif ("__dashboardUid__" in rule["annotations"]) != ("__panelId__" in rule["annotations"]):
            problem = "both annotations __dashboardUid__ and __panelId__ must be specified"
        for step in rule["data"]:
            window = step["relativeTimeRange"]
            computed = step["datasourceUid"] == "__expr__"
            if step["model"]["refId"] != step["refId"]:
                problem = "refId differs from that of the model"
            elif not computed and window["from"] <= window["to"]:
                problem = "invalid relative time range"
            elif not computed and step["datasourceUid"] not in self.datasources:
                problem = "failed to find datasource"
            elif computed and step["model"]["type"] not in ("reduce", "threshold", "math"):
                problem = "unknown expression"
        if problem:
            raise Refused(400, f"invalid alert rule: {problem}")
