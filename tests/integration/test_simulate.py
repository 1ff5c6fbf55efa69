"""`fleetmark simulate` against a real Mosquitto and a real collector."""

import json
import os
import signal
import sqlite3
import subprocess
import time
from contextlib import closing

import psutil
import pytest

from commands import Broker, fleetmark, listens
from servers import free_port, wait_for
from simulations import Simulation, assert_complete, stored

pytestmark = pytest.mark.integration


@pytest.fixture
def simulate(fleet):
    """Start a simulation against the fleet's broker."""
    started = []

    def start(*flags, env=None):
        started.append(Simulation(fleet.directory, fleet.broker.port, *flags, env=env))
        return started[-1]

    yield start
    for one in started:
        # Twice: without waiting for acknowledgements.
        for _ in range(2):
            if one.command.process.poll() is None:
                one.command.process.send_signal(signal.SIGINT)
                time.sleep(0.2)
        one.command.end(signal.SIGCONT)


def devices(fleet):
    done = fleet.cli("devices", "--json")
    return json.loads(done.stdout) if done.returncode == 0 else []


def simulators(command):
    """The processes that a command has started."""
    return psutil.Process(command.pid).children(recursive=True)


def test_what_fifty_devices_make_is_in_the_store_exactly_once(fleet, simulate):
    fleet.start_collector()
    account = simulate("--devices", 50, "--rate", 5, "--duration", 4, "--processes", 2).account()
    assert (account["samples"], account["made"]) == (1000, 1050)
    assert (account["acknowledged"], account["left"], account["skipped"]) == (1050, 0, 0)
    assert account["connected"] == account["connections"] == 50
    assert 0 < account["delay_p50_s"] <= account["delay_p99_s"]
    assert_complete(fleet.data_dir, 50, 20)
    wait_for(lambda: not any(one["online"] for one in devices(fleet)), 20, "all goodbyes")
    known = devices(fleet)
    assert len(known) == 50
    assert {device["fleet"] for device in known} == {"simulated"}
    assert all(device["tags"] == ["simulated"] for device in known)
    shown = fleet.cli("devices", known[0]["device"])
    assert "made up" in shown.stdout


def test_devices_are_forgotten_where_that_is_asked(fleet, simulate):
    fleet.start_collector()
    simulate("--devices", 5, "--duration", 2, "--forget").account()
    wait_for(lambda: devices(fleet) == [], 20, "all forgotten")
    assert len(stored(fleet.data_dir, "telemetry")) == 5


def test_a_broker_that_is_restarted_in_the_middle_costs_nothing(fleet, simulate):
    fleet.start_collector()
    run = simulate("--devices", 50, "--rate", 2, "--duration", 14, "--drain", 40)
    wait_for(lambda: len(devices(fleet)) == 50, 30, "all devices")
    fleet.broker.kill()
    time.sleep(2)
    fleet.broker.start()
    account = run.account()
    assert account["left"] == 0
    assert account["connections"] == 100
    assert_complete(fleet.data_dir, 50, 28)


def test_a_collector_that_is_killed_in_the_middle_costs_nothing(fleet, simulate):
    fleet.start_collector()
    run = simulate("--devices", 50, "--rate", 2, "--duration", 14, "--drain", 60)
    wait_for(lambda: len(devices(fleet)) == 50, 30, "all devices")
    fleet.kill("collector")
    time.sleep(5)
    fleet.start_collector()
    account = run.account(120)
    assert account["left"] == 0
    assert account["resent"] > 0
    assert_complete(fleet.data_dir, 50, 28)


def test_devices_that_come_and_go_deliver_everything(fleet, simulate):
    fleet.start_collector()
    account = simulate(
        *("--devices", 30, "--rate", 5, "--duration", 10),
        *("--flaky", 0.5, "--offline-s", 1.5, "--drain", 40),
    ).account()
    assert account["left"] == 0
    assert account["connections"] > 45, "half of them came back, and again"
    assert_complete(fleet.data_dir, 30, 50)


