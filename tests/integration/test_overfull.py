"""A collector with too much to do misses nobody for good: what Mosquitto drops is asked for."""

import pytest

from collected import BOOT, data, telemetry
from fakes.fake_writer import FakeWriter
from fleetmark_collector.config import IngestSettings
from fleetmark_collector.culprits import Culprits
from fleetmark_collector.dead_letters import DeadLetters
from fleetmark_collector.devices import DeviceRegistry
from fleetmark_collector.ingest import Ingest
from fleetmark_collector.mqtt import Bus
from fleetmark_collector.reception import Reception
from fleetmark_protocol import codec
from fleetmark_protocol.messages import Status
from fleetmark_protocol.settings import BrokerSettings
from servers import wait_for

pytestmark = pytest.mark.integration

STATUS = "fleetmark/v1/lab/pi/status"
ONLINE = codec.encode(Status(online=True, boot_id=BOOT, agent_version="1", started_ns=1))
FLOOD = 60
"""Messages of 0.9 MB: more than sockets and the broker's small queue hold of them."""


@pytest.fixture
def mosquitto(mosquitto):
    with mosquitto._config.open("a") as config:
        config.write("max_inflight_bytes 1000000\nmax_queued_bytes 2000000\n")
    mosquitto.kill()
    return mosquitto.start()


def test_a_device_that_came_while_the_broker_dropped_is_had_once_the_store_is_back(
    mosquitto, tmp_path, monkeypatch
):
    monkeypatch.setattr("fleetmark_collector.inbox.RELIEVED_S", 0.5)
    settings = BrokerSettings(host="127.0.0.1", port=mosquitto.port)
    says, hears = (Bus(settings, name) for name in ("says", "hears"))
    registry = DeviceRegistry(tmp_path / "state.db")
    letters, culprits, store = DeadLetters(tmp_path / "dead.jsonl"), Culprits(), FakeWriter()
    few = IngestSettings(queue_messages=2, batch_records=1, batch_age_s=0.01)
    ingest = Ingest(few, store, letters, hears.publish, culprits=culprits)
    reception = Reception(
        registry,
        letters,
        culprits,
        lambda: hears.ask_again("fleetmark/v1/+/+/status"),
        ingest.relieved,
    )
    hears.subscribe("fleetmark/v1/+/+/status", reception.receive)
    hears.subscribe("fleetmark/v1/+/+/data", ingest.receive)

    def online():
        reception.look_after()
        return any(one.online for one in registry.list())

    try:
        store.gate.clear()
        ingest.start()
        says.start(), hears.start()
        wait_for(lambda: says.connected and hears.connected, what="connections")
        for number in range(FLOOD):
            whole = data((number + 1, telemetry(number + 1)))
            says.publish(
                "fleetmark/v1/lab/other/data", whole[:-1] + b',"more":"' + b"x" * 900_000 + b'"}'
            )
        says.publish(STATUS, ONLINE, retain=True)
        assert says.flush(60)
        store.gate.set()

        def drained():
            stats = ingest.stats()
            return stats.messages > 2 and stats.queue_messages == 0 and store.written

        wait_for(drained, what="all that had not been dropped")
        assert ingest.stats().messages < FLOOD, "the broker dropped some"
        wait_for(online, 60, "the status that was dropped")
    finally:
        store.gate.set()
        says.stop(), hears.stop()
        ingest.stop()
        registry.close()
