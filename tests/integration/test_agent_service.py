"""The agent as a service: what it tells systemd, who asks it, and what new settings do to it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from commands import Command
from servers import free_port, wait_for

pytestmark = pytest.mark.integration


class Service:
    """One agent process with a settings file of its own."""

    def __init__(self, directory):
        self.directory = directory
        self.config = directory / "agent.toml"
        self.process = None

    def settings(self, port, **values):
        lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        state = json.dumps(str(self.directory / "state"))
        text = "\n".join(["device_id = 'dut'", f"state_dir = {state}", *lines])
        self.config.write_text(f"{text}\n[broker]\nport = {port}\n", "utf-8")

    def start(self, **env):
        arguments = ("run", "--config", self.config)
        log = self.directory / "agent.log"
        self.process = Command("fleetmark_agent.cli.main", *arguments, log=log, env=env)
        return self.process

    def command(self, *words):
        return subprocess.run(
            [sys.executable, "-m", "fleetmark_agent", *words, "--config", str(self.config)],
            capture_output=True,
            text=True,
            timeout=90,
        )

    def status(self):
        """What it says of itself, or None while it says nothing."""
        done = self.command("status", "--json")
        return json.loads(done.stdout) if done.stdout else None

    def logged(self, event):
        lines = self.process.output().splitlines()
        return [line for line in map(json.loads, lines) if line["event"] == event]


@pytest.fixture
def service(tmp_path):
    made = Service(tmp_path)
    made.settings(free_port())
    yield made
    if made.process is not None:
        made.process.kill()


@pytest.fixture
def systemd(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(20)
        yield listener


def heard(systemd, start):
    """Wait for the next message that begins so; return its assignments."""
    while True:
        text = systemd.recv(4096).decode()
        if text.startswith(start):
            return dict(line.split("=", 1) for line in text.splitlines())


def test_systemd_hears_when_it_is_ready_that_it_lives_and_that_it_ends(service, systemd, tmp_path):
    agent = service.start(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="900000")
    assert heard(systemd, "READY=1")["STATUS"].startswith("not connected, idle, ")
    for _ in range(3):
        heard(systemd, "WATCHDOG=1")
    assert agent.end(signal.SIGTERM) == 0
    heard(systemd, "STOPPING=1")


def test_systemd_hears_of_a_reload_from_begin_to_end(service, systemd, tmp_path):
    agent = service.start(NOTIFY_SOCKET=str(tmp_path / "notify"))
    heard(systemd, "READY=1")
    before_us = time.monotonic_ns() // 1000
    agent.process.send_signal(signal.SIGHUP)
    assert int(heard(systemd, "RELOADING=1")["MONOTONIC_USEC"]) >= before_us
    heard(systemd, "READY=1")


def test_status_tells_of_an_agent_without_a_broker(service):
    service.start()
    wait_for(service.status)
    done = service.command("status")
    assert done.returncode == 1
    assert "NOT CONNECTED" in done.stdout
    assert "Connection refused" in done.stdout
    assert "last ack     none yet" in done.stdout


def test_status_tells_of_an_agent_whose_broker_has_it(service, mosquitto):
    service.settings(mosquitto.port)
    service.start()
    wait_for(lambda: (service.status() or {}).get("connected"))
    done = service.command("status")
    assert done.returncode == 0
    said = service.status()
    assert (said["device"], said["job_id"], said["refused_settings"]) == ("dut", None, None)
    # Nobody collects here.
    assert said["outbox_records"] > 0
    assert said["last_ack_ns"] is None


def test_where_no_agent_runs_both_commands_say_so(service):
    for words in (["status"], ["reload"]):
        done = service.command(*words)
        assert done.returncode == 1
        assert "no agent runs with state_dir" in done.stderr
        assert "Traceback" not in done.stderr


def test_an_agent_that_hangs_is_told_from_one_that_is_not_there(service):
    agent = service.start()
    wait_for(service.status)
    agent.process.send_signal(signal.SIGSTOP)
    try:
        done = service.command("status")
    finally:
        agent.process.send_signal(signal.SIGCONT)
    assert done.returncode == 1
    assert "does not answer" in done.stderr


def test_new_settings_are_taken_without_a_restart(service, mosquitto):
    service.start()
    wait_for(service.status)
    before = service.status()
    assert not before["connected"]
    service.settings(mosquitto.port, tags=["moved"])
    done = service.command("reload")
    assert (done.returncode, done.stdout) == (0, "the agent runs with the new settings\n")
    wait_for(lambda: service.status()["connected"])
    assert service.status()["pid"] == before["pid"]
    assert inventory_tags(mosquitto.port) == ["moved"]


def test_a_reload_loses_no_record(service, mosquitto):
    service.settings(mosquitto.port)
    service.start()
    wait_for(lambda: (service.status() or {}).get("outbox_records"))
    before = service.status()["outbox_records"]
    assert service.command("reload").returncode == 0
    assert service.status()["outbox_records"] >= before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tags = [", "agent.toml"),
        ("tagz = ['x']", "tagz: unknown key (did you mean 'tags'?)"),
        ("state_dir = '/elsewhere'", "restart it instead"),
        ("broker = { host = 'far.example', ca_file = '/nowhere/ca.crt' }", "/nowhere/ca.crt"),
    ],
)
def test_settings_that_are_wrong_change_nothing(service, mosquitto, text, said):
    service.settings(mosquitto.port)
    agent = service.start()
    wait_for(lambda: (service.status() or {}).get("connected"))
    good = service.config.read_text("utf-8")
    state = json.dumps(str(service.directory / "state"))
    lines = ["device_id = 'other'", text]
    if "state_dir" not in text:
        lines.insert(0, f"state_dir = {state}")
    service.config.write_text("\n".join(lines), "utf-8")
    agent.process.send_signal(signal.SIGHUP)
    wait_for(lambda: service.logged("settings_refused"))
    service.config.write_text(good, "utf-8")
    wait_for(lambda: service.status()["connected"])
    now = service.status()
    assert now["device"] == "dut"
    assert said in now["refused_settings"]
    assert now["refusals"] == 1


def test_a_file_that_has_become_unusable_leaves_the_agent_as_it_is(service, mosquitto):
    """The settings of before name it, too: once stopped, the agent could not begin again."""
    password = service.directory / "password"
    password.write_text("sesame")
    service.settings(mosquitto.port)
    credentials = f"username = 'dut'\npassword_file = '{password}'\n"
    with service.config.open("a", encoding="utf-8") as file:
        file.write(credentials)
    agent = service.start()
    wait_for(lambda: (service.status() or {}).get("connected"))
    before = service.status()["boot_id"]
    password.write_text("")
    agent.process.send_signal(signal.SIGHUP)
    wait_for(lambda: service.logged("settings_refused"))
    now = service.status()
    assert (now["connected"], now["boot_id"]) == (True, before), "nothing was stopped for it"
    assert "broker.password_file" in now["refused_settings"]
    password.write_text("open")
    assert service.command("reload").returncode == 0
    assert service.status()["boot_id"] != before


def test_the_command_finds_a_mistake_before_it_bothers_the_agent(service):
    service.start()
    wait_for(service.status)
    service.config.write_text("tagz = []", "utf-8")
    done = service.command("reload")
    assert done.returncode == 2
    assert "tagz: unknown key" in done.stderr
    assert not service.logged("settings_refused")


def test_it_cannot_be_asked_by_who_may_not_look_into_its_state(service):
    service.start()
    wait_for(service.status)
    state = service.directory / "state"
    assert (state.stat().st_mode & 0o077) == 0
    if os.geteuid() == 0:
        done = subprocess.run(
            [sys.executable, "-c", ASK_AS_NOBODY, str(state)], capture_output=True, text=True
        )
        assert done.stdout.strip() == "PermissionError", done.stderr


ASK_AS_NOBODY = """
import os, sys
from pathlib import Path
from fleetmark_agent.statussocket import ask
os.setgid(65534)
os.setuid(65534)
try:
    ask(Path(sys.argv[1]))
except PermissionError as error:
    print(type(error).__name__)
"""


def inventory_tags(port):
    """The tags in the retained inventory of the device."""
    came = []
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.on_message = lambda _c, _d, message: came.append(json.loads(message.payload))
    client.connect("127.0.0.1", port)
    client.subscribe("fleetmark/v1/default/dut/inventory", 1)
    client.loop_start()
    try:
        wait_for(lambda: came)
    finally:
        client.disconnect()
        client.loop_stop()
    return came[-1]["tags"]
