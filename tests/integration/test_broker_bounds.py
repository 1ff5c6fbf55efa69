"""What one enrolled device can take of the broker that all share; the deployment's Mosquitto."""

import socket
import ssl
import struct

import pytest

from deployed import COLLECTOR, Centre
from fleetmark_collector.mqtt import Bus
from servers import wait_for

pytestmark = pytest.mark.integration

FLEET = "fleetmark/v1/lab"
OWN = f"{FLEET}/pi-bad/status"
LARGE = bytes(900_000)
LARGE_MESSAGES = 300
BOUND_MB = 400
"""Without limits Mosquitto 2.0.11 takes 520 MB for so many that nobody reads, with them 270 MB."""


@pytest.fixture(scope="module")
def secrets(tmp_path_factory):
    centre = Centre(tmp_path_factory.mktemp("made"))
    assert centre.enroll("pi-bad", "pi-good").returncode == 0
    return centre.keep


@pytest.fixture
def centre(tmp_path, secrets):
    centre = Centre(tmp_path, secrets)
    yield centre
    centre.stop()


class Raw:
    """MQTT 3.1.1 by hand: a client library would read what it is sent."""

    def __init__(self, centre, user, client_id):
        context = ssl.create_default_context(cafile=str(centre.keep / "ca.crt"))
        plain = socket.create_connection(("localhost", centre.port), timeout=20)
        self.socket = context.wrap_socket(plain, server_hostname="localhost")
        secret = centre.password_file(user).read_text().strip()
        # A clean session, user and password; no keep-alive: it may be silent for ever.
        head = _text("MQTT") + bytes([4, 0xC2]) + struct.pack(">H", 0)
        try:
            self._send(0x10, head + _text(client_id) + _text(user) + _text(secret))
            assert self._answer() == 0x20
        except BaseException:
            self.close()
            raise

    def subscribe(self, topic, qos):
        self._send(0x82, struct.pack(">H", 1) + _text(topic) + bytes([qos]))
        assert self._answer() == 0x90

    def publish(self, topic, payload, retain=False):
        """Publish by QoS 1; return whether the broker says that it has it."""
        try:
            self._send(0x33 if retain else 0x32, _text(topic) + struct.pack(">H", 1) + payload)
            return self._answer() == 0x40
        except (OSError, IndexError):
            return False

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _send(self, kind, body):
        length, left = b"", len(body)
        while not length or left:
            left, digit = divmod(left, 128)
            length += bytes([digit | (128 if left else 0)])
        self.socket.sendall(bytes([kind]) + length + body)

    def _answer(self):
        return self.socket.recv(5)[0]


def _text(text):
    return struct.pack(">H", len(text)) + text.encode()


def can_say(centre, user, payload):
    """Whether the broker takes a message of one who comes now; full, it turns him away anywhere."""
    try:
        with Raw(centre, user, "again") as client:
            return client.publish(OWN, payload)
    except (AssertionError, IndexError, OSError):
        return False


def is_served(centre, device):
    """Whether a device is heard by the collector, and hears it."""
    listener, client = Bus(centre.settings(COLLECTOR), "looks"), Raw(centre, device, "served")
    got = []
    listener.subscribe(f"{FLEET}/{device}/data", lambda _topic, payload, _: got.append(payload))
    listener.start()
    try:
        wait_for(lambda: listener.connected, what="the collector")
        client.subscribe(f"{FLEET}/{device}/ack", 1)

        def heard():
            return client.publish(f"{FLEET}/{device}/data", b"x" * 5000) and bool(got)

        wait_for(heard, what="what the device says")
        listener.publish(f"{FLEET}/{device}/ack", b"acknowledged")
        return b"acknowledged" in client.socket.recv(1000)
    finally:
        listener.stop()
        client.close()


def test_who_does_not_read_its_own_words_does_not_fill_the_brokers_memory(centre):
    centre.start()
    deaf, speaks = Raw(centre, "pi-bad", "deaf"), Raw(centre, "pi-bad", "speaks")
    deaf.subscribe(OWN, 1)
    assert all(speaks.publish(OWN, LARGE) for _ in range(LARGE_MESSAGES))
    assert 100 < centre.memory_mb < BOUND_MB, "some wait, the others do not"
    assert is_served(centre, "pi-good")


@pytest.mark.parametrize("qos", [0, 1])
def test_at_the_limit_of_memory_who_asks_for_more_is_turned_away_and_others_are_served(centre, qos):
    # Not to the brim: who fills the rest with small messages leaves nothing for anybody.
    limit = "memory_limit 700000000\n"
    config = centre._config.read_text()
    assert limit in config
    centre._config.write_text(config.replace(limit, "memory_limit 250000000\n"))
    centre.start()
    deaf = [Raw(centre, "pi-bad", f"deaf{number}") for number in range(4)]
    for one in deaf:
        one.subscribe(OWN, qos)
    speaks = Raw(centre, "pi-bad", "speaks")
    taken = [speaks.publish(OWN, LARGE) for _ in range(LARGE_MESSAGES)]
    assert not taken[-1]
    assert (centre.runs, centre.memory_mb < 350) == (True, True)
    assert is_served(centre, "pi-good")
    for one in deaf:
        one.close()
    # With them goes what waited for them.
    wait_for(lambda: can_say(centre, "pi-bad", LARGE), what="room again")


def test_a_device_cannot_leave_retained_messages_in_fleets_that_are_not_its_own(centre):
    centre.start()
    for number in range(20):
        # Each on a connection of its own: Mosquitto ends it.
        Raw(centre, "pi-bad", "floods").publish(
            f"fleetmark/v1/fleet{number}/pi-bad/status", LARGE, retain=True
        )
    assert Raw(centre, "pi-bad", "lawful").publish(OWN, b"its own", retain=True)
    found = []
    listener = Bus(centre.settings(COLLECTOR), "looks")
    listener.subscribe("fleetmark/v1/+/pi-bad/status", lambda *message: found.append(message))
    listener.start()
    try:
        wait_for(lambda: found, what="what is retained")
        assert is_served(centre, "pi-good")
        assert found == [(OWN, b"its own", True)]
    finally:
        listener.stop()


def test_what_a_large_fleet_has_retained_reaches_the_collector_whole(centre):
    centre.start()
    devices, payload = 5000, b"{}".ljust(24_000)
    says, hears = (Bus(centre.settings(COLLECTOR), name) for name in ("says", "hears"))
    got = set()
    hears.subscribe(f"{FLEET}/+/status", lambda topic, *_: got.add(topic))
    try:
        says.start()
        wait_for(lambda: says.connected, what="the collector")
        for number in range(devices):
            says.publish(f"{FLEET}/pi-{number}/status", payload, retain=True)
        assert says.flush(120)
        hears.start()
        wait_for(lambda: len(got) == devices, 120, "all statuses")
    finally:
        says.stop()
        hears.stop()
