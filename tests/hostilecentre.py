"""A centre that assigns whatever it is told to, over a real broker, and hears what came of it."""

import json
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from fleetmark_protocol import codec, topics
from fleetmark_protocol.messages import Ack
from fleetmark_protocol.records import JobRecord, Record
from fleetmark_protocol.version import __version__
from servers import wait_for


class HostileCentre:
    """Keeps all records, and confirms them; use as a context."""

    def __init__(self, port: int, device: str, fleet: str = "default") -> None:
        self.records: list[Record] = []
        self._device = device
        self._fleet = fleet
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe(self._topic("data"), qos=1)
        self._client.on_message = self._received
        self._client.connect_async("127.0.0.1", port)

    def __enter__(self) -> "HostileCentre":
        self._client.loop_start()
        wait_for(self._client.is_connected, what="the centre's connection")
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def assign(self, job: dict[str, Any], desired: str = "run") -> None:
        """Publish an assignment as it is, whether it goes by the contract or not."""
        said = {"desired": desired, "job": job, "collector_version": __version__}
        self._publish("jobs", json.dumps(said).encode(), job["job_id"])

    def ended(self, job_id: str) -> JobRecord | None:
        """Return the record that ended a job."""
        for record in self.records:
            if record.kind == "job" and record.job_id == job_id and record.state.terminal:
                return record
        return None

    def wait_for_end(self, job_id: str, timeout_s: float = 60) -> JobRecord:
        """Wait for a job's end, and withdraw it."""
        wait_for(lambda: self.ended(job_id) is not None, timeout_s, f"the end of {job_id}")
        self._client.publish(self._topic("jobs", job_id), b"", qos=1, retain=True)
        found = self.ended(job_id)
        assert found is not None
        return found

    def _topic(self, channel: topics.Channel, job_id: str | None = None) -> str:
        return topics.topic(self._fleet, self._device, channel, job_id)

    def _publish(self, channel: topics.Channel, payload: bytes, job_id: str | None = None) -> None:
        told = self._client.publish(self._topic(channel, job_id), payload, qos=1, retain=True)
        told.wait_for_publish(10)

    def _received(self, client: paho.Client, _: object, message: paho.MQTTMessage) -> None:
        batch = codec.decode_batch(message.payload)
        self.records += [envelope.record for envelope in batch.records]
        ranges = codec.to_ranges(envelope.seq for envelope in batch.records)
        ack = Ack(epoch=batch.epoch, ranges=tuple(ranges), collector_version=__version__)
        client.publish(self._topic("ack"), codec.encode(ack), qos=1)
