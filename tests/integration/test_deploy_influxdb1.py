"""An InfluxDB 1.x as deploy/ sets it up: a real influxd with the drop-in's variables."""

import base64
import json
import os
import re
import subprocess

import psutil
import pytest

from commands import fleetmark
from deployed import DEPLOY, Centre, setup_centre
from fleetmark_collector.config import load_settings
from fleetmark_collector.sinks.stores import open_reader
from influxservers import INFLUXD, ask
from servers import free_port, wait_for

pytestmark = pytest.mark.integration

DROP_IN = DEPLOY / "systemd" / "influxdb.service.d" / "fleetmark.conf"


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


class Influxdb:
    """influxd with Debian's defaults, the drop-in's variables, and places of a test's own."""

    def __init__(self, directory, keep, **more: str) -> None:
        self.keep = keep
        self.directory = directory
        self.port, self.backup_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._more = more

    def environment(self) -> dict[str, str]:
        text = DROP_IN.read_text("utf-8")
        for theirs, ours in ((":8086", f":{self.port}"), (":8088", f":{self.backup_port}")):
            assert f"127.0.0.1{theirs}\n" in text
            text = text.replace(f"127.0.0.1{theirs}\n", f"127.0.0.1{ours}\n")
        given = dict(re.findall(r"^Environment=(\w+)=(.*)$", text, re.MULTILINE))
        places = {
            "INFLUXDB_META_DIR": "meta",
            "INFLUXDB_DATA_DIR": "data",
            "INFLUXDB_DATA_WAL_DIR": "wal",
        }
        return {**given, **{k: f"{self.directory}/{v}" for k, v in places.items()}, **self._more}

    def start(self) -> "Influxdb":
        self.directory.mkdir(exist_ok=True)
        config = self.directory / "influxdb.conf"
        config.write_text("reporting-enabled = false\n", "ascii")
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [INFLUXD, "-config", config],
                env={**os.environ, **self.environment()},
                stdout=log,
                stderr=log,
            )
        wait_for(self._answers, what="influxd")
        return self

    def _answers(self) -> bool:
        ports = {c.laddr.port for c in psutil.net_connections() if c.status == "LISTEN"}
        return {self.port, self.backup_port} <= ports

    def listens_on(self) -> set[str]:
        assert self._process is not None
        found = psutil.Process(self._process.pid).net_connections()
        return {c.laddr.ip for c in found if c.status == "LISTEN"}

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None

    def as_user(self, user: str):
        name = {"fleetmark": "influxdb-password", "grafana": "grafana-influxdb-password"}[user]
        password = (self.keep / name).read_text("ascii").strip()

        def run(query: str, **params: str):
            answer = ask(self.url, "/query", {"q": query, **params}, b"", basic(user, password))
            return answer.status, answer.json()

        return run

    def write(self, user: str, line: bytes) -> int:
        name = {"fleetmark": "influxdb-password", "grafana": "grafana-influxdb-password"}[user]
        password = (self.keep / name).read_text("ascii").strip()
        headers = basic(user, password)
        return ask(self.url, "/write", {"db": "fleetmark"}, line, headers).status

    def setup(self) -> subprocess.CompletedProcess[str]:
        return setup_centre(self.keep, "influxdb1", "--influxdb-url", self.url)

    def tool(self, *args: object) -> subprocess.CompletedProcess[str]:
        command = [INFLUXD, args[0], "-portable", "-host", f"127.0.0.1:{self.backup_port}"]
        return subprocess.run(
            [*command, *map(str, args[1:])], capture_output=True, text=True, timeout=60
        )


@pytest.fixture
def influxdb(tmp_path):
    keep = tmp_path / "secrets"
    assert setup_centre(keep, "init", "centre.example").returncode == 0
    server = Influxdb(tmp_path / "influxdb", keep).start()
    yield server
    server.stop()


def test_it_listens_on_loopback_alone(influxdb):
    assert influxdb.listens_on() == {"127.0.0.1"}


def test_without_a_password_it_answers_nobody(influxdb):
    assert influxdb.setup().returncode == 0
    assert ask(influxdb.url, "/query", {"q": "SHOW DATABASES"}, b"").status == 401
    assert ask(influxdb.url, "/write", {"db": "fleetmark"}, b"m f=1").status == 401
    wrong = basic("fleetmark", "a guess")
    assert ask(influxdb.url, "/query", {"q": "SHOW DATABASES"}, b"", wrong).status == 401


def test_the_collectors_user_may_write_and_grafanas_may_only_read(influxdb):
    assert influxdb.setup().returncode == 0
    assert influxdb.write("fleetmark", b"m f=1 1") == 204
    assert influxdb.write("grafana", b"m f=2 2") == 403
    _, answer = influxdb.as_user("grafana")("SELECT * FROM m", db="fleetmark")
    assert answer["results"][0]["series"][0]["values"] == [["1970-01-01T00:00:00.000000001Z", 1]]
    for query in ("DROP DATABASE fleetmark", "CREATE DATABASE other", "DROP MEASUREMENT m"):
        _, answer = influxdb.as_user("grafana")(query, db="fleetmark")
        assert "error" in json.dumps(answer), query
    assert influxdb.as_user("fleetmark")("SELECT * FROM m", db="fleetmark")[1]["results"][0][
        "series"
    ]


