"""What fleetmark asks of a broker, asked of both that `fleetmark broker` can run."""

import signal
import socket
import subprocess
import threading
from functools import partial

import paho.mqtt.client as paho
import psutil
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from commands import Broker, fleetmark, listens
from fleetmark_collector.mqtt import Bus
from fleetmark_protocol.messages import MAX_PAYLOAD_BYTES
from fleetmark_protocol.settings import BrokerSettings
from servers import each_closed, free_port, wait_for

pytestmark = pytest.mark.integration


@pytest.fixture(params=[False, True], ids=["mosquitto", "amqtt"])
def embedded(request):
    return request.param


@pytest.fixture
def broker(tmp_path, embedded):
    broker = Broker(tmp_path, embedded=embedded).start()
    yield broker
    broker.kill()


class Client:
    """A plain MQTT client that remembers what it gets."""

    def __init__(self, port: int, topic_filter: str | None = None, will=None) -> None:
        self.got: list[tuple[str, bytes, bool]] = []
        self.ready = threading.Event()
        self.client = paho.Client(CallbackAPIVersion.VERSION2)
        if will is not None:
            self.client.will_set(*will, qos=1, retain=True)
        self.client.on_message = lambda c, u, m: self.got.append((m.topic, m.payload, m.retain))
        self.client.on_subscribe = lambda *_: self.ready.set()
        self.client.on_connect = lambda *_: (
            self.client.subscribe(topic_filter, qos=1) if topic_filter else self.ready.set()
        )
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert self.ready.wait(10)

    def say(self, topic: str, payload: bytes, retain: bool = False) -> None:
        self.client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(20)

    def vanish(self) -> None:
        """Lose the connection without a goodbye."""
        self.client.loop_stop()
        self.client.socket().shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def client(broker):
    with each_closed(partial(Client, broker.port)) as make:
        yield make


def test_it_says_which_broker_it_is_and_where(broker, embedded):
    wait_for(lambda: f"127.0.0.1:{broker.port}" in broker.command.output(), what="the first line")
    name = "embedded amqtt 0." if embedded else "mosquitto 2."
    assert name in broker.command.output()


def test_retained_messages_come_with_every_new_subscription(client):
    client().say("t/1", b"here", retain=True)
    for _ in range(2):
        listener = client("t/#")
        wait_for(lambda: listener.got == [("t/1", b"here", True)], what="the retained message")  # noqa: B023


def test_a_retained_message_is_replaced_by_the_next_and_cleared_by_an_empty_one(client):
    speaker = client()
    speaker.say("t/1", b"one", retain=True)
    speaker.say("t/1", b"two", retain=True)
    speaker.say("t/2", b"gone", retain=True)
    speaker.say("t/2", b"", retain=True)
    listener = client("t/#")
    speaker.say("t/end", b"")
    wait_for(lambda: any(topic == "t/end" for topic, _, _ in listener.got), what="the end")
    assert [got for got in listener.got if got[0] != "t/end"] == [("t/1", b"two", True)]


def test_clearing_reaches_those_who_listen_already(client):
    speaker, listener = client(), client("t/#")
    speaker.say("t/1", b"job", retain=True)
    speaker.say("t/1", b"", retain=True)
    wait_for(lambda: [g[1] for g in listener.got] == [b"job", b""], what="both messages")


def test_a_client_gets_nothing_it_has_not_subscribed_to(client):
    speaker = client()
    client("jobs/ann/#")
    speaker.say("jobs/ann/1", b"for ann alone", retain=True)
    bob = client("jobs/bob/#")
    speaker.say("jobs/bob/1", b"for bob")
    wait_for(lambda: bob.got != [], what="bob's message")
    assert [topic for topic, _, _ in bob.got] == ["jobs/bob/1"]


