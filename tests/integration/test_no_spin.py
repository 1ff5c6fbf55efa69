"""Whatever is wrong with the way to the broker: agent and collector keep trying, but rarely."""

import contextlib
import json
import random
import socket
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import paho.mqtt.client as paho
import pytest

from commands import listens
from fleetmark_agent.config import AgentSettings
from fleetmark_agent.database import Database
from fleetmark_agent.link import Link
from fleetmark_agent.outbox import Outbox
from fleetmark_collector.mqtt import LOST_AGAIN, Bus
from fleetmark_protocol.ids import new_uuid
from fleetmark_protocol.messages import Status
from fleetmark_protocol.settings import BrokerSettings
from fleetmark_protocol.version import __version__
from servers import MOSQUITTO, free_port, wait_for

pytestmark = pytest.mark.integration

LOOK_S = 8.0
MOST = 5
"""Attempts in `LOOK_S`: at the shortest waits the sixth would come after 0.5 + 1 + 2 + 4 + 8 s."""
DEVICE_TWICE = "again and again: another device of this name, or a wrong fleet? See `doctor`"
CPU_S = 4.0
"""What all of them together may use of a core in that time; one that spins uses it all."""


def hints(lines, event):
    """What the log advises, each time that something happened."""
    return [one["hint"] for one in map(json.loads, lines) if one["event"] == event]


@contextlib.contextmanager
def hangs_up():
    """Yield a port where each connection is accepted and closed at once."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    server.accept()[0].close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@contextlib.contextmanager
def broker(directory, *, anonymous):
    port = free_port()
    config = directory / f"{port}.conf"
    allowed = "true" if anonymous else "false"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous {allowed}\nuser root\n")
    process = subprocess.Popen([MOSQUITTO, "-c", config], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: listens(port), what="the broker")
        yield port
    finally:
        process.terminate()
        process.wait(20)


class Agent:
    """A link, as a device has it."""

    def __init__(self, directory, name, **where):
        directory.mkdir()
        settings = AgentSettings(device_id=name, state_dir=directory, broker=where)
        self.database = Database(settings.outbox_file)
        status = Status(online=True, boot_id=new_uuid(), agent_version=__version__, started_ns=1)
        nothing = [lambda _: None] * 3
        outbox = Outbox(self.database, 10**8)
        self.link = Link(settings, outbox, status, *nothing, random.Random(1))
        self.link.start(None)

    def stop(self):
        self.link.stop(0)
        self.database.close()


class Collector:
    def __init__(self, name, **where):
        self.bus = Bus(BrokerSettings(**where), name, random.Random(1))
        self.bus.start()

    def stop(self):
        self.bus.stop()


@pytest.fixture
def attempts(monkeypatch):
    """Counts connections by the name of the thread that makes them, which has the client's id."""
    counted = Counter()
    create = paho.socket.create_connection

    def counting(*args, **more):
        counted[threading.current_thread().name] += 1
        return create(*args, **more)

    monkeypatch.setattr(paho.socket, "create_connection", counting)
    return counted


def test_neither_agent_nor_collector_spins(tmp_path, attempts, capsys):
    with (
        hangs_up() as rude,
        broker(tmp_path, anonymous=False) as closed,
        broker(tmp_path, anonymous=True) as open_port,
    ):
        ways = {
            "refused": {"port": free_port()},
            "hangs-up": {"port": rude},
            "no-name": {"host": "nowhere.invalid", "tls": False},
            "password": {"port": closed},
        }
        begun_s, cpu_s = time.monotonic(), time.process_time()
        running = [Agent(tmp_path / name, name, **where) for name, where in ways.items()]
        running += [Collector(f"c-{name}", **where) for name, where in ways.items()]
        # Two of one name throw each other off the broker, in turn.
        running += [Agent(tmp_path / f"twin{n}", "twin", port=open_port) for n in range(2)]
        running += [Collector("c-twin", port=open_port) for _ in range(2)]
        try:
            time.sleep(max(0.0, begun_s + LOOK_S - time.monotonic()))
            cpu_s = time.process_time() - cpu_s
            found = {name.removeprefix("paho-mqtt-client-"): n for name, n in attempts.items()}
            lines = []

            def both_have_said_why():
                lines.extend(capsys.readouterr().err.splitlines())
                return DEVICE_TWICE in hints(lines, "disconnected") and LOST_AGAIN in hints(
                    lines, "broker_lost"
                )

            wait_for(both_have_said_why, 30, "word of a second device, and of a second collector")
        finally:
            with ThreadPoolExecutor(len(running)) as pool:
                list(pool.map(lambda one: one.stop(), running))
    (twin,) = (name for name in found if name.startswith("twin-"))
    twins = {name: found.pop(name) for name in (twin, "c-twin")}
    assert len(found) == 2 * len(ways)
    # They keep trying: but for a name server that takes its time, three times at least.
    assert all(number >= (1 if "no-name" in name else 3) for name, number in found.items()), found
    assert all(number <= MOST for number in found.values()), found
    assert all(2 < number <= 2 * MOST for number in twins.values()), twins
    assert cpu_s < CPU_S
    # The first time it may be the network.
    assert hints(lines, "disconnected")[0] == "tried again"
    assert hints(lines, "broker_lost")[0] == "trying to connect again"
