"""The doctor on the way to a real broker with TLS and rules: it names the step that fails."""

import os
import signal
import subprocess
import sys

import pytest

from commands import Command, fleetmark, listens
from deployed import Centre
from fleetmark_agent import statussocket
from fleetmark_agent.config import AgentSettings
from fleetmark_agent.connectivity import examine_broker
from fleetmark_collector.mqtt import Bus
from servers import MOSQUITTO, free_port, wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def centre(tmp_path):
    """A running broker that knows the device pi-1."""
    centre = Centre(tmp_path)
    assert centre.enroll("pi-1").returncode == 0
    yield centre.start()
    centre.stop()


def settings_for(centre, directory, device_id="pi-1", fleet="lab", **changed):
    broker = centre.settings("pi-1").model_copy(update=changed)
    state_dir = directory / "state"
    return AgentSettings(device_id=device_id, fleet=fleet, state_dir=state_dir, broker=broker)


def found(settings, running_boot_id=None):
    return list(examine_broker(settings, running_boot_id, timeout_s=3))


def the_bad_one(settings, running_boot_id=None):
    (finding,) = [one for one in found(settings, running_boot_id) if one.level == "bad"]
    return finding


def openssl(*words):
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=60)


def test_a_device_that_is_known_may_come_and_speak(centre, tmp_path):
    broker, collector = found(settings_for(centre, tmp_path))
    assert broker.level == "ok"
    assert broker.what.endswith("accepts us over TLS")
    assert (collector.level, collector.what) == ("warn", "no collector answers there")


def test_the_wrong_ca_is_told_from_a_wrong_name(centre, tmp_path):
    wrong_ca = the_bad_one(settings_for(centre, tmp_path, ca_file=another_ca(tmp_path)))
    assert "is not the CA that signed the broker's certificate" in wrong_ca.hint
    wrong_name = the_bad_one(settings_for(centre, tmp_path, host="127.1"))
    assert "broker.host must be one of the certificate's names" in wrong_name.hint


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("ca", "is not the CA that signed the broker's certificate"),
        ("name", "broker.host must be one of the certificate's names; '127.1' is none"),
        ("date", "the broker needs a new certificate, unless the clock is wrong"),
    ],
    ids=["ca", "name", "date"],
)
def test_who_runs_says_it_as_clearly_and_keeps_trying(centre, tmp_path, wrong, said):
    if wrong == "date":
        expire(centre, tmp_path)
    changed = {"ca": {"ca_file": another_ca(tmp_path)}, "name": {"host": "127.1"}}
    settings = settings_for(centre, tmp_path, **changed.get(wrong, {}))
    names = ("host", "port", "ca_file", "username", "password_file")
    env = {f"FLEETMARK_BROKER__{one.upper()}": str(getattr(settings.broker, one)) for one in names}
    agent = start_agent(settings, tmp_path, **env)
    collector = fleetmark(
        *("collect", "--data-dir", tmp_path / "data"), log=tmp_path / "collector.log", env=env
    )
    try:
        doctor = subprocess.run(
            [sys.executable, "-m", "fleetmark_agent", "doctor"],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, **env, "FLEETMARK_STATE_DIR": str(tmp_path / "doctor")},
        )
        assert doctor.returncode == 1
        bad, hint = doctor.stdout.split("\n bad  ", 1)[1].splitlines()[:2]
        assert bad.startswith(f"broker {settings.broker.host}:{centre.port}")
        assert said in hint
        for one in (agent, collector):
            wait_for(lambda one=one: said in one.output(), what=said)
    finally:
        ends = agent.end(signal.SIGTERM), collector.end(signal.SIGTERM)
    # They went on until they were told to stop, and had told it once.
    assert ends == (0, 0)
    for one in (agent, collector):
        assert "Traceback" not in one.output()
        assert one.output().count("broker_unreachable") == 1