def test_a_campaign_over_simulated_devices_succeeds_and_its_report_says_what_it_is(fleet, simulate):
    fleet.start_collector()
    run = simulate("--devices", 20, "--run-jobs", "--trial-s", 0.2)

    def ready():
        return sum(one["online"] and bool(one["backends"]) for one in devices(fleet)) == 20

    wait_for(ready, 40, "all devices and their inventories")
    done = fleet.cli("campaign", "run", str(fleet.write_campaign()))
    assert done.returncode == 0, done.stdout + done.stderr
    campaign_id = fleet.status()["campaign_id"]
    assert fleet.status(campaign_id)["state"] == "SUCCEEDED"
    fleet.assert_each_trial_once(campaign_id, 20 * 4)
    assert {item.record.backend_version for item in fleet.trials(campaign_id)} == {"simulated"}
    assert run.command.end(signal.SIGINT) == 0
    account = run.account()
    assert (account["trials"], account["jobs"]) == (80, 20)
    shown = fleet.cli("report", campaign_id)
    assert "SIMULATED: the figures of 20 of 20 cells were made up" in shown.stdout
    html = fleet.directory / "report.html"
    assert fleet.cli("report", campaign_id, "--html", str(html)).returncode == 0
    assert "SIMULATED" in html.read_text("utf-8")


def test_without_jobs_a_campaign_is_told_that_there_is_no_engine(fleet, simulate):
    fleet.start_collector()
    simulate("--devices", 2)
    wait_for(lambda: len(devices(fleet)) == 2, 30, "both devices")
    wait_for(lambda: all(one["backends"] for one in devices(fleet)), 30, "inventories")
    done = fleet.cli("campaign", "run", str(fleet.write_campaign()))
    assert done.returncode != 0
    assert "a simulated device has no engine" in done.stdout + done.stderr


def test_a_small_outbox_is_thinned_while_nobody_listens_and_that_is_accounted_for(
    fleet, simulate, tmp_path
):
    flags = ("--devices", 1, "--rate", 500, "--outbox-max-bytes", 2**20, "--state-dir", tmp_path)
    account = simulate(*flags, "--duration", 6, "--drain", 0).account()
    assert account["thinned"] > 0
    assert account["acknowledged"] == 0
    assert account["left"] > 0
    assert account["samples"] + account["skipped"] == 3000


def test_outboxes_that_are_kept_go_on_with_their_epochs(fleet, simulate, tmp_path):
    flags = ("--devices", 5, "--rate", 2, "--duration", 2, "--state-dir", tmp_path / "kept")
    first = simulate(*flags, "--drain", 0).account()
    assert first["acknowledged"] == 0
    assert first["left"] == first["made"] == 25
    fleet.start_collector()
    second = simulate(*flags).account()
    assert second["carried"] == 25
    assert second["acknowledged"] == 50
    assert second["state_dir"] == str(tmp_path / "kept")
    found = stored(fleet.data_dir, "telemetry")
    assert len(found) == 5, "one epoch each"
    assert all(len(seqs) == len(set(seqs)) == 8 for seqs in found.values())


def test_two_simulations_do_not_share_outboxes(fleet, simulate, tmp_path):
    flags = ("--devices", 3, "--state-dir", tmp_path / "kept")
    simulate(*flags)
    wait_for(lambda: (tmp_path / "kept" / "sim-00002" / "outbox.db").exists(), 30)
    second = simulate(*flags)
    assert second.command.process.wait(30) == 2
    assert "another simulation uses these devices" in second.command.output()