def test_a_client_that_vanishes_leaves_its_will_retained(client):
    listener = client("t/#")
    client(will=("t/status", b"offline")).vanish()
    wait_for(lambda: ("t/status", b"offline", False) in listener.got, what="the will, live")
    late = client("t/#")
    wait_for(lambda: late.got == [("t/status", b"offline", True)], what="the will, retained")


def test_a_client_that_says_goodbye_leaves_no_will(client):
    listener = client("t/#")
    leaver = client(will=("t/status", b"offline"))
    leaver.say("t/last", b"bye")
    leaver.close()
    client().say("t/end", b"")
    wait_for(lambda: any(topic == "t/end" for topic, _, _ in listener.got), what="the end")
    assert [topic for topic, _, _ in listener.got] == ["t/last", "t/end"]


def test_the_largest_lawful_message_passes(client):
    speaker, listener = client(), client("t/#")
    payload = b"x" * MAX_PAYLOAD_BYTES
    speaker.say("t/big", payload, retain=True)
    wait_for(lambda: [g[1] for g in listener.got] == [payload], what="the message")
    late = client("t/#")
    wait_for(lambda: [g[1] for g in late.got] == [payload], what="the retained message")


def test_many_messages_at_once_all_arrive_in_order(client):
    speaker, listener = client(), client("t/#")
    for number in range(2000):
        last = speaker.client.publish("t/n", str(number).encode(), qos=1)
    last.wait_for_publish(60)
    wait_for(lambda: len(listener.got) >= 2000, 60, what="all messages")
    assert [int(payload) for _, payload, _ in listener.got] == list(range(2000))


def test_many_retained_messages_come_with_one_subscription(client):
    speaker = client()
    for number in range(500):
        last = speaker.client.publish(f"t/{number}", b"x", qos=1, retain=True)
    last.wait_for_publish(60)
    listener = client("t/#")
    wait_for(lambda: len(listener.got) == 500, 60, what="500 retained messages")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_cleanly_under_its_clients_and_leaves_nothing(broker, client, number):
    client("t/#").say("t/1", b"x", retain=True)
    assert broker.command.end(number) == 0
    assert not listens(broker.port)
    assert "Traceback" not in broker.command.output()


def test_killed_it_leaves_nothing_behind(broker):
    children = psutil.Process(broker.command.pid).children(recursive=True)
    broker.command.kill()
    assert not listens(broker.port)
    assert children == []


def test_a_port_in_use_is_named_with_a_way_out(tmp_path, broker, embedded):
    flags = ["--embedded"] if embedded else []
    second = fleetmark(
        *("broker", "--port", broker.port, "--data-dir", tmp_path / "2", *flags),
        log=tmp_path / "second.log",
    )
    assert second.process.wait(30) == 1
    assert f"port {broker.port}" in second.output()
    assert "--port" in second.output()
    assert "Traceback" not in second.output()


def test_the_bus_waits_for_a_broker_that_comes_late_and_for_one_that_comes_back(tmp_path, embedded):
    broker = Broker(tmp_path, embedded=embedded)
    bus = Bus(BrokerSettings(port=broker.port), "test-bus")
    got: list[tuple[str, bytes]] = []
    connects: list[int] = []
    bus.subscribe("t/#", lambda topic, payload, retained: got.append((topic, payload)))
    bus.on_connect(lambda: connects.append(1))
    bus.start()
    bus.publish("t/lost", b"nobody is there: dropped, not queued")
    try:
        for number in (1, 2):
            broker.start()
            wait_for(lambda: len(connects) == number, 60, what="a connection")  # noqa: B023
            bus.publish("t/me", str(number).encode(), retain=False)
            wait_for(lambda: ("t/me", str(number).encode()) in got, what="the echo")  # noqa: B023
            assert bus.flush(10)
            broker.kill()
            wait_for(lambda: not bus.connected, what="the loss to be noticed")
            assert not bus.flush(0.1)
    finally:
        bus.stop()
        broker.kill()
    assert [topic for topic, _ in got] == ["t/me", "t/me"]


