"""The broker of deploy/, run by a real Mosquitto: who gets in, who may say and hear what."""

import itertools
import json
import socket
import ssl
import subprocess
import threading
from functools import partial

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from ruamel.yaml import YAML

from commands import fleetmark
from deployed import COLLECTOR, DEPLOY, Centre
from engines import MODEL_REF, MODEL_SHA256, model_store
from servers import each_closed, wait_for

pytestmark = pytest.mark.integration

HIS = "fleetmark/v1/lab/pi-1"
OTHER = "fleetmark/v1/lab/pi-2"

_numbers = itertools.count()


@pytest.fixture(scope="module")
def secrets(tmp_path_factory):
    """The secrets of a centre that knows the devices pi-1 and pi-2."""
    centre = Centre(tmp_path_factory.mktemp("made"))
    done = centre.enroll("pi-1", "pi-2")
    assert done.returncode == 0, done.stderr
    return centre.keep


@pytest.fixture
def centre(tmp_path, secrets):
    """A running broker of a test's own."""
    centre = Centre(tmp_path, secrets)
    yield centre.start()
    centre.stop()


class Client:
    """A plain MQTT client that remembers what it gets and why it was turned away."""

    def __init__(self, centre: Centre, user: str = "", password: str = "", topics: str = ""):
        self.got: list[tuple[str, bytes]] = []
        self.answer: str | None = None
        self.lost = threading.Event()
        ready = threading.Event()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"t{next(_numbers)}")
        self.client.tls_set(ca_certs=str(centre.keep / "ca.crt"))
        if user:
            self.client.username_pw_set(
                user, password or centre.password_file(user).read_text().strip()
            )

        def connected(client, userdata, flags, reason, properties) -> None:
            self.answer = str(reason)
            if reason.is_failure or not topics:
                ready.set()
            else:
                client.subscribe(topics, qos=1)

        self.client.on_connect = connected
        self.client.on_subscribe = lambda *_: ready.set()
        self.client.on_disconnect = lambda *_: self.lost.set()
        self.client.on_message = lambda c, u, m: self.got.append((m.topic, m.payload))
        self.client.connect("localhost", centre.port)
        self.client.loop_start()
        assert ready.wait(10)

    def say(self, topic: str, payload: bytes, retain: bool = False) -> None:
        self.client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(10)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def client(centre):
    with each_closed(partial(Client, centre)) as make:
        yield make


@pytest.fixture
def forge(client):
    """Say what a user must not say, each on a connection of its own: some Mosquittos end it."""

    def say(user: str, topic: str) -> None:
        client(user).say(topic, b"forged", retain=True)

    return say


# --- who gets in -----------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["pi-1", COLLECTOR])
def test_who_has_a_password_gets_in(client, user):
    assert client(user).answer == "Success"


def test_without_a_name_nobody_gets_in(client):
    assert client().answer == "Not authorized"


@pytest.mark.parametrize("user", ["pi-1", "pi-3", COLLECTOR])
def test_with_a_guessed_password_nobody_gets_in(client, user):
    assert client(user, "a guess").answer == "Not authorized"


def test_one_devices_password_is_of_no_use_under_anothers_name(client, centre):
    stolen = centre.password_file("pi-1").read_text().strip()
    assert client("pi-2", stolen).answer == "Not authorized"


def test_without_tls_nobody_is_heard(centre):
    answers = []
    plain = paho.Client(CallbackAPIVersion.VERSION2)
    plain.username_pw_set("pi-1", centre.password_file("pi-1").read_text().strip())
    plain.on_connect = lambda *args: answers.append(args)
    lost = threading.Event()
    plain.on_disconnect = lambda *_: lost.set()
    plain.connect("127.0.0.1", centre.port)
    plain.loop_start()
    assert lost.wait(10)
    plain.disconnect()
    plain.loop_stop()
    assert answers == []