def test_ctrl_c_ends_it_with_an_account_and_a_second_one_does_not_wait(fleet, simulate):
    run = simulate("--devices", 5, "--rate", 5, "--drain", 600, "--processes", 2)
    wait_for(lambda: "connected" in run.command.output(), 30, "a line of progress")
    children = simulators(run.command)
    assert len(children) == 2
    run.command.process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert run.command.process.poll() is None, "nobody acknowledges, and it waits"
    run.command.process.send_signal(signal.SIGINT)
    account = run.account(30)
    assert account["left"] == account["made"] > 0
    assert account["state_dir"] is None
    assert not any(child.is_running() for child in children)


def test_killed_it_leaves_no_process_behind_nor_a_temporary_file(fleet, simulate):
    run = simulate("--devices", 5, "--drain", 0)
    wait_for(lambda: len(simulators(run.command)) == 1, 30, "the process")
    wait_for(lambda: "connected" in run.command.output(), 30, "a line of progress")
    children = simulators(run.command)
    flags = children[0].cmdline()
    run.command.kill()
    psutil.wait_procs(children, timeout=20)
    assert not any(child.is_running() for child in children)
    directory = flags[flags.index("--state-dir") + 1]
    assert not os.path.exists(directory), "nor a file"  # noqa: PTH110


def test_a_process_that_is_killed_is_not_taken_for_an_account(fleet, simulate):
    run = simulate("--devices", 4, "--processes", 2, "--drain", 0)
    wait_for(lambda: "connected" in run.command.output(), 30, "a line of progress")
    simulators(run.command)[0].kill()
    assert run.command.process.wait(30) == 1
    assert "was killed (signal 9)" in run.command.output()


def test_a_broker_that_is_not_there_is_said_once_with_a_hint(tmp_path):
    command = fleetmark(
        *("simulate", "--devices", 9, "--processes", 3, "--broker-port", free_port()),
        log=tmp_path / "log",
    )
    assert command.process.wait(30) == 1
    assert command.output().count("refused") == 1
    assert "fleetmark broker" in command.output()
    assert "Traceback" not in command.output()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--devices", 0), "--devices"),
        (("--devices", 200_000), "there are names for 100000 devices"),
        (("--devices", 2, "--prefix", "Big"), "can be no device's name"),
        (("--devices", 2, "--fleet", "a/b"), "fleet"),
        (("--devices", 2, "--processes", 3), "--processes 3: more than the 2 devices"),
        (("--devices", 2, "--backends", "ollama"), "--run-jobs"),
        (("--devices", 2, "--kind", "pi400:ollama"), "--run-jobs"),
        (("--devices", 2, "--kind", "Pi"), "'Pi' can be no tag"),
        (("--devices", 2, "--rate", 0), "--rate"),
        (("--devices", 2, "--flaky", 1.5), "--flaky"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_refused_before_anything_is_started(tmp_path, flags, said):
    command = fleetmark("simulate", *flags, log=tmp_path / "log")
    assert command.process.wait(30) == 2
    assert said in command.output()
    assert "Traceback" not in command.output()


def test_one_user_may_speak_for_all_over_tls_where_the_acl_lets_it(tmp_path):
    port, passwords = free_port(), tmp_path / "passwords"
    passwords.touch()
    for user in ("fleetmark-collector", "simulator"):
        subprocess.run(["mosquitto_passwd", "-b", passwords, user, f"of {user}"], check=True)
        (tmp_path / user).write_text(f"of {user}\n")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
        + ["-keyout", key, "-out", certificate, "-subj", "/CN=localhost"]
        + ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True,
        capture_output=True,
    )
    acl = tmp_path / "acl"
    acl.write_text(
        "user fleetmark-collector\n"
        "topic readwrite fleetmark/v1/#\n"
        "user simulator\n"
        + "".join(
            f"topic {way} fleetmark/v1/simulated/+/{channel}\n"
            for way, channel in [
                *(("write", channel) for channel in ("status", "inventory", "data")),
                *(("read", channel) for channel in ("status", "ack", "jobs/+")),
            ]
        )
    )
    broker = fleetmark(
        *("broker", "--port", port, "--data-dir", tmp_path, "--password-file", passwords),
        *("--acl-file", acl, "--cert-file", certificate, "--key-file", key),
        log=tmp_path / "broker.log",
    )

    def secure(user):
        return {
            "FLEETMARK_BROKER__HOST": "localhost",
            "FLEETMARK_BROKER__USERNAME": user,
            "FLEETMARK_BROKER__PASSWORD_FILE": str(tmp_path / user),
            "FLEETMARK_BROKER__CA_FILE": str(certificate),
        }

    wait_for(lambda: listens(port), what="the broker")
    collector = fleetmark(
        *("collect", "--data-dir", tmp_path / "data", "--broker-port", port),
        log=tmp_path / "collector.log",
        env=secure("fleetmark-collector"),
    )
    try:
        flags = ("--devices", 20, "--rate", 2, "--duration", 3)
        account = Simulation(tmp_path, port, *flags, env=secure("simulator")).account()
        assert (account["made"], account["left"]) == (140, 0)
        assert_complete(tmp_path / "data", 20, 6)
        wrong = {**secure("simulator"), "FLEETMARK_BROKER__USERNAME": "fleetmark-collector"}
        refused = Simulation(tmp_path, port, *flags, env=wrong).command
        assert refused.process.wait(30) == 1
        assert "check username and password_file" in refused.output()
    finally:
        collector.kill()
        broker.kill()


