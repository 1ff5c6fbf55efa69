"""Every topic x every user x saying and hearing, at a real Mosquitto with the rules we make."""

import itertools
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from deployed import COLLECTOR, Centre
from fleetmark_agent.brokerclient import client_id, make_client
from fleetmark_agent.config import AgentSettings
from fleetmark_protocol import topics
from fleetmark_protocol.settings import BrokerSettings
from servers import each_closed, wait_for

pytestmark = pytest.mark.integration

SIMULATOR = "fleetmark-simulator"
OBSERVER = "observer"
"""A user of the test's own who may say and hear everything."""

USERS = ("pi-1", "pi-3", COLLECTOR, SIMULATOR)
"""A device with a password, one with a certificate, the centre, and who plays devices."""

PLACES = [
    *itertools.product(("lab", "field"), ("pi-1", "pi-2", "pi-3")),
    *itertools.product(("simulated",), ("pi-1", SIMULATOR)),
]
OURS = [
    topics.topic(fleet, device, channel, "c1.pi-1.001" if channel == "jobs" else None)
    for fleet, device in PLACES
    for channel in topics.CHANNELS
]
ODD = [
    *("fleetmark/v1/lab/pi-1", "fleetmark/v1/lab/pi-1/jobs", "fleetmark/v1/lab/pi-1/jobs/a/b"),
    *("fleetmark/v1/lab/pi-1/status/x", "fleetmark/v1/lab/pi-1/other", "fleetmark/v1/pi-1/status"),
    *("fleetmark/v2/lab/pi-1/status", "fleetmark/v1//pi-1/status", "lab/pi-1/status", "x", "pi-1"),
    *(
        "/fleetmark/v1/lab/pi-1/status",
        "fleetmark/v1/lab/pi-1/status/",
        "fleetmark/v1/lab/PI-1/ack",
    ),
    "$CONTROL/dynamic-security/v1",
]
FILTERS = [
    *("#", "+/#", "fleetmark/#", "fleetmark/v1/+/+/+", "fleetmark/v1/+/+/jobs/+", "+/+/+/+/+/+"),
    *("$SYS/#", "$SYS/broker/clients/connected", "$share/all/#", "$share/x/fleetmark/v1/#"),
    *("$CONTROL/#", "fleetmark/v1/+/pi-2/#", "fleetmark/v1/lab/pi-1/#"),
]

SAYS = {"status", "inventory", "data"}
HEARS = {"status", "ack", "jobs"}


def lawful(user: str, topic: str) -> tuple[bool, bool]:
    """Return whether a user may say and may hear a topic; what the design says, in Python."""
    levels = topic.split("/")
    if levels[:2] != ["fleetmark", "v1"] or len(levels) != (6 if "jobs" in levels[4:5] else 5):
        return False, False
    fleet, device, channel = levels[2:5]
    if user == COLLECTOR:
        # In any fleet; a status, too: it says that a device is offline which was revoked.
        return channel in {"ack", "jobs", "status"}, channel in SAYS
    mine = fleet == "simulated" if user == SIMULATOR else (fleet, device) == ("lab", user)
    return mine and channel in SAYS, mine and channel in HEARS


_numbers = itertools.count()


class Client:
    """A plain MQTT client of one user that remembers what it hears."""

    def __init__(self, centre: Centre, user: str, filters=(), will: str = "", client_id: str = ""):
        self.got: list[tuple[str, bytes]] = []
        ready, self.lost = threading.Event(), threading.Event()
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id or f"acl{next(_numbers)}",
            reconnect_on_failure=False,
        )
        kit = centre.keep / "devices" / user
        by_certificate = (kit / "agent.crt").exists()
        ca = str(centre.keep / "ca.crt")
        if by_certificate:
            self.client.tls_set(ca, str(kit / "agent.crt"), str(kit / "agent.key"))
        else:
            self.client.tls_set(ca)
            secret = "seen" if user == OBSERVER else centre.password_file(user).read_text().strip()
            self.client.username_pw_set(user, secret)
        if will:
            self.client.will_set(will, f"will of {user}".encode(), qos=1, retain=True)
        self.client.on_connect = lambda *_: (
            self.client.subscribe([(one, 1) for one in filters]) if filters else ready.set()
        )
        self.client.on_subscribe = lambda *_: ready.set()
        self.client.on_disconnect = lambda *_: self.lost.set()
        self.client.on_message = lambda _c, _u, message: self.got.append(
            (message.topic, bytes(message.payload))
        )
        self.client.connect(
            "localhost", centre.certificates_port if by_certificate else centre.port
        )
        self.client.loop_start()
        assert ready.wait(10), f"{user} did not get in"

    def say(self, topic: str, payload: bytes, retain: bool = False) -> None:
        self.client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(10)

    def forge(self, topic: str, payload: bytes) -> None:
        """Say something once; most Mosquittos end the connection for it, others say nothing."""
        said = self.client.publish(topic, payload, qos=1, retain=True)
        wait_for(lambda: self.lost.is_set() or said.is_published(), what="an end of it")
        self.close()

    def heard(self, payload: bytes) -> set[str]:
        return {topic for topic, said in list(self.got) if said == payload}

    def vanish(self) -> None:
        self.client.socket().shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture(scope="module")