def test_a_broker_of_another_ca_is_not_believed(centre, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    other = Centre(tmp_path / "elsewhere")
    device = paho.Client(CallbackAPIVersion.VERSION2)
    device.tls_set(ca_certs=str(other.keep / "ca.crt"))
    with pytest.raises(ssl.SSLCertVerificationError):
        device.connect("localhost", centre.port)


def test_a_broker_under_a_name_that_its_certificate_lacks_is_not_believed(centre):
    context = ssl.create_default_context(cafile=str(centre.keep / "ca.crt"))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with context.wrap_socket(
        socket.create_connection(("127.0.0.1", centre.port)),
        server_hostname="centre.example",
    ) as connection:
        assert connection.version() in {"TLSv1.2", "TLSv1.3"}
    with pytest.raises(ssl.SSLCertVerificationError, match=r"not valid for 'elsewhere\.example'"):
        context.wrap_socket(
            socket.create_connection(("127.0.0.1", centre.port)),
            server_hostname="elsewhere.example",
        )


# --- who may say and hear what ---------------------------------------------------------------


@pytest.mark.parametrize("channel", ["status", "inventory", "data"])
def test_a_device_speaks_under_its_own_name_only(client, forge, channel):
    collector = client(COLLECTOR, topics="fleetmark/v1/#")
    forge("pi-1", f"{OTHER}/{channel}")
    client("pi-1").say(f"{HIS}/{channel}", b"himself")
    wait_for(lambda: collector.got != [], what="what the device said")
    assert collector.got == [(f"{HIS}/{channel}", b"himself")]


@pytest.mark.parametrize("path", ["ack", "jobs/j1"])
def test_a_device_can_neither_acknowledge_nor_assign(client, forge, path):
    listeners = [client("pi-1", topics=f"{HIS}/{path}"), client("pi-2", topics=f"{OTHER}/{path}")]
    for base in (HIS, OTHER):
        forge("pi-1", f"{base}/{path}")
    collector = client(COLLECTOR)
    for base in (HIS, OTHER):
        collector.say(f"{base}/{path}", b"real")
    for listener, base in zip(listeners, (HIS, OTHER), strict=True):
        wait_for(lambda: listener.got != [], what="the collector's word")  # noqa: B023
        assert listener.got == [(f"{base}/{path}", b"real")]


@pytest.mark.parametrize("topics", ["fleetmark/v1/#", f"{OTHER}/jobs/+", f"{OTHER}/ack", "#"])
def test_a_device_hears_nothing_that_is_meant_for_another(client, topics):
    collector = client(COLLECTOR)
    collector.say(f"{OTHER}/jobs/j1", b"not his", retain=True)
    listener, own = client("pi-1", topics=topics), client("pi-1", topics=f"{HIS}/jobs/+")
    other = client("pi-2")
    for channel in ("status", "inventory", "data"):
        other.say(f"{OTHER}/{channel}", b"not his", retain=True)
    collector.say(f"{OTHER}/ack", b"not his")
    collector.say(f"{HIS}/jobs/j2", b"his", retain=True)
    wait_for(lambda: own.got != [], what="what is his")
    assert {payload for _, payload in listener.got + own.got} == {b"his"}


@pytest.mark.parametrize("topics", ["$SYS/#", "$SYS/broker/clients/total"])
def test_a_device_learns_nothing_about_the_broker(client, topics):
    listener = client("pi-1", topics=topics)
    own = client("pi-1", topics=f"{HIS}/ack")
    client(COLLECTOR).say(f"{HIS}/ack", b"mark")
    wait_for(lambda: own.got != [], what="the mark")
    assert listener.got == []


def test_the_collector_says_nothing_for_a_device_but_that_it_is_gone(client, forge):
    listener = client(COLLECTOR, topics="fleetmark/v1/#")
    for channel in ("inventory", "data"):
        forge(COLLECTOR, f"{HIS}/{channel}")
    client("pi-1").say(f"{HIS}/status", b"real")
    wait_for(lambda: listener.got != [], what="the device's word")
    assert listener.got == [(f"{HIS}/status", b"real")]


# --- what an operator does -------------------------------------------------------------------


def test_a_new_device_gets_in_after_a_reload_and_nobody_is_disturbed(centre, client):
    there = client("pi-1")
    assert centre.enroll("pi-new").returncode == 0
    assert client("pi-new").answer == "Not authorized"
    centre.reload()
    wait_for(lambda: client("pi-new").answer == "Success", what="the new device let in")
    assert not there.lost.is_set()


def test_a_device_that_is_revoked_is_thrown_out_and_stays_out(centre, client):
    lost = client("pi-1")
    password = centre.password_file("pi-1").read_text().strip()
    assert centre.command("revoke", "pi-1").returncode == 0
    centre.reload()
    assert lost.lost.wait(10)
    assert client("pi-1", password).answer == "Not authorized"
    assert client("pi-2").answer == "Success"


def test_jobs_that_wait_for_a_device_outlive_a_restart_of_the_broker(centre, client):
    client(COLLECTOR).say(f"{HIS}/jobs/j1", b"waiting", retain=True)
    centre.stop()
    assert (centre.data_dir / "mosquitto.db").exists(), "in the directory it was started in"
    centre.start()
    late = client("pi-1", topics=f"{HIS}/jobs/+")
    wait_for(lambda: late.got == [(f"{HIS}/jobs/j1", b"waiting")], what="the waiting job")


# --- what watches it -------------------------------------------------------------------------


def health_check(centre) -> int:
    """Run the health check of compose.yaml, word for word but for port and place."""
    services = YAML(typ="safe").load((DEPLOY / "compose.yaml").read_text("utf-8"))["services"]
    kind, command = services["mosquitto"]["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    command = command.replace("$$", "$").replace("/run/secrets", str(centre.keep))
    command = command.replace("8883", str(centre.port))
    return subprocess.run(["sh", "-c", command], capture_output=True, timeout=20).returncode


def test_the_health_check_knows_a_broker_that_is_well(centre):
    assert health_check(centre) == 0


def test_the_health_check_knows_a_broker_that_is_gone(centre):
    centre.stop()
    assert health_check(centre) != 0


def test_the_health_check_does_not_take_an_open_broker_for_a_well_one(centre, tmp_path):
    centre.stop()
    config = tmp_path / "mosquitto.conf"
    text = config.read_text("utf-8")
    config.write_text(text.replace("allow_anonymous false", "allow_anonymous true"), "utf-8")
    centre.start()
    assert health_check(centre) != 0


def test_it_tells_systemd_when_it_listens(centre, tmp_path):
    """Type=notify of fleetmark-broker.service waits for this."""
    centre.stop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "notify"))
        told.settimeout(20)
        centre.start(NOTIFY_SOCKET=str(tmp_path / "notify"))
        assert b"READY=1" in told.recv(4096)


