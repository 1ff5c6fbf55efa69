"""Fixtures shared by all tests: a real broker, real weights."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from engines import smollm2
from fleet import Fleet
from fleetmark_protocol import logs
from influxservers import Database, Influxd, Nginx, VictoriaMetrics
from servers import Mosquitto

# Many collectors run on this machine; a test that asks one over HTTP gives it a port of its own.
os.environ.setdefault("FLEETMARK_HTTP__LISTEN", "")

# A shell starts what is to run in the background deaf to Ctrl-C, and so would be all that is
# started here; some tests press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def every_log_line_is_written() -> None:
    """Undo what a command under test set logging to; a test reads the lines with `capsys`."""
    logs.configure("debug", "json")


@pytest.fixture(scope="session")
def model_file() -> Path:
    """SmolLM2-135M in Q4_1, real weights."""
    return smollm2()


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A running Mosquitto of this test's own."""
    broker = Mosquitto(tmp_path).start()
    yield broker
    broker.kill()


@pytest.fixture
def fleet(tmp_path: Path, mosquitto: Mosquitto) -> Iterator[Fleet]:
    """A fleet with a running broker and nothing else yet."""
    made = Fleet(tmp_path, mosquitto)
    yield made
    made.close()


@pytest.fixture(scope="session")
def influxd_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influxd]:
    """A running InfluxDB 1.x that all tests share; who kills or fills one starts its own."""
    server = Influxd(tmp_path_factory.mktemp("influxd")).start()
    yield server
    server.kill()


@pytest.fixture
def influxd(influxd_server: Influxd) -> Iterator[Database]:
    """An empty database of this test's own in the shared InfluxDB 1.x (`url`, `name`, `rows`)."""
    database = influxd_server.database()
    yield database
    database.drop()


@pytest.fixture(scope="session")
def influxd_v2_server(
    tmp_path_factory: pytest.TempPathFactory, influxd_server: Influxd
) -> Iterator[Nginx]:
    """The v2 write API, by nginx, in front of the shared InfluxDB 1.x; it calls itself 1.8.10."""
    server = Nginx(tmp_path_factory.mktemp("nginx"), influxd_server).start()
    yield server
    server.kill()


@pytest.fixture
def influxd_v2(influxd_v2_server: Nginx) -> Iterator[Database]:
    """An empty database of this test's own whose `url` leads through nginx's v2 API."""
    database = influxd_v2_server.database()
    yield database
    database.drop()


@pytest.fixture(scope="session")
def victoria_metrics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VictoriaMetrics]:
    """A running VictoriaMetrics that all tests share: tell yours apart by fleet or device."""
    server = VictoriaMetrics(tmp_path_factory.mktemp("victoria-metrics")).start()
    yield server
    server.kill()


@pytest.fixture
def new_children():
    """Return what lists the children of this process that the test has started.

    Others may be there: a server that all tests share, or one that nobody has waited for.
    """
    before = {child.pid for child in psutil.Process().children()}
    return lambda: [one for one in psutil.Process().children() if one.pid not in before]
