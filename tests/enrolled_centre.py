"""A centre of enrolled devices for tests: its broker, and clients that show what they are given."""

import itertools
import os
import ssl
import subprocess
import sys
import threading

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from commands import Command, fleetmark, listens
from fleetmark_collector.enrolment.enrolling import Enrolment, Wish
from servers import free_port, wait_for

COLLECTOR = "fleetmark-collector"
FLEET = "lab"
CERTIFICATE, PASSWORD = (Wish(kind=kind, fleet=FLEET) for kind in ("certificate", "password"))
KINDS = {"by-certificate": CERTIFICATE, "by-password": PASSWORD}

_numbers = itertools.count()


class Centre:
    """Identities in a collector's data directory, and the broker that finds them there."""

    def __init__(self, directory):
        self.data_dir = directory / "data"
        self.directory = directory
        self.port, self.certificates_port = free_port(), free_port()
        self.enrolment = Enrolment.open(self.data_dir)
        self.enrolment.prepare(["localhost"])
        for device, wish in KINDS.items():
            self.enrolment.enroll(device, wish)
        self.broker = None

    def start(self):
        self.broker = fleetmark(
            *("broker", "--host", "127.0.0.1", "--port", self.port),
            *("--certificates-port", self.certificates_port, "--data-dir", self.data_dir),
            log=self.directory / "broker.log",
        )
        wait_for(lambda: listens(self.port) and listens(self.certificates_port), what="the broker")
        return self

    def cli(self, *args):
        return subprocess.run(
            [sys.executable, "-m", "fleetmark_collector", *args, "--data-dir", self.data_dir],
            capture_output=True,
            text=True,
            timeout=60,
            # Where `fleetmark broker` without flags would be.
            env={**os.environ, "FLEETMARK_BROKER__PORT": str(self.port)},
        )

    def kit(self, device):
        return self.enrolment.keep.path(f"devices/{device}")

    def connect(self, device=None, **more):
        """Connect as a device by its kit, as the collector, or with whatever else is given."""
        if device == COLLECTOR:
            secret = self.enrolment.keep.read("collector-password")
            more = {"user": COLLECTOR, "password": secret, **more}
        elif device is not None:
            more = {**shown(self.kit(device)), **more}
        return Client(self, **more)

    def start_agent(self, device, directory):
        """Start an agent by its kit, whose places are a device's: here they are told anew."""
        kit = self.kit(device)
        by_password = device == "by-password"
        places = {
            "BROKER__PORT": self.port if by_password else self.certificates_port,
            "BROKER__CA_FILE": kit / "agent-ca.crt",
            "STATE_DIR": directory / f"state-{device}",
            "RUNNER__LOCK_FILE": directory / "bench.lock",
            **(
                {"BROKER__PASSWORD_FILE": kit / "agent-password"}
                if by_password
                else {"BROKER__CERT_FILE": kit / "agent.crt", "BROKER__KEY_FILE": kit / "agent.key"}
            ),
        }
        return Command(
            *("fleetmark_agent.cli.main", "run", "--config", kit / "agent.toml"),
            log=directory / f"{device}.log",
            env={f"FLEETMARK_{name}": str(value) for name, value in places.items()},
        )


class Client:
    """A plain MQTT client that shows what it is given, and remembers what comes of it."""

    def __init__(self, centre, *, user=None, password=None, pair=None, topics="", port=None):
        self.got, self.answer, self.lost = [], None, threading.Event()
        ready = threading.Event()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"t{next(_numbers)}")
        certificate, key = pair or (None, None)
        self.client.tls_set(str(centre.enrolment.keep.path("ca.crt")), certificate, key)
        if user:
            self.client.username_pw_set(user, password)

        def connected(client, userdata, flags, reason, properties):
            self.answer = str(reason)
            if topics and not reason.is_failure:
                client.subscribe(topics, qos=1)
            else:
                ready.set()

        def disconnected(*_):
            self.lost.set()
            ready.set()

        self.client.on_connect = connected
        self.client.on_disconnect = disconnected
        self.client.on_subscribe = lambda *_: ready.set()
        self.client.on_message = lambda c, u, m: self.got.append((m.topic, m.payload))
        self.client.reconnect_delay_set(60, 60)
        port = port or (centre.certificates_port if pair else centre.port)
        try:
            self.client.connect("localhost", port)
        except (ssl.SSLError, ConnectionError) as error:
            self.answer = str(error)
            return
        self.client.loop_start()
        assert ready.wait(10)

    @property
    def is_in(self):
        return self.answer == "Success"

    def say(self, topic, payload=b"x", retain=False):
        self.client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(10)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


def shown(kit, device=None):
    """Return what a kit gives its device to show; read now, for it may be gone later."""
    if (kit / "agent-password").exists():
        return {
            "user": device or kit.name,
            "password": (kit / "agent-password").read_text().strip(),
        }
    return {"pair": (str(kit / "agent.crt"), str(kit / "agent.key"))}


def kept(kit, directory):
    """Return the same of a copy, as it lies on the device."""
    copy = directory / f"copy-{kit.name}"
    copy.mkdir()
    for file in kit.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return shown(copy, kit.name)


def secrets_of(kit):
    """Return the texts of a kit that must not be in any log."""
    files = [kit / "agent-password", kit / "agent.key"]
    return [file.read_text().strip().splitlines()[-2:][0] for file in files if file.exists()]