def another_ca(directory):
    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
        *("-subj", "/CN=another CA", "-days", 2),
        *("-keyout", directory / "another.key", "-out", directory / "another.crt"),
    )
    return directory / "another.crt"


def expire(centre, tmp_path):
    """Have the broker show a certificate that ended yesterday."""
    keep, request, expired = centre.keep, tmp_path / "request", tmp_path / "expired.crt"
    openssl(
        *("req", "-new", "-key", keep / "broker" / "server.key", "-subj", "/CN=localhost"),
        *("-addext", "subjectAltName=DNS:localhost", "-out", request),
    )
    openssl(
        *("x509", "-req", "-in", request, "-days", -1, "-copy_extensions", "copy"),
        *("-CA", keep / "ca.crt", "-CAkey", keep / "ca.key", "-CAcreateserial", "-out", expired),
    )
    centre.stop()
    (keep / "broker" / "server.crt").write_bytes(expired.read_bytes())
    centre.start()


def said_by_collector(settings, capsys):
    """What the collector's end logs of its attempts."""
    bus = Bus(settings.broker, "as-collector")
    bus.start()
    try:
        wait_for(lambda: bus.trouble)
    finally:
        bus.stop()
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def test_a_broker_that_does_not_take_our_certificate_is_told_from_one_that_is_none(
    centre, tmp_path, capsys
):
    """It hangs up only after the handshake: the reason is the certificate's end."""
    keep, key, cert = centre.keep, tmp_path / "pi.key", tmp_path / "pi.crt"
    openssl(
        *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
        *("-subj", "/CN=pi-1", "-keyout", key, "-out", tmp_path / "request"),
    )
    openssl(
        *("x509", "-req", "-in", tmp_path / "request", "-days", -1, "-out", cert),
        *("-CA", keep / "ca.crt", "-CAkey", keep / "ca.key", "-CAcreateserial"),
    )
    port = free_port()
    config = tmp_path / "certificates.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nrequire_certificate true\nuse_identity_as_username true\n"
        f"cafile {keep}/ca.crt\ncertfile {keep}/broker/server.crt\n"
        f"keyfile {keep}/broker/server.key\nuser root\n"
    )
    broker = subprocess.Popen([MOSQUITTO, "-c", config], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: listens(port), what="the broker")
        own = {"username": None, "password_file": None, "cert_file": cert, "key_file": key}
        settings = settings_for(centre, tmp_path, port=port, **own)
        bad = [one.what for one in found(settings) if one.level == "bad"]
        assert "our own certificate ended on" in bad[0]
        assert "our own certificate ended on" in said_by_collector(settings, capsys)
        none = settings_for(centre, tmp_path, port=port, username=None, password_file=None)
        assert "ask for a certificate" in said_by_collector(none, capsys)
    finally:
        broker.terminate()
        broker.wait(20)


def test_a_certificate_that_has_expired_puts_the_clock_in_question(centre, tmp_path):
    expire(centre, tmp_path)
    finding = the_bad_one(settings_for(centre, tmp_path))
    assert "expired" in finding.what
    assert "this machine's clock says" in finding.hint


def test_tls_where_none_is_spoken_points_to_the_port(centre, tmp_path, mosquitto):
    finding = the_bad_one(settings_for(centre, tmp_path, port=mosquitto.port))
    assert "broker.port" in finding.hint


def test_no_tls_where_it_is_spoken_points_to_the_ca_file(centre, tmp_path):
    settings = AgentSettings(
        device_id="pi-1", state_dir=tmp_path / "state", broker={"port": centre.port}
    )
    assert "broker.ca_file" in the_bad_one(settings).hint


def test_a_wrong_password_is_a_refusal(centre, tmp_path):
    (tmp_path / "password").write_text("wrong")
    finding = the_bad_one(settings_for(centre, tmp_path, password_file=tmp_path / "password"))
    assert "refused us: Not authorized" in finding.what
    assert "password_file" in finding.hint