def test_grafana_is_told_where_to_read_and_with_which_password(influxdb):
    assert influxdb.setup().returncode == 0
    file = influxdb.keep / "grafana.env"
    assert file.stat().st_mode & 0o777 == 0o600
    told = dict(line.split("=", 1) for line in file.read_text("ascii").splitlines())
    assert told["INFLUXDB_URL"] == influxdb.url
    password = basic(told["INFLUXDB_USERNAME"], told["INFLUXDB_PASSWORD"])
    query = {"q": "SHOW MEASUREMENTS", "db": told["INFLUXDB_DATABASE"]}
    assert ask(influxdb.url, "/query", query, b"", password).status == 200
    assert told["GF_SECURITY_ADMIN_PASSWORD"]


def test_users_are_made_once_and_again_without_harm(influxdb):
    for _ in range(2):
        done = influxdb.setup()
        assert done.returncode == 0, done.stderr
    for name in ("influxdb-password", "grafana-influxdb-password"):
        assert (influxdb.keep / name).read_text().strip() not in done.stderr


def test_another_password_than_the_servers_is_said(influxdb):
    assert influxdb.setup().returncode == 0
    (influxdb.keep / "influxdb-password").write_text("0" * 64)
    done = influxdb.setup()
    assert done.returncode == 2
    assert "another password" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_is_not_there_is_said(influxdb):
    influxdb.stop()
    done = influxdb.setup()
    assert done.returncode == 2
    assert "refused" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_portable_backup_brings_everything_back_into_an_empty_server(influxdb, tmp_path):
    assert influxdb.setup().returncode == 0
    lines = b"\n".join(b'telemetry,device=pi cpu=%d,text="x" %d' % (n, n + 1) for n in range(500))
    assert influxdb.write("fleetmark", lines) == 204
    done = influxdb.tool("backup", "-database", "fleetmark", tmp_path / "copy")
    assert done.returncode == 0, done.stderr
    assert influxdb.write("fleetmark", b"telemetry,device=pi cpu=1 600") == 204, "it went on"

    new = Influxdb(tmp_path / "new", influxdb.keep).start()
    try:
        done = new.tool("restore", "-database", "fleetmark", tmp_path / "copy")
        assert done.returncode == 0, done.stderr
        # Users are no part of it: the script makes them again, with the passwords it has kept.
        assert new.setup().returncode == 0
        query = "SELECT count(cpu), count(text), sum(cpu) FROM telemetry"
        _, answer = new.as_user("grafana")(query, db="fleetmark")
        assert answer["results"][0]["series"][0]["values"][0][1:] == [500, 500, sum(range(500))]
    finally:
        new.stop()


def test_a_restore_over_a_database_that_is_there_is_refused(influxdb, tmp_path):
    assert influxdb.setup().returncode == 0
    assert influxdb.write("fleetmark", b"m f=1 1") == 204
    assert influxdb.tool("backup", "-database", "fleetmark", tmp_path / "copy").returncode == 0
    done = influxdb.tool("restore", "-database", "fleetmark", tmp_path / "copy")
    assert done.returncode != 0
    assert "already exist" in done.stderr + done.stdout


def test_a_collector_writes_over_tls_to_a_server_with_the_scripts_certificate(tmp_path):
    """As in the compose project, where the database is another host: https and our own CA."""
    broker = Centre(tmp_path)
    assert broker.enroll("pi-1").returncode == 0
    broker.start()
    server = Influxdb(
        tmp_path / "influxdb",
        broker.keep,
        INFLUXDB_HTTP_HTTPS_ENABLED="true",
        INFLUXDB_HTTP_HTTPS_CERTIFICATE=str(broker.keep / "influxdb/server.crt"),
        INFLUXDB_HTTP_HTTPS_PRIVATE_KEY=str(broker.keep / "influxdb/server.key"),
        INFLUXDB_HTTP_AUTH_ENABLED="false",
    ).start()
    config = broker.collector_config(
        tmp_path,
        f"[store]\nkind = 'influxdb'\nurl = 'https://localhost:{server.port}'\n"
        f"ca_file = '{broker.keep}/ca.crt'\n",
    )
    made = fleetmark("store", "init", "--config", config, log=tmp_path / "init.log")
    assert made.process.wait(60) == 0, made.output()
    collector = broker.start_collector(config)
    agent = broker.start_agent("pi-1", tmp_path)
    reader = open_reader(load_settings(config))
    try:
        wait_for(lambda: reader.counts().get("telemetry", 0) > 3, 40, "samples in the database")
    except AssertionError as error:
        raise AssertionError(collector.output() + agent.output()) from error
    finally:
        reader.close()
        agent.end()
        collector.end()
        server.stop()
        broker.stop()
