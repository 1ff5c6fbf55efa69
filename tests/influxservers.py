"""Real time-series servers for tests: each in a directory of its own, on free loopback ports."""

import http.client
import itertools
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL, Signals
from typing import Any

from servers import free_port

INFLUXD = shutil.which("influxd") or "/usr/bin/influxd"
NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
VICTORIA_METRICS = shutil.which("victoria-metrics") or "/usr/bin/victoria-metrics"

TRIM_WAL = Path(__file__).parents[1] / "deploy" / "systemd" / "fleetmark-trim-wal"

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Answer:
    """What a server answered to one request."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    url: str,
    path: str,
    params: dict[str, str] | None = None,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    """Send one request, POST where there is a body; an error status is an answer too."""
    query = f"?{urllib.parse.urlencode(params)}" if params else ""
    request = urllib.request.Request(f"{url}{path}{query}", data=body, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return Answer(response.status, response.headers, response.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.headers, error.read())


class _Server:
    """A process that listens on one HTTP port; killed and started again on the same port."""

    def __init__(self, directory: Path, command: list[str], port: int, ready_path: str) -> None:
        self.directory = directory
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._command = command
        self._ready_path = ready_path
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.directory
            )
        deadline_s = time.monotonic() + 30
        while time.monotonic() < deadline_s and self._process.poll() is None:
            try:
                if not self._ready_path:
                    socket.create_connection(("127.0.0.1", self.port)).close()
                    return
                if ask(self.url, self._ready_path).status < 300:
                    return
            except OSError:
                pass
            time.sleep(0.02)
        self.end(SIGKILL)
        raise RuntimeError(f"{self._command[0]} does not answer: {self.log()[-2000:]}")

    def log(self) -> str:
        return (self.directory / "server.log").read_text("utf-8", "replace")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def signal(self, number: Signals) -> None:
        """Send it a signal: SIGSTOP makes it silent, SIGCONT goes on."""
        assert self._process is not None
        self._process.send_signal(number)

    def end(self, number: Signals) -> None:
        """Send it a signal and wait for its end."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None


