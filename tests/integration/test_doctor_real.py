"""The doctor of a device whose broker is there: a real Mosquitto, with and without passwords."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fakes.fake_sysfs import FakeSysfs
from fleetmark_agent.cli.main import app
from servers import MOSQUITTO, free_port, wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def doctor(tmp_path):
    def run(port, **broker):
        lines = [f'{key} = "{value}"\n' for key, value in broker.items()]
        (tmp_path / "agent.toml").write_text(
            f'state_dir = "{tmp_path}/state"\n[broker]\nport = {port}\n' + "".join(lines)
        )
        return CliRunner().invoke(app, ["doctor", "--config", str(tmp_path / "agent.toml")])

    return run


def test_a_device_that_has_all_it_needs_is_well(doctor, mosquitto):
    done = doctor(mosquitto.port)
    assert done.exit_code == 0, done.output
    assert f"  ok  broker 127.0.0.1:{mosquitto.port} accepts us" in done.stdout
    assert " bad  " not in done.stdout


def test_a_counter_of_energy_that_we_may_not_read_is_a_warning_and_no_failure(
    doctor, mosquitto, tmp_path, monkeypatch
):
    sysfs = FakeSysfs(tmp_path / "machine")
    counter = sysfs.rapl("0", "package-0", 1_000_000)
    monkeypatch.setenv("FLEETMARK_TELEMETRY__SENSOR_ROOT", str(sysfs.root))
    real = Path.read_text

    # Root may read everything, so the kernel's refusal is played.
    def refusing(path, *how, **more):
        if path == counter:
            raise PermissionError(13, "Permission denied")
        return real(path, *how, **more)

    monkeypatch.setattr(Path, "read_text", refusing)
    done = doctor(mosquitto.port)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    (at,) = (
        number for number, line in enumerate(lines) if f"not allowed to read {counter}" in line
    )
    assert lines[at].startswith("warn  sensor power: ")
    assert "chgrp GROUP FILE && chmod 440 FILE" in lines[at + 1]


def test_an_agent_beside_the_doctor_is_named_and_goes_on(doctor, mosquitto, tmp_path):
    agent = subprocess.Popen(
        [sys.executable, "-m", "fleetmark_agent", "run", "--state-dir", str(tmp_path / "state")]
        + ["--broker-port", str(mosquitto.port)],
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for((tmp_path / "state" / "outbox.db").exists)
        done = doctor(mosquitto.port)
        assert done.exit_code == 0, done.output
        assert f"an agent (pid {agent.pid}) runs" in done.stdout
        assert "outbox: " in done.stdout
        assert agent.poll() is None
    finally:
        agent.terminate()
        assert agent.wait(20) == 0


def test_a_broker_that_wants_a_password_says_which_settings_to_look_at(doctor, tmp_path):
    port = free_port()
    config = tmp_path / "closed.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous false\nuser root\n")
    with subprocess.Popen([MOSQUITTO, "-c", config], stderr=subprocess.DEVNULL) as broker:
        try:
            wait_for(lambda: "refused us" in doctor(port).stdout, what="the broker's refusal")
            done = doctor(port)
        finally:
            broker.terminate()
    assert done.exit_code == 1
    assert "username and password_file" in done.stdout


def test_something_else_on_the_brokers_port_is_told_from_a_broker(doctor):
    quiet = subprocess.Popen(
        [sys.executable, "-c"]
        + [
            "import socket, time; s = socket.create_server(('127.0.0.1', 0));"
            "print(s.getsockname()[1], flush=True); time.sleep(60)"
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        done = doctor(int(quiet.stdout.readline()))
    finally:
        quiet.kill()
        quiet.communicate()
    assert done.exit_code == 1
    assert "no answer" in done.stdout
    assert "MQTT broker" in done.stdout
