"""A broker that breaks the rules of MQTT is left, and tried again: nobody goes deaf of it."""

import contextlib
import random
import socket
import threading

import pytest

from fleetmark_agent.config import AgentSettings
from fleetmark_agent.database import Database
from fleetmark_agent.link import Link
from fleetmark_agent.outbox import Outbox
from fleetmark_collector.mqtt import Bus
from fleetmark_protocol.ids import new_uuid
from fleetmark_protocol.messages import Status
from fleetmark_protocol.settings import BrokerSettings
from fleetmark_protocol.version import __version__
from servers import wait_for

pytestmark = pytest.mark.integration

CONNACK = b"\x20\x02\x00\x00"
SUBACK_TOO_SHORT_FOR_ITS_ID = b"\x90\x01\x00"


@pytest.fixture
def broker():
    """Takes whoever comes, sends the first one nonsense, and leaves the others in peace."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted = []

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    accepted.append(client)
                    client.recv(65536)
                    first = len(accepted) == 1
                    nonsense = SUBACK_TOO_SHORT_FOR_ITS_ID if first else b""
                    client.sendall(CONNACK + nonsense)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], accepted
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        for client in accepted:
            client.close()


def test_the_agent_hears_again(broker, tmp_path):
    settings = AgentSettings(device_id="d", state_dir=tmp_path, broker={"port": broker[0]})
    database = Database(settings.outbox_file)
    status = Status(online=True, boot_id=new_uuid(), agent_version=__version__, started_ns=1)
    nothing = [lambda _: None] * 3
    link = Link(settings, Outbox(database, 10**8), status, *nothing, random.Random(1))
    link.start(None)
    try:
        wait_for(lambda: len(broker[1]) >= 2, what="another connection")
        wait_for(lambda: link.connected, what="the broker takes it")
    finally:
        link.stop(0)
        database.close()


def test_the_collector_hears_again(broker):
    bus = Bus(BrokerSettings(port=broker[0]), "c", random.Random(1))
    bus.start()
    try:
        wait_for(lambda: len(broker[1]) >= 2, what="another connection")
        wait_for(lambda: bus.connected, what="the broker takes it")
    finally:
        bus.stop()
