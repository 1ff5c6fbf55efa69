"""How fast one collector takes records from the broker into durable SQLite and acknowledges them.

The same messages (100 telemetry records each, from ten devices, QoS 1, through a real Mosquitto)
are received by a bare paho-mqtt subscriber, which only counts them, and by `fleetmark collect`,
which validates, writes, fsyncs and acknowledges. They take turns in one run; each side's clock
runs from the first byte sent to the last message received or record acknowledged. The publisher
writes prepared packets to a socket, so that it is never what is measured.

    python benchmarks/ingest.py [--messages 1500] [--rounds 5]
"""

import argparse
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from commands import Broker, fleetmark
from fleetmark_collector.sinks.sqlite import SqliteReader
from fleetmark_protocol import codec, topics
from fleetmark_protocol.messages import Ack
from fleetmark_protocol.records import RECORD, TelemetryRecord
from servers import wait_for

RECORDS_PER_MESSAGE = 100
DEVICES = 10
START_NS = 1_750_000_000_000_000_000

BARE = """
import sys, paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
port, expected, seen = int(sys.argv[1]), int(sys.argv[2]), 0
def received(client, userdata, message):
    global seen
    seen += 1
    if seen % expected == 0:
        client.publish("bench/done", b"", qos=1)
client = paho.Client(CallbackAPIVersion.VERSION2)
client.on_message = received
client.on_subscribe = lambda *_: print("ready", flush=True)
client.on_connect = lambda *_: client.subscribe("fleetmark/v1/+/+/data", qos=1)
client.connect("127.0.0.1", port)
client.loop_forever()
"""


def sample(number: int) -> TelemetryRecord:
    """Return what a four-core device without a battery of extra sensors sends each second."""
    return TelemetryRecord(
        time_ns=START_NS + number * 10**9,
        boot_id="0b0c7b0e-4a4c-4a53-9d0c-0d3f0f5a0003",
        cpu_percent=12.5 + number % 50,
        cpu_percent_per_core=(10.1, 12.2, 14.3, 13.4),
        load_1m=0.52,
        load_5m=0.41,
        cpu_freq_hz=2.4e9,
        temperature_c=51.3,
        mem_total_bytes=8_589_934_592,
        mem_available_bytes=5_123_456_789,
        mem_used_percent=40.4,
        swap_used_bytes=0,
        swap_in_bytes=0,
        disk_free_bytes=51_234_567_890,
        disk_read_bytes_per_s=0.0,
        disk_write_bytes_per_s=20480.0,
        net_rx_bytes_per_s=1234.5,
        net_tx_bytes_per_s=2345.6,
        agent_cpu_percent=0.4,
        agent_rss_bytes=34_567_890,
    )


def messages_of(messages: int, first_seq: int, epoch: str) -> Iterator[tuple[str, bytes]]:
    """Yield topic and payload of data messages, the devices in turns."""
    for number in range(messages):
        start = first_seq + number // DEVICES * RECORDS_PER_MESSAGE
        seqs = range(start, start + RECORDS_PER_MESSAGE)
        raw = ((seq, RECORD.dump_json(sample(seq), exclude_none=True)) for seq in seqs)
        topic = topics.topic("bench", f"d{number % DEVICES}", "data")
        yield topic, codec.encode_batch(epoch, raw)


def packets(messages: Iterable[tuple[str, bytes]]) -> bytes:
    """Return PUBLISH packets (QoS 1), one after another, ready to be written to the broker."""
    out = bytearray()
    for number, (name, payload) in enumerate(messages):
        topic = name.encode()
        body = len(topic).to_bytes(2) + topic + (number % 65535 + 1).to_bytes(2) + payload
        out.append(0x32)
        size = len(body)
        while size:
            out.append(size % 128 | (0x80 if size > 127 else 0))
            size //= 128
        out += body
    return bytes(out)


