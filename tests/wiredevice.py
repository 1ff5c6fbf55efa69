"""The device's end of the wire contract, and no more: what tests of the centre send through."""

import time
from collections.abc import Mapping

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from collected import EPOCH, data
from fleetmark_protocol import codec, topics
from fleetmark_protocol.messages import Ack
from fleetmark_protocol.records import Record
from servers import wait_for


class Device:
    """The device's end as the contract has it: sends until acknowledged."""

    def __init__(self, port: int, name: str = "pi") -> None:
        self.name = name
        self.acked: set[int] = set()
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._received
        self._client.on_connect = lambda *_: self._client.subscribe(self.topic("ack"), qos=1)
        self._client.reconnect_delay_set(1, 1)
        self._client.connect_async("127.0.0.1", port)
        self._client.loop_start()

    def topic(self, channel: str) -> str:
        return topics.topic("lab", self.name, channel)

    def _received(self, client, userdata, message) -> None:
        ack = codec.decode(Ack, message.payload)
        assert ack.epoch == EPOCH
        for first, last in ack.ranges:
            self.acked.update(range(first, last + 1))

    def say(self, channel: str, payload: bytes, retain: bool = False) -> None:
        wait_for(self._client.is_connected, what="the device's connection")
        self._client.publish(self.topic(channel), payload, qos=1, retain=retain).wait_for_publish(
            10
        )

    def send_all(
        self, records: Mapping[int, Record], timeout_s: float = 60, each: int = 50
    ) -> None:
        """Send what is not acknowledged, again and again, until all of it is."""
        deadline_s = time.monotonic() + timeout_s
        while not self.acked >= set(records):
            assert time.monotonic() < deadline_s, f"{len(set(records) - self.acked)} never acked"
            self.publish_all(records, each)
            for _ in range(20):
                if self.acked >= set(records):
                    return
                time.sleep(0.05)

    def publish_all(self, records: Mapping[int, Record], each: int = 50) -> None:
        """Send once what is not acknowledged."""
        waiting = [(seq, record) for seq, record in records.items() if seq not in self.acked]
        for start in range(0, len(waiting), each):
            if self._client.is_connected():
                self.publish(data(*waiting[start : start + each]))

    def publish(self, payload: bytes) -> None:
        """Send a data message and wait for nothing."""
        self._client.publish(self.topic("data"), payload, qos=1)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
