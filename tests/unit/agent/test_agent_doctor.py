"""The doctor of a device: what it finds, and what it advises a newcomer to do."""

import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fakes.fake_model import write_model
from fakes.fake_sysfs import raspberry_pi
from fleetmark_agent import statelock
from fleetmark_agent.cli import doctor
from fleetmark_agent.cli.doctor import LONG_BACKLOG, examine
from fleetmark_agent.cli.main import app
from fleetmark_agent.config import AgentSettings
from fleetmark_agent.database import Database
from fleetmark_agent.models.store import ModelStore
from fleetmark_agent.outbox import Outbox
from fleetmark_protocol.records import EventRecord
from servers import free_port


@pytest.fixture
def settings(tmp_path):
    """Makes settings whose broker is not there; `sensor_root` is empty, so all sensors are absent.

    Tables are given by name: settings(runner={"allow_backends": ()}).
    """

    def make(**tables):
        return AgentSettings.model_validate(
            {
                "device_id": "pi",
                "state_dir": tmp_path / "state",
                "broker": {"port": free_port()},
                **tables,
            }
        )

    return make


def found(settings, part):
    """The one finding about `part`."""
    (finding,) = [finding for finding in examine(settings) if part in finding.what]
    return finding


def fill_outbox(settings, records):
    database = Database(settings.outbox_file)
    outbox = Outbox(database, settings.outbox.max_bytes)
    with database.transaction():
        for number in range(records):
            outbox.append(
                EventRecord(time_ns=number + 1, severity="info", code="test", message="m")
            )
    database.close()


def files_below(directory: Path):
    return sorted(str(file.relative_to(directory)) for file in directory.rglob("*"))


def test_a_broker_that_is_not_there_is_bad_and_says_what_to_start(settings):
    finding = found(settings(), "broker 127.0.0.1")
    assert finding.level == "bad"
    assert "refused" in finding.what
    assert "fleetmark broker" in finding.hint


def test_a_broker_whose_name_nobody_knows_is_bad_and_points_to_the_setting(settings):
    finding = found(settings(broker={"host": "broker.invalid"}), "broker broker.invalid")
    assert finding.level == "bad"
    assert "broker.host" in finding.hint


def test_a_password_file_that_cannot_be_read_is_named(settings, tmp_path):
    broker = {"username": "pi", "password_file": tmp_path / "nowhere"}
    finding = found(settings(broker=broker), "broker 127.0.0.1")
    assert (finding.level, "password_file" in finding.what) == ("bad", True)


def test_a_state_dir_that_cannot_be_written_is_bad(settings, tmp_path):
    # A file in its place, because root may write everywhere.
    (tmp_path / "state").write_text("not a directory")
    finding = found(settings(), f"state_dir {tmp_path}/state:")
    assert finding.level == "bad"
    assert "state_dir" in finding.hint


def test_a_state_dir_below_a_file_is_bad(settings, tmp_path):
    (tmp_path / "file").write_text("not a directory")
    state_dir = tmp_path / "file" / "below"
    assert found(settings(state_dir=state_dir), f"state_dir {state_dir}:").level == "bad"


def test_a_state_dir_on_a_full_disk_is_bad(settings, tmp_path, monkeypatch):
    (tmp_path / "state").mkdir()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert "No space left" in found(settings(), "state_dir /").what


def test_looking_leaves_nothing_behind(settings, tmp_path):
    list(examine(settings()))
    assert files_below(tmp_path) == []
    fill_outbox(settings(), 3)
    before = files_below(tmp_path)
    list(examine(settings()))
    assert files_below(tmp_path) == before


def test_little_room_on_the_disk_is_a_warning(settings, monkeypatch):
    used = shutil.disk_usage("/")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: used._replace(free=100 * 2**20))
    finding = found(settings(), "free on its disk")
    assert (finding.level, "0.1 GiB" in finding.what) == ("warn", True)


def test_that_no_agent_runs_is_said_with_how_to_start_one(settings):
    finding = found(settings(), "no agent runs")
    assert finding.level == "info"
    assert "fleetmark-agent run" in finding.hint


def test_an_agent_that_runs_is_named_and_is_no_trouble(settings, tmp_path):
    with statelock.held(tmp_path / "state"):
        finding = found(settings(), "runs on this state_dir")
    assert (finding.level, f"pid {os.getpid()}" in finding.what) == ("info", True)


def test_a_short_backlog_is_told(settings):
    fill_outbox(settings(), 7)
    finding = found(settings(), "outbox:")
    assert (finding.level, "7 records" in finding.what) == ("ok", True)


def test_a_backlog_is_read_while_an_agent_writes(settings):
    database = Database(settings().outbox_file)
    with database.transaction() as connection:
        connection.execute("INSERT INTO records VALUES (1, 1, 'telemetry', x'00')")
    assert "1 records" in found(settings(), "outbox:").what
    database.close()


def test_a_long_backlog_asks_for_the_collector(settings):
    fill_outbox(settings(), LONG_BACKLOG + 1)
    finding = found(settings(), "outbox:")
    assert finding.level == "warn"
    assert "does a collector run" in finding.hint


def test_an_outbox_that_takes_half_its_room_asks_for_the_collector(settings):
    Database(settings().outbox_file).close()
    with sqlite3.connect(settings().outbox_file) as file:
        file.execute("INSERT INTO records VALUES (1, 1, 'telemetry', zeroblob(700000))")
    finding = found(settings(outbox={"max_bytes": 2**20}), "outbox:")
    assert (finding.level, "1 records (0.7 MiB)" in finding.what) == ("warn", True)