def test_a_device_under_anothers_user_name_learns_that_it_is_not_heard(centre, tmp_path):
    finding = the_bad_one(settings_for(centre, tmp_path, device_id="pi-9"))
    assert "do not let pi-1 speak as 'pi-9'" in finding.what
    assert "must be the device_id" in finding.hint


def test_a_device_in_another_fleet_than_its_identitys_learns_that_it_is_not_heard(centre, tmp_path):
    finding = the_bad_one(settings_for(centre, tmp_path, fleet="elsewhere"))
    assert "speak as 'pi-1' in fleet 'elsewhere'" in finding.what
    assert "the fleet that of its identity" in finding.hint


def test_rules_that_keep_a_device_from_hearing_itself_are_found(tmp_path, mosquitto_with_rules):
    port = mosquitto_with_rules("topic write fleetmark/#")
    settings = AgentSettings(device_id="pi", state_dir=tmp_path / "s", broker={"port": port})
    agent = start_agent(settings, tmp_path)
    try:
        boot_id = boot_id_of(settings)
        wait_for(lambda: statussocket.ask(settings.state_dir)["connected"])
        finding = the_bad_one(settings, boot_id)
    finally:
        agent.kill()
    assert "does not come back" in finding.what
    assert "read its own status" in finding.hint


def test_two_agents_of_one_name_are_found_out(tmp_path, mosquitto):
    one, two = (
        AgentSettings(device_id="twin", state_dir=tmp_path / name, broker={"port": mosquitto.port})
        for name in ("one", "two")
    )
    first = start_agent(one, tmp_path)
    try:
        boot_id = boot_id_of(one)
        wait_for(lambda: statussocket.ask(one.state_dir)["connected"])
        alone, _ = found(one, boot_id)
        assert alone.level == "ok"
        # On the second machine, before its agent starts, and as if it had.
        *_, before = found(two)
        assert before.level == "warn"
        assert "is online as default/twin" in before.what
        after = the_bad_one(two, "00000000-0000-4000-8000-000000000000")
        assert "a device_id of its own" in after.hint
    finally:
        first.kill()


def test_the_doctor_disturbs_neither_collector_nor_store(tmp_path, mosquitto):
    collector = fleetmark(
        *("collect", "--data-dir", tmp_path / "data", "--broker-port", mosquitto.port),
        log=tmp_path / "collector.log",
    )
    try:
        wait_for(lambda: "broker_connected" in collector.output())
        settings = AgentSettings(
            device_id="pi", state_dir=tmp_path / "s", broker={"port": mosquitto.port}
        )
        assert [one.level for one in found(settings)] == ["ok", "ok"]
    finally:
        assert collector.end() == 0
    assert not (tmp_path / "data" / "dead_letters.jsonl").exists()
    assert '"messages_dead": 0' in collector.output()


def start_agent(settings, directory, **env):
    arguments = ("run", "--device-id", settings.device_id, "--state-dir", settings.state_dir)
    return Command(
        "fleetmark_agent.cli.main",
        *arguments,
        *("--broker-port", settings.broker.port),
        log=directory / f"{settings.state_dir.name}.log",
        env=env,
    )


def boot_id_of(settings):
    wait_for(lambda: statussocket.ask(settings.state_dir))
    return statussocket.ask(settings.state_dir)["boot_id"]


@pytest.fixture
def mosquitto_with_rules(tmp_path):
    """Starts a broker without passwords, and with an ACL."""
    brokers = []

    def start(rules):
        port = free_port()
        (tmp_path / "acl").write_text(rules + "\n")
        config = tmp_path / "rules.conf"
        config.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nacl_file {tmp_path}/acl\n"
        )
        brokers.append(subprocess.Popen([MOSQUITTO, "-c", config], stderr=subprocess.DEVNULL))
        wait_for(lambda: listens(port), what="the broker")
        return port

    yield start
    for broker in brokers:
        broker.terminate()
        broker.wait(20)
