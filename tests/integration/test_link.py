"""The agent's end of the wire against a real Mosquitto."""

import json
import queue
import random
import time
import uuid

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from fleetmark_agent import parts
from fleetmark_agent.backends import registry
from fleetmark_agent.brokerclient import try_broker
from fleetmark_agent.config import AgentSettings
from fleetmark_agent.database import Database
from fleetmark_agent.gate import machine_lock
from fleetmark_agent.inventory import hardware, make_inventory
from fleetmark_agent.link import Link
from fleetmark_agent.outbox import Outbox
from fleetmark_protocol import codec, topics
from fleetmark_protocol.errors import StoreUnavailable
from fleetmark_protocol.jobs import JobState
from fleetmark_protocol.messages import Ack, Assignment, Inventory, Status
from fleetmark_protocol.records import EventRecord
from fleetmark_protocol.version import __version__
from servers import wait_for

pytestmark = pytest.mark.integration


class Centre:
    """A bare MQTT client at the other end; it acknowledges only when a test says so."""

    def __init__(self, port, device):
        self.data = queue.Queue()
        self.status = queue.Queue()
        self.inventory = queue.Queue()
        self._device = device
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._on_message
        self._client.on_connect = lambda *_: self._client.subscribe("fleetmark/v1/+/+/+", 1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _on_message(self, _client, _data, message):
        channel = topics.parse(message.topic).channel
        if channel != "ack":
            getattr(self, channel).put(message.payload)

    def publish(self, channel, payload, job_id=None, retain=False):
        topic = topics.topic("default", self._device, channel, job_id)
        self._client.publish(topic, payload, 1, retain).wait_for_publish(5)

    def next_batch(self, timeout_s=30):
        return codec.decode_batch(self.data.get(timeout=timeout_s))

    def ack(self, batch):
        ranges = codec.to_ranges([item.seq for item in batch.records])
        said = Ack(epoch=batch.epoch, ranges=ranges, collector_version=__version__)
        self.publish("ack", codec.encode(said))

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


class Agent:
    """Outbox and link of one device."""

    def __init__(self, directory, port):
        self.settings = AgentSettings(
            device_id="d1", state_dir=directory, broker={"host": "127.0.0.1", "port": port}
        )
        self.outbox = Outbox(Database(self.settings.outbox_file), 10**8)
        self.boot_id = str(uuid.uuid4())
        self.assigned = queue.Queue()
        self.refused = queue.Queue()
        self.withdrawn = queue.Queue()
        status = Status(online=True, boot_id=self.boot_id, agent_version="1", started_ns=1)
        self.link = Link(
            self.settings,
            self.outbox,
            status,
            self.assigned.put,
            self.refused.put,
            self.withdrawn.put,
            random.Random(1),
        )

    def inventory(self):
        return make_inventory(
            settings=self.settings,
            boot_id=self.boot_id,
            time_ns=1,
            hardware=hardware(),
            backends=(),
            models=(),
            sensors=(),
            jobs=(),
        )

    def start(self):
        self.link.start(self.inventory())
        return self

    def put(self, count=1):
        return [
            self.outbox.append(EventRecord(time_ns=1, severity="info", code="c", message="m"))
            for _ in range(count)
        ]


@pytest.fixture
def agent(tmp_path, mosquitto):
    made = Agent(tmp_path / "state", mosquitto.port)
    yield made
    made.link.stop(drain_s=0)


@pytest.fixture
def centre(mosquitto):
    made = Centre(mosquitto.port, "d1")
    yield made
    made.close()


def test_birth_and_inventory_are_retained_and_a_late_comer_sees_them(agent, mosquitto):
    agent.start()
    wait_for(lambda: agent.link.connected)
    late = Centre(mosquitto.port, "d1")
    status = codec.decode(Status, late.status.get(timeout=10))
    assert (status.online, status.boot_id) == (True, agent.boot_id)
    assert json.loads(late.inventory.get(timeout=10))["boot_id"] == agent.boot_id
    late.close()


def test_a_clean_stop_says_offline_with_the_same_boot_id(agent, centre):
    agent.start()
    assert codec.decode(Status, centre.status.get(timeout=10)).online
    agent.link.stop()
    last = codec.decode(Status, centre.status.get(timeout=10))
    assert (last.online, last.boot_id) == (False, agent.boot_id)


def test_a_will_that_comes_after_the_birth_is_answered_with_another_birth(agent, centre):
    agent.start()
    assert codec.decode(Status, centre.status.get(timeout=10)).online
    stale = Status(online=False, boot_id=agent.boot_id, agent_version="1", started_ns=1)
    centre.publish("status", codec.encode(stale), retain=True)
    assert not codec.decode(Status, centre.status.get(timeout=10)).online
    assert codec.decode(Status, centre.status.get(timeout=10)).online


def test_a_record_leaves_the_outbox_only_when_its_ack_comes(agent, centre):
    agent.start()
    wait_for(lambda: agent.link.connected)
    seqs = agent.put(3)
    got = []
    while len(got) < 3:
        batch = centre.next_batch()
        got += [item.seq for item in batch.records]
        time.sleep(0.2)
        assert agent.outbox.backlog().records >= len(seqs) - len(got) + len(batch.records)
        centre.ack(batch)
    wait_for(lambda: agent.outbox.backlog().records == 0)


def test_an_ack_of_another_epoch_or_garbage_frees_nothing_and_breaks_nothing(agent, centre):
    agent.start()
    agent.put(2)
    batch = centre.next_batch()
    other = {"epoch": str(uuid.uuid4()), "ranges": [(1, 10**6)]}
    centre.publish("ack", codec.encode(Ack(**other, collector_version=__version__)))
    centre.publish("ack", b"\xff not json")
    centre.publish("ack", b'{"epoch": 1}')
    time.sleep(0.5)
    assert agent.outbox.backlog().records == 2
    centre.ack(batch)
    wait_for(lambda: agent.outbox.backlog().records < 2)


def test_what_is_not_acknowledged_is_sent_again_and_again(agent, centre):
    agent.start()
    (seq,) = agent.put()
    times = []
    for _ in range(3):
        assert [item.seq for item in centre.next_batch().records] == [seq]
        times.append(time.monotonic())
    assert times[2] - times[1] > times[1] - times[0] > 2


def test_after_a_broker_restart_everything_is_sent_again(agent, centre, mosquitto):
    agent.start()
    (seq,) = agent.put()
    centre.next_batch()
    mosquitto.kill()
    wait_for(lambda: not agent.link.connected)
    (later,) = agent.put()
    mosquitto.start()
    seen = set()
    while seen != {seq, later}:
        batch = centre.next_batch()
        seen |= {item.seq for item in batch.records}
        centre.ack(batch)
    wait_for(lambda: agent.outbox.backlog().records == 0)


def test_nothing_is_sent_while_a_timed_window_is_held(agent, centre):
    agent.start()
    wait_for(lambda: agent.link.connected)
    with agent.link.hold():
        agent.put(5)
        with pytest.raises(queue.Empty):
            centre.next_batch(timeout_s=3)
    assert centre.next_batch().records


def test_a_large_backlog_is_delivered_in_windows(agent, centre):
    seqs = set(agent.put(3000))
    agent.start()
    seen = set()
    while seen != seqs:
        batch = centre.next_batch()
        assert len(batch.records) <= 200
        seen |= {item.seq for item in batch.records}
        centre.ack(batch)
    wait_for(lambda: agent.outbox.backlog().records == 0)


def assignment(job_id="c.d1.000"):
    return Assignment.model_validate(
        {
            "desired": "run",
            "collector_version": __version__,
            "job": {
                "job_id": job_id,
                "campaign_id": "c",
                "backend": "xllamacpp",
                "model": {"name": "m", "ref": "path:m.gguf"},
                "workloads": [{"name": "w", "kind": "single", "prompts": ["p"]}],
            },
        }
    )


def test_assignments_come_also_after_the_fact_and_can_be_withdrawn(agent, centre):
    centre.publish("jobs", codec.encode(assignment()), "c.d1.000", retain=True)
    agent.start()
    assert agent.assigned.get(timeout=10).job.job_id == "c.d1.000"
    centre.publish("jobs", b"", "c.d1.000", retain=True)
    assert agent.withdrawn.get(timeout=10) == "c.d1.000"


def test_an_assignment_under_another_jobs_topic_is_refused(agent, centre):
    agent.start()
    wait_for(lambda: agent.link.connected)
    centre.publish("jobs", codec.encode(assignment("c.d1.999")), "c.d1.000")
    centre.publish("jobs", b"[1, 2", "c.d1.001")
    centre.publish("jobs", codec.encode(assignment("c.d1.002")), "c.d1.002")
    assert agent.assigned.get(timeout=10).job.job_id == "c.d1.002"
    assert agent.assigned.empty()


def test_an_assignment_to_another_device_is_refused_whatever_the_broker_hands_us(agent):
    message = mqtt.MQTTMessage(topic=b"fleetmark/v1/default/d2/jobs/c.d1.000")
    message.payload = codec.encode(assignment())
    agent.link._received(None, None, message)
    message = mqtt.MQTTMessage(topic=b"fleetmark/v1/other/d1/jobs/c.d1.000")
    message.payload = codec.encode(assignment())
    agent.link._received(None, None, message)
    assert agent.assigned.empty()
    message = mqtt.MQTTMessage(topic=b"fleetmark/v1/default/d1/jobs/c.d1.000")
    message.payload = codec.encode(assignment())
    agent.link._received(None, None, message)
    assert agent.assigned.get(timeout=1).job.job_id == "c.d1.000"


def test_the_doctor_tells_a_broker_that_takes_us_from_one_that_is_not_there(agent, mosquitto):
    try_broker(agent.settings)
    mosquitto.kill()
    with pytest.raises(StoreUnavailable, match="refused"):
        try_broker(agent.settings)


def test_a_job_that_waits_for_the_machine_is_listed_without_a_look_at_the_engines(
    tmp_path, mosquitto, centre, monkeypatch
):
    probes, probe = [], registry.probe
    monkeypatch.setattr(registry, "probe", lambda *given: probes.append(1) or probe(*given))
    settings = AgentSettings(
        device_id="d1",
        state_dir=tmp_path / "state",
        broker={"host": "127.0.0.1", "port": mosquitto.port},
        runner={"lock_file": tmp_path / "lock"},
    )
    with machine_lock(tmp_path / "lock", lambda: False, lambda: None):
        running = parts.start(settings)
        try:
            assert codec.decode(Inventory, centre.inventory.get(timeout=30)).jobs == ()
            centre.publish("jobs", codec.encode(assignment()), "c.d1.000")
            (known,) = codec.decode(Inventory, centre.inventory.get(timeout=30)).jobs
            assert (known.job_id, known.state) == ("c.d1.000", JobState.QUEUED)
            assert len(probes) == 1
        finally:
            running.stop()