def test_a_damaged_outbox_is_a_warning_that_says_what_will_happen(settings, tmp_path):
    (tmp_path / "state").mkdir()
    settings().outbox_file.write_bytes(b"no database" * 1000)
    finding = found(settings(), "outbox ")
    assert (finding.level, "put aside" in finding.hint) == ("warn", True)


def test_no_backend_allowed_is_bad_and_points_to_the_setting(settings):
    finding = found(settings(runner={"allow_backends": ()}), "no backend is available")
    assert finding.level == "bad"
    assert "runner.allow_backends" in finding.hint


def test_a_misspelt_backend_is_named_with_the_one_that_was_meant(settings):
    finding = found(settings(runner={"allow_backends": ("xllamacp",)}), "'xllamacp'")
    assert (finding.level, "did you mean 'xllamacpp'" in finding.what) == ("warn", True)


def test_an_engine_that_is_not_installed_comes_with_the_command_that_installs_it(
    settings, monkeypatch
):
    from fleetmark_agent.backends import packages

    monkeypatch.setattr(packages, "find_spec", lambda _: None)
    nowhere = {"llama_server": {"executable": "/nowhere/llama-server"}}
    every = list(examine(settings(engines=nowhere)))
    (backend,) = [one for one in every if one.what.startswith("backend xllamacpp:")]
    assert (backend.level, backend.hint) == ("warn", "pip install 'fleetmark[xllamacpp]'")
    (none,) = [one for one in every if "no backend is available" in one.what]
    assert none.level == "bad"
    assert "fleetmark[xllamacpp]" in none.hint


def test_an_empty_model_store_says_how_models_come(settings):
    finding = found(settings(), "model store")
    assert (finding.level, "0 models" in finding.what) == ("ok", True)
    assert "model add" in finding.hint


def test_each_model_is_listed_and_what_was_never_looked_at_is_told_apart(settings, tmp_path):
    store = ModelStore.from_settings(settings())
    store.directory.mkdir(parents=True)
    store.add_file(write_model(tmp_path / "good.gguf"))
    (store.directory / "dropped.gguf").write_bytes(b"GGUF")
    (store.directory / "half.gguf.part").write_bytes(b"GG")
    assert "1 models" in found(settings(), "model store").what
    assert found(settings(), "model good.gguf").level == "ok"
    dropped, half = found(settings(), "model dropped.gguf"), found(settings(), "model half.gguf")
    assert (dropped.level, half.level) == ("info", "info")
    assert "model verify dropped.gguf" in dropped.hint
    assert "broken off" in half.what


def test_a_model_store_that_is_nearly_full_is_a_warning(settings, tmp_path):
    model = write_model(tmp_path / "good.gguf")
    store = ModelStore.from_settings(settings())
    store.directory.mkdir(parents=True)
    store.add_file(model)
    tight = settings(models={"quota_bytes": model.stat().st_size})
    assert found(tight, "nearly full").level == "warn"


def test_a_model_store_that_cannot_be_read_is_bad(settings, tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()

    def refused(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refused)
    finding = found(settings(models={"dir": tmp_path / "models"}), "model store")
    assert (finding.level, "models.dir" in finding.hint) == ("bad", True)


def test_a_sensor_that_the_machine_lacks_is_a_warning_that_says_absent(settings, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    every = examine(settings(telemetry={"sensor_root": empty}))
    lacking = {one.what.split()[1]: one for one in every if "(absent, not 0)" in one.what}
    assert {"thermal:", "frequency:"} <= lacking.keys()
    assert {one.level for one in lacking.values()} == {"warn"}


@pytest.mark.parametrize("controllers", ["cpuset cpu io pids\n", "cpu hugetlb memory2\n", ""])
def test_a_kernel_that_does_not_count_memory_by_groups_is_a_warning_with_the_cure(
    settings, tmp_path, controllers
):
    pi = raspberry_pi(tmp_path / "pi")
    pi.write("sys/fs/cgroup/cgroup.controllers", controllers)
    finding = found(settings(telemetry={"sensor_root": pi.root}), "MemoryMax")
    assert (finding.level, "do not hold" in finding.what) == ("warn", True)
    assert "cgroup_enable=memory cgroup_memory=1" in finding.hint
    assert "/boot/firmware/cmdline.txt" in finding.hint


def test_a_kernel_without_unified_groups_is_a_warning_that_says_what_to_boot_with(
    settings, tmp_path
):
    pi = raspberry_pi(tmp_path / "pi")
    finding = found(settings(telemetry={"sensor_root": pi.root}), "MemoryMax")
    assert (finding.level, "No such file" in finding.what) == ("warn", True)
    assert "unified_cgroup_hierarchy=1" in finding.hint


def test_limits_of_a_service_hold_where_the_kernel_counts_memory_by_groups(settings, tmp_path):
    pi = raspberry_pi(tmp_path / "pi")
    pi.write("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n")
    finding = found(settings(telemetry={"sensor_root": pi.root}), "memory by groups")
    assert (finding.level, finding.hint) == ("ok", None)


def test_the_command_fails_when_something_is_bad_and_prints_each_finding(tmp_path):
    config = tmp_path / "agent.toml"
    config.write_text(f'state_dir = "{tmp_path}/state"\n[broker]\nport = {free_port()}\n')
    done = CliRunner().invoke(app, ["doctor", "--config", str(config)])
    assert done.exit_code == 1
    assert "\n bad  broker 127.0.0.1:" in done.stdout
    assert "is the broker running (`fleetmark broker`)" in done.stdout