# --- collector and agent ---------------------------------------------------------------------


def test_a_campaign_runs_over_tls_with_the_kit_of_an_enrolled_device(centre, tmp_path):
    """Collector and agent as users start them; the agent by the kit's own agent.toml."""
    config = centre.collector_config(tmp_path)
    campaign = tmp_path / "tls.yaml"
    model = {"name": "smollm2-135m", "ref": MODEL_REF, "sha256": MODEL_SHA256}
    campaign.write_text(
        json.dumps(
            {
                "version": 1,
                "name": "over-tls",
                "targets": {"devices": ["pi-1"]},
                "matrix": {
                    "backend": ["xllamacpp"],
                    "model": [model],
                    "options": {"threads": 1, "context_tokens": 256},
                },
                "workloads": [
                    {
                        "name": "single",
                        "kind": "single",
                        "prompt": "The capital of Italy is",
                        "output_tokens": 8,
                        "repetitions": 2,
                    }
                ],
                "quiet_gate": {"cpu_percent_max": 100, "timeout_s": 1},
            }
        ),
        "utf-8",
    )
    collector = centre.start_collector(config)
    models = {"FLEETMARK_MODELS__DIR": str(model_store())}
    agent = centre.start_agent("pi-1", tmp_path, **models)

    def cli(*args: object) -> subprocess.CompletedProcess[str]:
        log = tmp_path / f"cli-{next(_numbers)}.log"
        command = fleetmark(*args, "--config", config, log=log)
        code = command.process.wait(200)
        return subprocess.CompletedProcess(args, code, log.read_text("utf-8"), "")

    def online() -> bool:
        done = cli("devices", "--json")
        return done.returncode == 0 and any(
            d["device"] == "pi-1" and d["online"] and d["backends"] for d in json.loads(done.stdout)
        )

    try:
        wait_for(online, 40, "the device online")
        done = cli("campaign", "run", campaign)
        assert done.returncode == 0, done.stdout + collector.output() + agent.output()
        assert "SUCCEEDED" in done.stdout
    finally:
        agent.end()
        collector.end()
    for log in (collector.output(), agent.output()):
        assert centre.password_file(COLLECTOR).read_text().strip() not in log
        assert centre.password_file("pi-1").read_text().strip() not in log


def test_a_simulated_fleet_delivers_as_a_user_of_its_own_that_has_no_other_fleet(
    centre, client, forge, tmp_path
):
    assert centre.enroll("fleetmark-simulator").returncode == 0
    centre.reload()
    listener = client(COLLECTOR, topics="fleetmark/v1/lab/+/status")
    wait_for(lambda: client("fleetmark-simulator").answer == "Success", what="the new user")
    forge("fleetmark-simulator", f"{HIS}/status")
    config = centre.collector_config(tmp_path)
    collector = centre.start_collector(config)
    user = {
        "FLEETMARK_BROKER__USERNAME": "fleetmark-simulator",
        "FLEETMARK_BROKER__PASSWORD_FILE": str(centre.password_file("fleetmark-simulator")),
    }
    simulate = fleetmark(
        *("simulate", "--devices", 3, "--rate", 5, "--duration", 3, "--json", "--config", config),
        log=tmp_path / "simulate.log",
        env=user,
    )
    try:
        assert simulate.process.wait(90) == 0, simulate.output() + collector.output()
    finally:
        simulate.kill()
        collector.end()
    summary = json.loads(simulate.output()[simulate.output().index("{") :])
    assert summary["acknowledged"] >= 3 * 5 * 3, summary
    client("pi-1").say(f"{HIS}/status", b"real")
    wait_for(lambda: listener.got != [], what="the device's word")
    assert listener.got == [(f"{HIS}/status", b"real")]
