"""Whatever bytes a broker sends, agent and collector hang up and come back again."""

import random
import uuid
from contextlib import ExitStack

import pytest

from fakes.fake_raw_server import FakeRawServer
from fleetmark_agent.config import AgentSettings
from fleetmark_agent.database import Database
from fleetmark_agent.inventory import hardware, make_inventory
from fleetmark_agent.link import Link
from fleetmark_agent.outbox import Outbox
from fleetmark_collector.mqtt import Bus
from fleetmark_protocol.messages import Status
from fleetmark_protocol.settings import BrokerSettings
from servers import wait_for

pytestmark = pytest.mark.integration

WELCOME = b"\x20\x02\x00\x00"
PACKETS = {
    "an empty PUBLISH": b"\x30\x00",
    "a PUBLISH cut within its topic": b"\x32\x03\x00\x05a",
    "a topic that is not UTF-8": b"\x32\x07\x00\x02\xff\xfe\x00\x01X",
    "a topic longer than its packet": b"\x30\x04\xff\xff\x00\x00",
    "a SUBACK of nothing": b"\x90\x00",
    "a PUBACK without a number": b"\x40\x01\x00",
    "a CONNACK within the conversation": b"\x20\x00",
    "a length that never ends": b"\x30\xff\xff\xff\xff\xff\x01",
    "a packet of no kind": b"\xf0\x00\x00\x00",
    "noise": random.Random(1).randbytes(4000),
}


def agent_link(directory, port: int) -> Link:
    settings = AgentSettings(
        device_id="pi", state_dir=directory, broker={"host": "127.0.0.1", "port": port}
    )
    boot = str(uuid.uuid4())
    link = Link(
        settings,
        Outbox(Database(settings.outbox_file), 10**6),
        Status(online=True, boot_id=boot, agent_version="1", started_ns=1),
        on_assignment=lambda _: None,
        on_refused=lambda _: None,
        on_withdrawn=lambda _: None,
        rng=random.Random(1),
    )
    link.start(
        make_inventory(
            settings=settings,
            boot_id=boot,
            time_ns=1,
            hardware=hardware(),
            backends=(),
            models=(),
            sensors=(),
            jobs=(),
        )
    )
    return link


@pytest.mark.parametrize("side", ["agent", "collector"])
def test_after_a_packet_that_is_none_a_connection_is_made_anew(tmp_path, side):
    """All at the same time, for each takes a second to be tried again."""
    with ExitStack() as ends:
        servers = {}
        for number, (name, packet) in enumerate(PACKETS.items()):
            server = servers[name] = ends.enter_context(FakeRawServer([WELCOME, packet], 0.2))
            if side == "agent":
                link = agent_link(tmp_path / str(number), server.port)
                ends.callback(link.stop, 0)
            else:
                bus = Bus(BrokerSettings(port=server.port), f"c{number}")
                bus.subscribe("fleetmark/v1/+/+/status", lambda *_: None)
                bus.start()
                ends.callback(bus.stop)
        for name, server in servers.items():
            wait_for(lambda: len(server.heard) >= 3, 40, f"another connection after {name}")  # noqa: B023
