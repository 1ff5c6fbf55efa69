"""Fixtures shared by all tests: a real broker, real weights."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from engines import smollm2
from fleet import Fleet
from fleetmark_protocol import logs
from servers import Mosquitto


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


@pytest.fixture
def new_children():
    """Return what lists the children of this process that the test has started.

    Others may be there: a server that all tests share, or one that nobody has waited for.
    """
    before = {child.pid for child in psutil.Process().children()}
    return lambda: [one for one in psutil.Process().children() if one.pid not in before]