def test_the_bus_gets_again_what_is_retained_when_it_asks_and_hears_of_a_loss(tmp_path, embedded):
    broker = Broker(tmp_path, embedded=embedded)
    broker.start()
    bus = Bus(BrokerSettings(port=broker.port), "test-bus")
    got: list[tuple[str, bool]] = []
    losses: list[int] = []
    bus.subscribe("t/#", lambda topic, payload, retained: got.append((topic, retained)))
    bus.on_disconnect(lambda: losses.append(1))
    bus.ask_again("t/#")
    bus.start()
    try:
        wait_for(lambda: bus.connected, 60, what="a connection")
        bus.publish("t/me", b"x", retain=True)
        wait_for(lambda: got == [("t/me", False)], what="the echo")
        bus.ask_again("t/#")
        wait_for(lambda: got == [("t/me", False), ("t/me", True)], what="the same again")
        losses.clear()
        broker.kill()
        wait_for(lambda: losses, what="the loss to be told")
    finally:
        bus.stop()
        broker.kill()


@pytest.fixture
def guarded(tmp_path):
    """Start a Mosquitto with passwords; return its port and a way to connect as somebody."""
    passwords = tmp_path / "passwords"
    passwords.touch()
    for user in ("pi", "ec2", "fleetmark-collector"):
        subprocess.run(["mosquitto_passwd", "-b", passwords, user, f"secret of {user}"], check=True)
    port = free_port()
    broker = fleetmark(
        *("broker", "--port", port, "--data-dir", tmp_path, "--password-file", passwords),
        log=tmp_path / "log",
    )
    wait_for(lambda: listens(port), what="the broker")
    buses: list[Bus] = []

    def connect(user: str, password: str | None = None) -> tuple[Bus, list[str]]:
        secret = tmp_path / "secret"
        secret.write_text(f"{password or f'secret of {user}'}\n")
        bus = Bus(BrokerSettings(port=port, username=user, password_file=secret), f"as-{user}")
        heard: list[str] = []
        for fleet_filter in ("fleetmark/v1/+/+/status", "fleetmark/v1/+/+/jobs/+"):
            bus.subscribe(fleet_filter, lambda topic, *_: heard.append(topic))
        answered = threading.Event()
        bus.on_connect(answered.set)
        bus.start()
        buses.append(bus)
        wait_for(lambda: answered.is_set() or bus.trouble, what="an answer")
        return bus, heard

    yield connect
    for bus in buses:
        bus.stop()
    broker.kill()


def test_mosquitto_with_passwords_lets_nobody_else_in(guarded):
    right, _ = guarded("pi")
    wrong, _ = guarded("ec2", "a guess")
    assert right.connected
    assert not wrong.connected
    assert "refused" in wrong.trouble


def test_with_passwords_a_device_speaks_and_hears_under_its_own_id_only(guarded):
    centre, heard_by_centre = guarded("fleetmark-collector")
    device, heard_by_device = guarded("pi")
    device.publish("fleetmark/v1/lab/ec2/status", b"an impostor", retain=True)
    device.publish("fleetmark/v1/lab/pi/jobs/j", b"a job of its own making", retain=True)
    device.publish("fleetmark/v1/lab/pi/status", b"here", retain=True)
    centre.publish("fleetmark/v1/lab/ec2/jobs/1", b"not for pi", retain=True)
    centre.publish("fleetmark/v1/lab/pi/jobs/1", b"for pi", retain=True)
    wait_for(lambda: "fleetmark/v1/lab/pi/jobs/1" in heard_by_device, what="the device's job")
    wait_for(lambda: "fleetmark/v1/lab/pi/status" in heard_by_centre, what="the device's status")
    assert set(heard_by_device) == {"fleetmark/v1/lab/pi/status", "fleetmark/v1/lab/pi/jobs/1"}
    # What the centre itself says to devices it has no need to hear.
    assert set(heard_by_centre) == {"fleetmark/v1/lab/pi/status"}