def send(port: int, blob: bytes) -> None:
    """Write the packets as one MQTT client, reading its confirmations away."""
    with socket.create_connection(("127.0.0.1", port)) as link:
        client_id = uuid.uuid4().hex[:20].encode()
        connect = b"\x00\x04MQTT\x04\x02\x00\x00" + len(client_id).to_bytes(2) + client_id
        link.sendall(b"\x10" + bytes([len(connect)]) + connect)
        link.recv(4)
        drain = threading.Thread(target=lambda: all(iter(lambda: link.recv(65536), b"")))
        drain.start()
        link.sendall(blob)
        link.shutdown(socket.SHUT_WR)
        drain.join()


class Watcher:
    """Counts the records that were acknowledged, and hears the bare subscriber's end."""

    def __init__(self, port: int) -> None:
        self.acked: dict[str, set[int]] = {}
        self.done = 0
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._received
        self._client.connect("127.0.0.1", port)
        self._client.subscribe([("fleetmark/v1/+/+/ack", 1), ("bench/done", 1)])
        self._client.loop_start()

    def _received(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        if message.topic == "bench/done":
            self.done += 1
            return
        ack = codec.decode(Ack, message.payload)
        for first, last in ack.ranges:
            self.acked.setdefault(message.topic, set()).update(range(first, last + 1))

    def count(self) -> int:
        return sum(len(seqs) for seqs in self.acked.values())

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def timed(port: int, blob: bytes, ended: Callable[[], bool]) -> float:
    sender = threading.Thread(target=send, args=(port, blob))
    start_s = time.perf_counter()
    sender.start()
    while not ended():
        time.sleep(0.002)
    took_s = time.perf_counter() - start_s
    sender.join()
    return took_s


@contextmanager
def bare_subscriber(port: int, messages: int) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-c", BARE, str(port), str(messages)], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def collector(directory: Path, port: int) -> Iterator[None]:
    command = fleetmark(
        *("collect", "--broker-port", port, "--data-dir", directory), log=directory / "log"
    )
    try:
        wait_for(lambda: "broker_connected" in command.output(), what="the collector")
        time.sleep(0.5)  # its subscriptions are on their way
        yield
    finally:
        command.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--messages", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    messages = options.messages // DEVICES * DEVICES
    records = messages * RECORDS_PER_MESSAGE
    epoch = str(uuid.uuid4())
    bare: list[float] = []
    ingest: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        broker = Broker(directory, embedded=False).start()
        watcher = Watcher(broker.port)
        try:
            for number in range(options.rounds):
                first_seq = number * records // DEVICES + 1
                blob = packets(messages_of(messages, first_seq, epoch))
                with bare_subscriber(broker.port, messages):
                    took_s = timed(broker.port, blob, lambda n=number: watcher.done > n)
                    bare.append(records / took_s)
                with collector(directory, broker.port):
                    wanted = (number + 1) * records
                    took_s = timed(broker.port, blob, lambda w=wanted: watcher.count() >= w)
                    ingest.append(records / took_s)
                print(f"round {number + 1}: bare {bare[-1]:,.0f}/s, ingest {ingest[-1]:,.0f}/s")
            reader = SqliteReader(directory / "store.db")
            stored = reader.counts()["telemetry"]
            reader.close()
            store_bytes = (directory / "store.db").stat().st_size
        finally:
            watcher.close()
            broker.kill()
    assert stored == options.rounds * records, f"{stored} rows of {options.rounds * records}"
    ratio = statistics.median(i / b for i, b in zip(ingest, bare, strict=True))
    print(
        "\n| machine | records | bytes each on the wire | bare subscriber, records/s "
        "| ingest, records/s | ratio | bytes each in the store |\n|---|---|---|---|---|---|---|"
    )
    print(
        f"| {platform.machine()}, Python {platform.python_version()} | {stored:,} "
        f"| {len(blob) / records:.0f} | {statistics.median(bare):,.0f} "
        f"| {statistics.median(ingest):,.0f} | {ratio:.3f} | {store_bytes / stored:.0f} |"
    )


if __name__ == "__main__":
    main()