class Influxd:
    """InfluxDB 1.x as Debian packages it.

    Args:
        directory: where it keeps everything; made if missing.
        auth: asks for user and password; `admin` / `secret` is made at the start.
        changes: settings of its file, "section.key" -> TOML value, such as
            `{"data.max-series-per-database": "100"}`.
        port: where it listens; None for any that is free.
    """

    def __init__(
        self,
        directory: Path,
        *,
        auth: bool = False,
        changes: dict[str, str] | None = None,
        port: int | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        port = port or free_port()
        self.auth = auth
        self._made_admin = False
        settings: dict[str, dict[str, str]] = {
            "": {"reporting-enabled": "false", "bind-address": f'"127.0.0.1:{free_port()}"'},
            "meta": {"dir": _toml(directory / "meta")},
            "data": {
                "dir": _toml(directory / "data"),
                "wal-dir": _toml(directory / "wal"),
                "query-log-enabled": "false",
            },
            "monitor": {"store-enabled": "false"},
            "http": {
                "bind-address": f'"127.0.0.1:{port}"',
                "auth-enabled": str(auth).lower(),
                "log-enabled": "false",
            },
        }
        for name, value in (changes or {}).items():
            section, _, key = name.rpartition(".")
            settings.setdefault(section, {})[key] = value
        text = ""
        for section, values in settings.items():
            text += f"[{section}]\n" if section else ""
            text += "".join(f"{key} = {value}\n" for key, value in values.items())
        config = directory / "influxdb.conf"
        config.write_text(text, "utf-8")
        self._server = _Server(directory, [INFLUXD, "-config", str(config)], port, "/ping")
        self.url = self._server.url
        self.port = port

    def start(self) -> "Influxd":
        """Start it, as the service of deploy/ does, and wait until it answers."""
        subprocess.run([TRIM_WAL, self._server.directory / "wal"], check=True)
        self._server.start()
        if self.auth and not self._made_admin:
            # The first user may be made without credentials, and must be an admin.
            answer = self.query("CREATE USER admin WITH PASSWORD 'secret' WITH ALL PRIVILEGES")
            assert "error" not in answer["results"][0], answer
            self._made_admin = True
        return self

    def kill(self) -> None:
        """Kill it (-9); started again it has what it said yes to."""
        self._server.end(SIGKILL)

    def end(self, number: Signals) -> None:
        """Send it a signal and wait for its end."""
        self._server.end(number)

    def signal(self, number: Signals) -> None:
        """Send it a signal: SIGSTOP makes it silent, SIGCONT goes on."""
        self._server.signal(number)

    def log(self) -> str:
        return self._server.log()

    @property
    def pid(self) -> int:
        return self._server.pid

    def headers(self) -> dict[str, str]:
        """Return what lets a test in where the server asks for a password."""
        return {"Authorization": "Basic YWRtaW46c2VjcmV0"} if self.auth else {}

    def query(self, text: str, database: str = "", **params: str) -> dict[str, Any]:
        """Run InfluxQL (also what changes things); return the answer as it came."""
        params = {"q": text, **({"db": database} if database else {}), **params}
        answer = ask(self.url, "/query", params, b"", self.headers())
        return dict(answer.json())

    def database(self, name: str = "") -> "Database":
        """Make a database nobody else uses."""
        name = name or f"test{next(_numbers)}"
        answer = self.query(f'CREATE DATABASE "{name}"')
        assert "error" not in answer["results"][0], answer
        return Database(self, self.url, name)


@dataclass(frozen=True)
class Database:
    """A database of a running server; `url` may lead there by another way (nginx)."""

    server: Influxd
    url: str
    name: str

    def query(self, text: str, **params: str) -> dict[str, Any]:
        """Run InfluxQL in this database; return the answer as it came."""
        return self.server.query(text, self.name, **params)

    def rows(self, text: str, **params: str) -> list[dict[str, Any]]:
        """Run one SELECT (or SHOW); return its rows, tags of GROUP BY among the columns."""
        result = self.query(text, **params)["results"][0]
        assert "error" not in result, result
        return [
            {**series.get("tags", {}), **dict(zip(series["columns"], row, strict=True))}
            for series in result.get("series", [])
            for row in series["values"]
        ]

    def count(self, measurement: str, column: str = "seq") -> int:
        """Return how many points of a measurement have a column."""
        rows = self.rows(f'SELECT count("{column}") AS n FROM "{measurement}"')
        return int(rows[0]["n"]) if rows else 0

    def drop(self) -> None:
        self.server.query(f'DROP DATABASE "{self.name}"')


class Nginx:
    """The v2 write API in front of a 1.x server: the mapping that InfluxDB 1.8 does inside.

    What it says of itself (`X-Influxdb-Version`, `/health`) is made up, so that the way through
    influxdb-client is taken; what is written goes into the real storage of the server behind.

    Args:
        directory: where it keeps everything; made if missing.
        behind: the server that stores.
        version: what it says it is, such as "1.8.10" or "v2.7.11"; "1.6.7" for nothing but TLS
            before the server itself.
        token: what `Authorization: Token ...` must be; empty: anything, or nothing, will do.
        certificate: file with the certificate to speak TLS with; goes with `key`.
        key: file with its key.
    """

    def __init__(
        self,
        directory: Path,
        behind: Influxd,
        version: str = "1.8.10",
        token: str = "",
        certificate: Path | None = None,
        key: Path | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        for name in ("body", "proxy", "fastcgi", "uwsgi", "scgi"):
            (directory / name).mkdir(exist_ok=True)
        port = free_port()
        tls = f"ssl_certificate {certificate}; ssl_certificate_key {key};" if key else ""
        config = directory / "nginx.conf"
        config.write_text(_nginx_config(directory, port, behind, version, token, tls), "utf-8")
        # One process and no workers: nothing is left behind when it is killed.
        command = [NGINX, "-p", str(directory), "-c", str(config), "-e", "stderr"]
        # With TLS it is not asked for its health, but for whether it listens.
        self._server = _Server(directory, command, port, "" if tls else "/health")
        self.behind = behind
        self.version = version
        self.token = token
        self.url = self._server.url.replace("http:", "https:") if tls else self._server.url
        self.port = port

    def start(self) -> "Nginx":
        """Start it and wait until it answers."""
        self._server.start()
        return self

    def kill(self) -> None:
        self._server.end(SIGKILL)

    def log(self) -> str:
        return self._server.log()

    def requests(self) -> list[str]:
        """Return method, address, status and length of each write so far, one a line."""
        file = self._server.directory / "access.log"
        return file.read_text("utf-8").splitlines() if file.exists() else []

    def database(self, name: str = "") -> Database:
        """Make a database behind it that nobody else uses."""
        made = self.behind.database(name)
        return Database(self.behind, self.url, made.name)


def _nginx_config(
    directory: Path, port: int, behind: Influxd, version: str, token: str, tls: str
) -> str:
    health = {
        "name": "influxdb",
        "message": "ready for queries and writes",
        "status": "pass",
        "checks": [],
        "version": version,
    }
    refused = '{"code":"unauthorized","message":"unauthorized access"}'
    guard = (
        f"if ($http_authorization != \"Token {token}\") {{ return 401 '{refused}'; }}"
        if token
        else ""
    )
    return f"""
daemon off;
master_process off;
pid {directory}/nginx.pid;
events {{ worker_connections 256; }}
http {{
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    client_max_body_size 64m;
    client_body_buffer_size 16m;
    log_format brief '$request_method $request_uri $status $request_length $http_content_encoding';
    access_log off;
    upstream storage {{ server 127.0.0.1:{behind.port}; keepalive 8; }}
    map $arg_bucket $db {{ ~^(?<d>[^/%]+) $d; }}
    map $arg_bucket $rp {{ default ""; ~^[^/%]+(/|%2F)(?<r>.+)$ $r; }}
    server {{
        listen 127.0.0.1:{port}{" ssl" if tls else ""};
        {tls}
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_hide_header X-Influxdb-Version;
        proxy_hide_header X-Influxdb-Build;
        add_header X-Influxdb-Version {version} always;
        add_header X-Influxdb-Build OSS always;
        location = /health {{
            default_type application/json;
            return 200 '{json.dumps(health)}';
        }}
        location = /ping {{ return 204; }}
        location = /api/v2/write {{
            access_log {directory}/access.log brief;
            default_type application/json;
            {guard}
            proxy_set_header Authorization "";
            proxy_pass http://storage/write?db=$db&rp=$rp&precision=n;
        }}
        location = /query {{
            default_type application/json;
            {guard}
            proxy_set_header Authorization "";
            proxy_pass http://storage/query;
        }}
        location = /write {{ proxy_pass http://storage; }}
        location / {{ return 404 '{{"code":"not found","message":"path not found"}}'; }}
    }}
}}
"""


@dataclass
class VictoriaMetrics:
    """A second writer of the v2 API that has nothing in common with InfluxDB's code.

    Points can be read a second or two after they were written, unlike with its defaults (30 s).
    """

    directory: Path
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        command = [
            VICTORIA_METRICS,
            f"-storageDataPath={self.directory / 'data'}",
            f"-httpListenAddr=127.0.0.1:{self.port}",
            "-retentionPeriod=100y",
            "-search.latencyOffset=0s",
            "-search.disableCache",
            "-memory.allowedBytes=256MB",
            "-loggerLevel=WARN",
        ]
        self._server = _Server(self.directory, command, self.port, "/health")
        self.url = self._server.url

    def start(self) -> "VictoriaMetrics":
        """Start it and wait until it answers."""
        self._server.start()
        return self

    def kill(self) -> None:
        self._server.end(SIGKILL)

    def log(self) -> str:
        return self._server.log()

    def series(self, selector: str) -> list[dict[str, Any]]:
        """Return all samples of the series a selector names: metric, values, timestamps (ms).

        Such as `telemetry_cpu_percent{device="pi-1"}`: a metric is measurement_field.
        """
        assert ask(self.url, "/internal/force_flush").status == 200
        answer = ask(self.url, "/api/v1/export", {"match[]": selector, "start": "0"})
        assert answer.status == 200, answer.body
        return [json.loads(line) for line in answer.body.splitlines()]


def _toml(path: Path) -> str:
    return json.dumps(str(path))