def test_the_embedded_broker_bears_a_small_fleet(tmp_path):
    broker = Broker(tmp_path, embedded=True).start()
    collector = fleetmark(
        *("collect", "--data-dir", tmp_path / "data", "--broker-port", broker.port),
        log=tmp_path / "collector.log",
    )
    try:
        wait_for(lambda: "broker_connected" in collector.output(), 30, "the collector")
        account = Simulation(tmp_path, broker.port, "--devices", 20, "--duration", 4).account()
        assert account["left"] == 0
        assert_complete(tmp_path / "data", 20, 4)
    finally:
        collector.kill()
        broker.kill()


def test_no_secret_is_on_a_command_line_and_the_environment_is_not_passed_on(fleet, simulate):
    secret = fleet.directory / "secret"
    secret.write_text("do not tell\n")
    (fleet.directory / "collector.toml").write_text("[ingest]\nbatch_records = 100\n")
    run = simulate(
        *("--devices", 1),
        env={
            "FLEETMARK_BROKER__USERNAME": "somebody",
            "FLEETMARK_BROKER__PASSWORD_FILE": str(secret),
            # The collector's settings, which no agent would understand.
            "FLEETMARK_CONFIG": str(fleet.directory / "collector.toml"),
        },
    )
    wait_for(lambda: "connected" in run.command.output(), 30, "a line of progress")
    (child,) = simulators(run.command)
    assert "do not tell" not in " ".join(child.cmdline())
    assert str(secret) in child.cmdline()
    assert not [name for name in child.environ() if name.startswith("FLEETMARK_")]


def test_temporary_outboxes_are_gone_in_the_end(fleet, simulate):
    run = simulate("--devices", 2, "--duration", 1, "--drain", 0)
    wait_for(lambda: "preparing" in run.command.output(), 30, "the start")
    (child,) = simulators(run.command)
    flags = child.cmdline()
    directory = flags[flags.index("--state-dir") + 1]
    run.account()
    assert not os.path.exists(directory)  # noqa: PTH110 - a path that a process was given


def test_records_carry_the_time_they_were_made(fleet, simulate):
    fleet.start_collector()
    before_ns = time.time_ns()
    simulate("--devices", 3, "--rate", 5, "--duration", 2).account()
    with closing(sqlite3.connect(fleet.data_dir / "store.db")) as store:
        times = [time_ns for (time_ns,) in store.execute("SELECT time_ns FROM telemetry")]
    assert len(times) == len(set(times)) == 30
    assert before_ns < min(times) < max(times) < time.time_ns()