def centre(tmp_path_factory):
    centre = Centre(tmp_path_factory.mktemp("centre"))
    for args in (("pi-1",), ("pi-2",), ("pi-3", "--certificate"), (SIMULATOR,)):
        done = centre.enroll(*args)
        assert done.returncode == 0, done.stdout + done.stderr
    let_observe(centre.keep)
    yield centre.start()
    centre.stop()


def let_observe(keep: Path) -> None:
    """Add the test's own user to the files that were made, whatever stands in them."""
    everything = [f"topic readwrite {one}" for one in ("#", "$SYS/#", "$CONTROL/#")]
    rules = "\n".join(["", f"user {OBSERVER}", *everything, ""])
    acl = keep / "broker" / "acl"
    acl.write_text(acl.read_text("ascii") + rules, "ascii")
    passwords = keep / "broker" / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", passwords, OBSERVER, "seen"], check=True)


@pytest.fixture
def client(centre):
    with each_closed(partial(Client, centre)) as make:
        yield make


@pytest.mark.parametrize("user", USERS)
def test_a_user_says_what_is_his_to_say_and_nothing_else(centre, client, user):
    observer = client(OBSERVER, ["#", "$CONTROL/#"])
    payload = f"from {user}".encode()
    may = {topic for topic in OURS + ODD if lawful(user, topic)[0]}
    assert may, "a user who may say nothing tests nothing"
    with ThreadPoolExecutor(4) as forgers:
        forbidden = [topic for topic in OURS + ODD if topic not in may]
        list(forgers.map(lambda topic: Client(centre, user).forge(topic, payload), forbidden))
    honest = client(user)
    for topic in sorted(may):
        honest.say(topic, payload, retain=True)
    wait_for(lambda: may <= observer.heard(payload), what="what the user may say")
    assert observer.heard(payload) == may
    late = client(OBSERVER, ["#", "$CONTROL/#"])
    wait_for(lambda: may <= late.heard(payload), what="what was retained")
    assert late.heard(payload) == may


@pytest.mark.parametrize("retain", [False, True], ids=["passing", "retained"])
@pytest.mark.parametrize("user", USERS)
def test_a_user_hears_what_is_his_to_hear_however_he_asks_for_it(client, user, retain):
    observer = client(OBSERVER)
    payload = f"to {user} {retain}".encode()
    wide = [one for one in FILTERS if not one.startswith("$share")]
    early = [client(user, FILTERS), client(user, [*OURS, *ODD[:-1]]), client(user, wide)]
    for topic in OURS + ODD:
        observer.say(topic, payload, retain)
    # A shared subscription brings no retained messages, and the early ones are no matter here.
    late = [client(user, [*OURS, *ODD[:-1]]), client(user, wide)] if retain else []
    may = {topic for topic in OURS + ODD if lawful(user, topic)[1]}
    assert may, "a user who may hear nothing tests nothing"
    for listener in early + late:
        wait_for(lambda: may <= listener.heard(payload), what="what the user may hear")  # noqa: B023
        assert listener.heard(payload) == may
        assert not [topic for topic, _ in listener.got if topic.startswith("$")]
    if retain:
        for topic in OURS + ODD:
            observer.say(topic, b"", retain=True)


