"""Records what agent and collector of this version say to each other, for the tests of later ones.

Run it when a version is released: `nice .venv/bin/python tools/record_wire.py`. It needs mosquitto
and xllamacpp, takes about a minute, and writes `tests/fixtures/wire/VERSION/messages.jsonl`: each
line a message in the order of the broker, `{"topic": ..., "payload": ...}`, the payload as it was
on the wire. A real agent runs one job to its end and has one canceled, for a real collector. What
tells of the machine (its names, paths, hardware) is replaced by something that tells nothing.
"""

import json
import os
import re
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from fleet import Fleet  # noqa: E402 - of the tests
from fleetmark_protocol import topics  # noqa: E402
from fleetmark_protocol.version import __version__  # noqa: E402
from servers import Mosquitto, wait_for  # noqa: E402 - of the tests

DEVICE = "recorded"
KINDS = {"telemetry", "trial", "load", "job", "event"}
MAX_BYTES = 300_000
HARDWARE = {
    "hostname": "recorded",
    "kernel": "6.1.0",
    "cpu_model": "recorded CPU",
    "machine_id": "0" * 64,
}

Said = tuple[str, str]
"""Topic and payload."""


class Ear:
    """Hears everything on a broker."""

    def __init__(self, port: int) -> None:
        self._lock = threading.Lock()
        self._said: list[Said] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._heard
        self._client.on_connect = lambda client, *_: client.subscribe("fleetmark/#", qos=1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _heard(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        with self._lock:
            self._said.append((message.topic, message.payload.decode()))

    def said(self, channel: str) -> list[Said]:
        """Return what was said on a channel."""
        with self._lock:
            return [one for one in self._said if topics.parse(one[0]).channel == channel]

    def close(self) -> list[Said]:
        """Hear no more; return all that was said."""
        self._client.disconnect()
        self._client.loop_stop()
        return list(self._said)


def record(directory: Path) -> list[Said]:
    """Run broker, collector and agent, and return all that they said."""
    broker = Mosquitto(directory).start()
    ear, fleet = Ear(broker.port), Fleet(directory, broker)
    try:
        fleet.start_collector()
        fleet.start_agent(DEVICE, '[runner]\nallow_backends = ["xllamacpp"]\n')
        fleet.wait_for_devices(DEVICE)
        whole = fleet.submit(fleet.write_campaign(name="whole", repetitions=2))
        fleet.wait_for_end(whole)
        long = fleet.submit(fleet.write_campaign(name="long", repetitions=500))
        wait_for(lambda: fleet.stored_trials(long) > 0, 60, "a trial of the job to cancel")
        fleet.cli("campaign", "cancel", long)
        fleet.wait_for_end(long)
        # The last acks, and the agent's goodbye.
        time.sleep(3)
        fleet.kill(DEVICE, 15)
        time.sleep(1)
    finally:
        fleet.close()
        said = ear.close()
        broker.kill()
    return said


def neutral(said: Said, directory: Path) -> Said:
    """Return a message without what tells of this machine."""
    topic, payload = said
    if topics.parse(topic).channel == "inventory" and payload:
        inventory = json.loads(payload)
        inventory["hardware"].update(HARDWARE)
        if "time_zone" in inventory:
            inventory["time_zone"] = "UTC"
        payload = json.dumps(inventory, separators=(",", ":"), ensure_ascii=False)
    for place in (directory, ROOT, Path(sys.prefix), Path.home()):
        payload = payload.replace(str(place), "/opt/fleetmark")
    name = rf"\b{re.escape(socket.gethostname())}\b"
    return topic, re.sub(name, HARDWARE["hostname"], payload)


def check(said: list[Said]) -> None:
    """Let only a recording pass that is worth keeping.

    Raises:
        SystemExit: something is missing, or it is too large.
    """
    lines = [payload for topic, payload in said if topics.parse(topic).channel == "data"]
    kinds = {item["record"]["kind"] for line in lines for item in json.loads(line)["records"]}
    jobs = [json.loads(text) for topic, text in said if "/jobs/" in topic and text]
    desired = {one["desired"] for one in jobs}
    channels = {topics.parse(topic).channel for topic, _ in said}
    missing = (KINDS - kinds) | ({"run", "cancel"} - desired) | ({"ack", "status"} - channels)
    size = sum(len(payload) for _, payload in said)
    if missing or size > MAX_BYTES:
        raise SystemExit(f"not kept: missing {sorted(missing)}, {size} bytes")


def main() -> None:
    """Record, and write the fixture of this version."""
    os.environ.pop("FLEETMARK_DEVICE_ID", None)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        said = [neutral(one, directory) for one in record(directory)]
    check(said)
    file = ROOT / "tests" / "fixtures" / "wire" / __version__ / "messages.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.dumps({"topic": topic, "payload": text}) for topic, text in said]
    file.write_text("\n".join(rows) + "\n", "utf-8")
    print(f"{file.relative_to(ROOT)}: {len(rows)} messages, {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