@pytest.mark.parametrize("user", ["pi-1", "pi-3", SIMULATOR, COLLECTOR])
def test_a_last_will_is_spoken_under_the_same_rules(client, user):
    observer = client(OBSERVER, ["#"])
    forged = ["fleetmark/v1/lab/pi-2/status", "fleetmark/v1/lab/pi-2/jobs/j", "x"]
    if user != COLLECTOR:
        forged.append("fleetmark/v1/lab/pi-1/ack")
    for topic in forged:
        if lawful(user, topic)[0]:
            continue
        try:
            client(user, will=topic).vanish()
        except AssertionError:
            continue  # Not even let in with it, which is as well.
    mine = next(topic for topic in OURS if lawful(user, topic)[0])
    client(user, will=mine).vanish()
    will = f"will of {user}".encode()
    wait_for(lambda: mine in observer.heard(will), what="a lawful will")
    said = {topic for topic in observer.heard(will) if not lawful(user, topic)[0]}
    assert said == set()


def test_who_was_let_in_under_one_name_cannot_take_anothers_by_a_certificate(centre, client):
    """The name is the certificate's, whatever the client calls itself."""
    observer = client(OBSERVER, ["#"])
    kit = centre.keep / "devices" / "pi-3"
    liar = paho.Client(CallbackAPIVersion.VERSION2, client_id="liar")
    liar.tls_set(str(centre.keep / "ca.crt"), str(kit / "agent.crt"), str(kit / "agent.key"))
    liar.username_pw_set("pi-1", "whatever")
    answered = threading.Event()
    liar.on_connect = lambda *_: answered.set()
    liar.connect("localhost", centre.certificates_port)
    liar.loop_start()
    assert answered.wait(10)
    liar.publish("fleetmark/v1/lab/pi-1/status", b"a lie", qos=1)
    liar.publish("fleetmark/v1/lab/pi-3/status", b"a lie", qos=1)
    client("pi-1").say("fleetmark/v1/lab/pi-1/status", b"the truth")
    wait_for(lambda: observer.heard(b"the truth"), what="the device's own word")
    liar.disconnect()
    liar.loop_stop()
    assert "fleetmark/v1/lab/pi-1/status" not in observer.heard(b"a lie")


def settings_of(centre: Centre, device: str, state_dir: Path) -> AgentSettings:
    broker = centre.settings(device)
    if device == "pi-3":
        kit = centre.keep / "devices" / device
        broker = BrokerSettings(
            host="localhost",
            port=centre.certificates_port,
            ca_file=centre.keep / "ca.crt",
            cert_file=kit / "agent.crt",
            key_file=kit / "agent.key",
        )
    return AgentSettings(device_id=device, fleet="lab", state_dir=state_dir, broker=broker)


@pytest.mark.parametrize("device", ["pi-1", "pi-3"], ids=["password", "certificate"])
def test_who_knows_a_devices_names_cannot_throw_it_off_by_its_client_id(
    centre, client, tmp_path, device
):
    settings = settings_of(centre, device, tmp_path)
    ours, connected, lost = make_client(settings), threading.Event(), threading.Event()
    ours.on_connect = lambda *_: connected.set()
    ours.on_disconnect = lambda *_: lost.set()
    ours.reconnect_delay_set(60, 60)
    ours.connect("localhost", settings.broker.port)
    ours.loop_start()
    try:
        assert connected.wait(10)
        # All that another device has: the names, this code, a secret of its own, the CA.
        known = [centre.password_file("pi-2").read_bytes().strip(), b"", device.encode()]
        known += [(centre.keep / "ca.crt").read_bytes(), f"lab/{device}".encode()]
        guesses = {client_id(settings, suffix, one) for suffix in ("", "-doctor") for one in known}
        for guess in (*guesses, device, f"fleetmark-lab-{device}"):
            client("pi-2", client_id=guess).say("fleetmark/v1/lab/pi-2/data", b"in")
        ours.publish(f"fleetmark/v1/lab/{device}/data", b"still here", qos=1).wait_for_publish(10)
        assert not lost.is_set()
        # The broker would throw it off for whoever knew.
        client("pi-2", client_id=ours._client_id.decode())
        assert lost.wait(10)
    finally:
        ours.disconnect()
        ours.loop_stop()
